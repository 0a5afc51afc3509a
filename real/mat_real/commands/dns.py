"""`mat dns`: the IMS record of a home address: print it, publish it, look it up, serve it."""

import ipaddress
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from mat.address import Address, format_address, is_ipv4, parse_address
from mat.ims_record import ImsRecord, from_text, reverse_name
from mat.messages import MAT_PORT
from mat_real.commands.extras import NeedsIms
from mat_real.commands.key import PATH

if TYPE_CHECKING:
    from collections.abc import Generator

    from mat_real.dns import Absent, Key, Located, Published, Responder, Server

_Command = TypeVar("_Command", bound=Callable[..., Any])

TTL = 300
"""Seconds: an IMS seldom moves, and one that must can do so within minutes."""


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _server(text: str) -> "Server":
    from mat_real.dns import parse_server

    try:
        return parse_server(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _pair(text: str) -> tuple[str, str]:
    left, _, right = text.partition("=")
    if not (left and right):
        raise click.BadParameter(f"{text!r} has no '=' with something on both sides")
    return left, right


@click.group(
    cls=NeedsIms, short_help="The IMS record of a home address: print, publish, look up, serve."
)
def dns() -> None:
    """The IMS record, by which the DNS says who holds a home address's mapping.

    It stands where the home address's PTR record does, as type 65338 (docs/protocol.md, 7).
    """


_ttl_option = click.option(
    "--ttl",
    type=click.IntRange(0, 2**31 - 1),
    default=TTL,
    show_default=True,
    help="Seconds for which others may remember it.",
)


def _ims_options(command: _Command) -> _Command:
    """The options that say which IMS a record names."""
    for option in (
        _ttl_option,
        click.option(
            "--precedence",
            type=click.IntRange(0, 255),
            default=10,
            show_default=True,
            help="Lower is preferred.",
        ),
        click.option(
            "--port",
            type=click.IntRange(1, 65535),
            default=MAT_PORT,
            show_default=True,
            help="UDP port of the IMS.",
        ),
        click.option("--name", default="", help="DNS name of the IMS, with its final dot."),
        click.option(
            "--ims",
            "addresses",
            multiple=True,
            metavar="ADDRESS",
            help="Address of a replica of the IMS; give it once for each.",
        ),
    ):
        command = option(command)
    return command


def _records(
    addresses: Sequence[str], name: str, port: int, precedence: int
) -> tuple[ImsRecord, ...]:
    from mat_real.dns import make_records

    if not addresses and not name:
        raise click.UsageError("Say where the IMS is: --ims ADDRESS, or --name NAME.")
    try:
        return make_records(addresses, name, port, precedence)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def _translated_errors() -> "Generator[None]":
    """What is wrong with the input or the DNS as an error of the command line."""
    from mat_real.dns import DnsError, ResolutionError

    try:
        yield
    except (DnsError, ResolutionError, ValueError) as error:
        raise click.ClickException(str(error)) from error


# ---- record ------------------------------------------------------------------------------------


@dns.command(short_help="Print the record for a zone file.")
@click.argument("hoa", type=_address)
@_ims_options
def record(
    *, hoa: Address, addresses: tuple[str, ...], name: str, port: int, precedence: int, ttl: int
) -> None:
    """Print the IMS record of the home address HOA, readable and as a line for a zone file.

    \b
    mat dns record 10.1.0.5 --ims 192.0.2.1 --ims 192.0.2.2
    mat dns record 2001:db8:1::5 --ims 2001:db8::1 --ims 192.0.2.1
    mat dns record 10.1.0.5 --name ims.example. --ttl 3600

    The line is in the form that every server reads, whether it knows the type or not (RFC 3597).
    Addresses of both families make two records.
    """
    from mat_real.dns import record_lines

    for line in record_lines(hoa, _records(addresses, name, port, precedence), ttl):
        click.echo(line)


# ---- publish -----------------------------------------------------------------------------------


@dns.command(short_help="Set the record by dynamic update.")
@click.argument("hoa", type=_address)
@_ims_options
@click.option("--delete", is_flag=True, help="Delete the record: no longer a MAT node.")
@click.option(
    "--key-file",
    type=PATH,
    help="TSIG key as tsig-keygen writes it.",
)
@click.option("--key-name", default="", help="TSIG key without such a file: its name,")
@click.option("--algorithm", default="hmac-sha256", show_default=True, help="its algorithm,")
@click.option(
    "--secret-file",
    type=PATH,
    help="and a file with its secret in Base64.",
)
@click.option("--zone", default="", help="Zone to update; without it the DNS is asked.")
@click.option(
    "--server",
    type=_server,
    metavar="ADDR[:PORT]",
    help="Its primary; without it the DNS is asked.",
)
def publish(
    *,
    hoa: Address,
    addresses: tuple[str, ...],
    name: str,
    port: int,
    precedence: int,
    ttl: int,
    delete: bool,
    key_file: Path | None,
    key_name: str,
    algorithm: str,
    secret_file: Path | None,
    zone: str,
    server: "Server | None",
) -> None:
    """Set the IMS record of the home address HOA in the DNS, in place of what was there.

    \b
    mat dns publish 10.1.0.5 --ims 192.0.2.1 --key-file ims.key
    mat dns publish 10.1.0.5 --ims 192.0.2.1 --key-file ims.key \\
        --server 192.0.2.53 --zone 1.10.in-addr.arpa
    mat dns publish 10.1.0.5 --delete --key-name ims --secret-file ims.secret

    The zone's primary must allow dynamic updates with the key (docs/dns.md). What it serves
    afterwards is printed; a wildcard that answers for fewer names than before is a warning.
    """
    import asyncio

    from mat_real.dns import publish as update

    if delete and (addresses or name):
        raise click.UsageError("--delete goes without --ims and --name.")
    records = () if delete else _records(addresses, name, port, precedence)
    with _translated_errors():
        key = _key(key_file, key_name, algorithm, secret_file)
        outcome = asyncio.run(update(hoa, records, key=key, ttl=ttl, zone=zone, server=server))
    _print_published(hoa, outcome)


def _key(key_file: Path | None, name: str, algorithm: str, secret_file: Path | None) -> "Key":
    from mat_real.dns import exposure, read_key, read_secret

    if key_file is not None and not name and secret_file is None:
        path, key = key_file, read_key(key_file)
    elif key_file is None and name and secret_file is not None:
        path, key = secret_file, read_secret(secret_file, name, algorithm)
    else:
        raise click.UsageError("A key is needed: --key-file, or --key-name with --secret-file.")
    if warning := exposure(path):
        click.echo(f"Warning: {warning}.", err=True)
    return key


def _print_published(hoa: Address, outcome: "Published") -> None:
    from mat_real.dns import format_server

    home = format_address(hoa)
    where = f"{outcome.name} in zone {outcome.zone} at {format_server(outcome.server)}"
    if not outcome.records:
        click.echo(f"{home} has no IMS record any more: {where}")
    elif outcome.wildcard:
        click.echo(f"{home} has no IMS record of its own any more: {where}")
        click.echo(f"A wildcard answers for it now, TTL {outcome.ttl} s")
    else:
        click.echo(f"{home} now has: {where}, TTL {outcome.ttl} s")
    for found in outcome.records:
        click.echo(f"  {found.to_text()}")
    if outcome.uncovered:
        click.echo(_warning_of_uncovered(hoa, outcome.uncovered), err=True)


def _warning_of_uncovered(hoa: Address, name: str) -> str:
    """What a publication has taken from others, whose names lie below this one."""
    whom = "other names there"
    if reverse_name(hoa).endswith(f".{name}"):
        labels = len(name.removesuffix(".").split(".")) - 2
        bits = labels * (8 if is_ipv4(hoa) else 4)
        prefix = ipaddress.ip_network(f"{format_address(hoa)}/{bits}", strict=False)
        whom = f"other home addresses in {prefix}"
    return (
        f"Warning: {name} exists now, so the wildcard that answered for {whom} does so no longer"
        " (RFC 4592). Give them records of their own, or wildcards below this name and each one"
        " between it and the record (docs/dns.md)."
    )


# ---- lookup ------------------------------------------------------------------------------------


@dns.command(short_help="Ask the DNS for the record.")
@click.argument("hoa", type=_address)
@click.option(
    "--server",
    "servers",
    type=_server,
    metavar="ADDR[:PORT]",
    multiple=True,
    help="DNS server to ask, in place of /etc/resolv.conf's; may be given more than once.",
)
@click.option(
    "--dnssec",
    type=click.Choice(["off", "ad", "validate"]),
    default="off",
    show_default=True,
    help="Believe any answer; those the server has validated; those validated here.",
)
@click.option(
    "--trust-anchor",
    type=PATH,
    help="File with DS or DNSKEY records to validate from.",
)
def lookup(
    *,
    hoa: Address,
    servers: "tuple[Server, ...]",
    dnssec: Literal["off", "ad", "validate"],
    trust_anchor: Path | None,
) -> None:
    """Ask the DNS for the IMS of the home address HOA, as a node or another IMS would.

    \b
    mat dns lookup 10.1.0.5
    mat dns lookup 10.1.0.5 --server 127.0.0.1:5353
    mat dns lookup 10.1.0.5 --dnssec validate \\
        --trust-anchor /usr/share/dns/root.ds

    Exit code 1 where there is no IMS record, or the DNS does not say (docs/dns.md).
    """
    import asyncio

    from mat_real.dns import Absent, Resolver, ResolverConfig, read_anchors

    async def ask() -> "Located | Absent":
        return await Resolver(config).locate(hoa)

    if dnssec == "validate" and trust_anchor is None:
        raise click.UsageError("--dnssec validate needs --trust-anchor.")
    with _translated_errors():
        anchors = read_anchors(trust_anchor) if trust_anchor else ()
        config = ResolverConfig(servers=servers, dnssec=dnssec, trust_anchors=anchors)
        found = asyncio.run(ask())
    proved = {"off": "not authenticated", "ad": "vouched for by the server (AD)"}
    how = proved.get(dnssec, "validated")
    if isinstance(found, Absent):
        raise click.ClickException(
            f"{format_address(hoa)} is not a MAT node: {reverse_name(hoa)} has no IMS record; {how}"
        )
    _print_located(hoa, found, how)


def _print_located(hoa: Address, found: "Located", how: str) -> None:
    click.echo(f"{format_address(hoa)}: {found.name}, TTL {found.ttl:.0f} s, {how}")
    for ims, servers in found.records:
        places = ", ".join(format_address(server.address) for server in servers)
        leads = f" → {places or 'no address'}" if ims.name else ""
        click.echo(f"  {ims.to_text()}{leads}")


# ---- serve -------------------------------------------------------------------------------------


@dns.command(short_help="Serve records from the command line, for laboratories.")
@click.option("--zone", "zones", multiple=True, required=True, help="Zone to serve.")
@click.option(
    "--record",
    "records",
    type=_pair,
    metavar="PREFIX=RECORD",
    multiple=True,
    help="IMS record of a home address, or of each in a prefix: 'precedence port where…'.",
)
@click.option(
    "--host",
    "hosts",
    type=_pair,
    metavar="NAME=ADDRESS",
    multiple=True,
    help="Address of a name, such as one in a record.",
)
@click.option(
    "--listen",
    type=_server,
    metavar="ADDR[:PORT]",
    default="127.0.0.1:5353",
    show_default=True,
    help="Address and port, UDP and TCP.",
)
@_ttl_option
def serve(
    *,
    zones: tuple[str, ...],
    records: tuple[tuple[str, str], ...],
    hosts: tuple[tuple[str, str], ...],
    listen: "Server",
    ttl: int,
) -> None:
    """Serve zones with IMS records until interrupted: a DNS for demonstrations and laboratories.

    \b
    mat dns serve --zone 1.10.in-addr.arpa \\
        --record 10.1.0.0/16="10 49628 192.0.2.1"
    mat dns serve --zone 10.in-addr.arpa --zone example --listen 127.0.0.1:5300 \\
        --record 10.1.0.5="10 49628 ims.example." --host ims.example=192.0.2.1

    Several records of one prefix are a set; of several prefixes the longest counts. A prefix is
    no wildcard: other records beside it take nothing from it (docs/dns.md).
    """
    import asyncio

    from mat_real.dns import Responder

    with _translated_errors():
        responder = Responder(
            zones,
            [(prefix, from_text(text)) for prefix, text in records],
            hosts=[(name, parse_address(address)) for name, address in hosts],
            ttl=ttl,
        )
        asyncio.run(_serve(responder, listen))


async def _serve(responder: "Responder", listen: "Server") -> None:
    """Serve until SIGINT or SIGTERM."""
    import asyncio
    import signal

    from mat_real.dns import format_server

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    address, port = listen
    endpoint = await responder.start(address, port)
    click.echo(f"Serving on {format_server((address, endpoint.port))}, UDP and TCP; Ctrl-C ends.")
    await stop.wait()
    await responder.close()
