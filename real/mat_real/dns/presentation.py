"""The IMS record of a home address as lines of a zone file."""

from collections.abc import Iterable, Sequence

from mat.address import Address, format_address, is_ipv4, parse_address
from mat.ims_record import IMS_RECORD_TYPE, ImsRecord, from_text, reverse_name


def make_records(
    addresses: Iterable[str], name: str, port: int, precedence: int
) -> tuple[ImsRecord, ...]:
    """The records that name an IMS: one per family of its addresses, and one for its name, if any.

    Raises `ValueError` for what is no address, a name that does not end with a dot, too many
    addresses or a number out of range.
    """
    parsed = [parse_address(text) for text in addresses]
    groups = [[a for a in parsed if is_ipv4(a) is family] for family in (True, False)]
    wheres = [" ".join(map(format_address, group)) for group in groups if group]
    wheres += [name] if name else []
    return tuple(from_text(f"{precedence} {port} {where}") for where in wheres)


def record_lines(home_address: Address, records: Sequence[ImsRecord], ttl: int) -> list[str]:
    """For each record its readable form as a comment, and the line for any server (RFC 3597)."""
    owner, home = reverse_name(home_address), format_address(home_address)
    lines: list[str] = []
    for record in records:
        lines.append(f"; IMS record of {home}: {record.to_text()}")
        lines.append(f"{owner} {ttl} IN TYPE{IMS_RECORD_TYPE} {record.to_generic_text()}")
    return lines
