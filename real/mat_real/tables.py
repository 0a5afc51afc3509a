"""What the configurations of server and node have in common (docs/ims.md, docs/node.md)."""

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, final

from pydantic import Field, PlainValidator

from mat.address import Address, from_ipv4
from mat_files.document import Table
from mat_files.errors import shown
from mat_real.dns.config import DnssecMode, ResolverConfig, parse_server

_T = TypeVar("_T")


def text_field(parse: Callable[[str], _T]) -> Any:
    """A field that is written as text and kept as what `parse` makes of it."""

    def validate(value: object) -> _T:
        if not isinstance(value, str):
            raise ValueError(f"is {shown(value)}; must be text in quotes")
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(str(error)) from None

    return PlainValidator(validate)


def endpoint(default_port: int) -> Callable[[str], tuple[Address, int]]:
    """A parser of an address with or without a port."""

    def parse(text: str) -> tuple[Address, int]:
        # As DNS servers are written, but for the default port; 0 is "any" for a listener.
        given = text.rpartition("]")[2] if text.startswith("[") else text
        has_port = given.count(":") == 1
        host, port = parse_server(text)
        packed = ipaddress.ip_address(host).packed
        address = from_ipv4(packed) if len(packed) == 4 else Address(packed)
        return address, port if has_port else default_port

    return parse


DnsServer = Annotated[tuple[str, int], text_field(parse_server)]


@final
class DnsTable(Table):
    """How other IMS are found."""

    servers: Annotated[tuple[DnsServer, ...], Field(strict=False)] = ()
    """Recursive servers, as ["192.0.2.53", "[2001:db8::53]:53"]. None: those of the system."""
    timeout: Annotated[float, Field(gt=0)] = 2.0
    """Seconds for one answer of one server."""
    attempts: Annotated[int, Field(ge=1)] = 2
    """How often each server is asked before the DNS counts as silent."""
    dnssec: DnssecMode = "off"
    """off: answers are believed. ad: only those with the AD bit of a validating server.
    validate: only those that signatures prove, down from the trust anchors."""
    trust_anchors: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """DS or DNSKEY records as in a zone file, with absolute names."""

    @property
    def resolver(self) -> ResolverConfig:
        """The table as the resolver takes it. Raises `ValueError`."""
        return ResolverConfig(
            servers=self.servers,
            timeout=self.timeout,
            attempts=self.attempts,
            dnssec=self.dnssec,
            trust_anchors=self.trust_anchors,
        )


@final
class LogTable(Table):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["text", "json"] = "text"
    """text: a line for people. json: an object a line, for machines."""
