"""What a resolver is told: whom to ask, for how long, and what it takes to believe an answer."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

from mat.parameters import DEFAULTS
from mat_real.dns.errors import DnsError

DNS_PORT: Final = 53
"""RFC 1035."""

Server: TypeAlias = tuple[str, int]
"""A DNS server: address as text and port."""

DnssecMode: TypeAlias = Literal["off", "ad", "validate"]


@final
@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """How a `Resolver` works. Times in seconds. Raises `ValueError` for what makes no sense."""

    servers: tuple[Server, ...] = ()
    """Asked in turn; none: those of /etc/resolv.conf when the resolver is made."""
    timeout: float = 2.0
    """How long one server may take for one answer."""
    sources: tuple[str, ...] = ()
    """Own addresses to ask from: the first of a server's family. Without, the kernel chooses."""
    attempts: int = 2
    """How often each server is asked before the DNS counts as silent."""
    dnssec: DnssecMode = "off"
    """`off`: answers are believed. `ad`: only those with the AD bit of a validating server.
    `validate`: only those that signatures prove, down from `trust_anchors`."""
    trust_anchors: tuple[str, ...] = ()
    """DS or DNSKEY records, as in a zone file with absolute names (see `parse_anchors`)."""
    cache_limit: int = 100_000
    """Home addresses remembered; the one used longest ago goes first."""
    minimum_ttl: float = DEFAULTS.failure_time
    maximum_ttl: float = 86_400.0
    negative_ttl: float = DEFAULTS.non_mat_time
    """Longest time for which a home address without an IMS record is remembered."""
    concurrency: int = 200
    """Look-ups under way at a time, each with one socket; the others wait for their turn."""

    def __post_init__(self) -> None:
        for address, port in self.servers:
            ipaddress.ip_address(address)  # says itself what is wrong
            if not 1 <= port <= 65535:
                raise ValueError(f"DNS server {address}: port {port}; a port is 1 to 65535")
        for name in ("timeout", "attempts", "cache_limit", "concurrency"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than 0, is {getattr(self, name)}")
        if not 0 <= self.minimum_ttl <= self.maximum_ttl:
            raise ValueError("minimum_ttl must be from 0 to maximum_ttl")
        if not 0 <= self.negative_ttl <= DEFAULTS.non_mat_time:
            raise ValueError(f"negative_ttl must be from 0 to {DEFAULTS.non_mat_time:g} s")
        if self.dnssec == "validate" and not self.trust_anchors:
            raise ValueError("dnssec = validate needs trust_anchors: DS or DNSKEY records")
        if self.trust_anchors:
            from mat_real.dns.validation import parse_anchors

            parse_anchors(self.trust_anchors)


def parse_server(text: str) -> Server:
    """The server written `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53` or `[2001:db8::53]:5353`.

    Raises `ValueError`.
    """
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        host = host if bracket else text
        port = rest.removeprefix(":") if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{text!r}: an address is needed, like 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53"
        ) from None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: port {port!r}; a port is 1 to 65535")
    return host, int(port)


def format_server(server: Server) -> str:
    """A server as `parse_server` reads it."""
    address, port = server
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def system_servers(path: Path = Path("/etc/resolv.conf")) -> tuple[Server, ...]:
    """The servers that this host uses. Raises `DnsError`."""
    from dns.resolver import NoResolverConfiguration, Resolver

    try:
        found = Resolver(str(path)).nameservers
    except (NoResolverConfiguration, ValueError) as error:
        raise DnsError(f"{path}: no DNS server ({error}); name one, such as 127.0.0.1") from error
    return tuple((str(address), DNS_PORT) for address in found)
