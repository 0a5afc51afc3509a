"""Asking DNS servers: over UDP, over TCP where an answer was cut off, one server after the other.

Each question has a socket, and so a port, of its own, connected to the server: the kernel drops
what others send and reports a port that nobody listens on. dnspython draws the id and drops what
is no answer to the question (RFC 5452). The server that answered last is asked first.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Final, cast, final

import dns.asyncbackend
import dns.asyncquery
import dns.flags
import dns.inet
import dns.message
import dns.rcode
from dns.exception import DNSException
from dns.message import QueryMessage
from dns.name import Name
from dns.rdatatype import RdataType, to_text

from mat_real.dns.config import DnssecMode, ResolverConfig, Server, format_server, system_servers
from mat_real.dns.errors import UnansweredError

PAYLOAD: Final = 1232
"""Bytes of a UDP answer, by EDNS: what passes every link unfragmented (as MAT's own limit)."""

_SILENT: Final = "does not answer"

_QUESTION_FLAGS: Final[dict[DnssecMode, int]] = {
    "off": dns.flags.RD,
    "ad": dns.flags.RD | dns.flags.AD,
    # Checking disabled: a validating server passes on what it would not believe, and we judge.
    "validate": dns.flags.RD | dns.flags.CD,
}


@final
@dataclass(slots=True)
class ResolverCounters:
    """What a resolver has done since it was made."""

    queries: int = 0
    """Questions sent to a server, each try of each question."""
    timeouts: int = 0
    """Tries that got no answer in time."""
    cache_hits: int = 0
    """Look-ups answered from memory."""
    failures: int = 0
    """Look-ups that ended without knowing."""
    negative: int = 0
    """Look-ups that ended with: no IMS record."""
    bogus: int = 0
    """Look-ups that failed because an answer was not authentic; also counted in `failures`."""
    bad_records: int = 0
    """IMS records that could not be read, and were left out."""


@final
class Upstream:
    """The servers of a configuration, and which of them to ask first."""

    __slots__ = ("_backend", "_config", "_counters", "_first", "servers")

    def __init__(self, config: ResolverConfig, counters: ResolverCounters) -> None:
        """Read /etc/resolv.conf if no servers are configured. Raises `DnsError`."""
        self.servers = config.servers or system_servers()
        self._config = config
        self._counters = counters
        self._first = 0
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(self, name: Name, rdtype: RdataType) -> QueryMessage:
        """The first usable answer: NOERROR or NXDOMAIN, and not a referral.

        A silent server is asked `attempts` times, others once. Raises `UnansweredError`.
        """
        order = [*range(self._first, len(self.servers)), *range(self._first)]
        outcomes: dict[int, str] = {}
        for _ in range(self._config.attempts):
            for index in order:
                if outcomes.get(index, _SILENT) != _SILENT:
                    continue
                answer = await self._try(self.servers[index], name, rdtype)
                if isinstance(answer, QueryMessage):
                    self._first = index
                    return answer
                outcomes[index] = answer
        reasons = (f"{format_server(self.servers[i])} {why}" for i, why in outcomes.items())
        raise UnansweredError(f"{name} {to_text(rdtype)}: " + "; ".join(reasons))

    async def _try(self, server: Server, name: Name, rdtype: RdataType) -> QueryMessage | str:
        """The answer of one server, or what is wrong with it."""
        mode = self._config.dnssec
        query = dns.message.make_query(
            name,
            rdtype,
            use_edns=0,
            payload=PAYLOAD,
            want_dnssec=mode == "validate",
            flags=_QUESTION_FLAGS[mode],
        )
        self._counters.queries += 1
        try:
            async with asyncio.timeout(self._config.timeout):
                answer = await self._exchange(query, server)
        except TimeoutError:
            self._counters.timeouts += 1
            return _SILENT
        except OSError as error:
            return f"cannot be reached ({error.strerror or error})"
        except (DNSException, EOFError) as error:
            return f"answered with garbage ({error})"
        return _complaint(answer) or answer

    async def _exchange(self, query: QueryMessage, server: Server) -> QueryMessage:
        address, port = server
        family = dns.inet.af_for_address(address)
        source = self._source(address)
        udp: Any = await cast(Any, self._backend).make_socket(
            family,
            socket.SOCK_DGRAM,
            source=(source, 0) if source is not None else None,
            destination=server,
        )
        async with udp:
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query,
                address,
                port=port,
                source=source,
                ignore_unexpected=True,
                ignore_errors=True,
                udp_sock=udp,
                backend=self._backend,
            )
        assert isinstance(answer, QueryMessage)
        return answer

    def _source(self, server: str) -> str | None:
        """The own address to ask a server from; None leaves that to the kernel."""
        family = dns.inet.af_for_address(server)
        fit = (own for own in self._config.sources if dns.inet.af_for_address(own) == family)
        return next(fit, None)


def _complaint(answer: QueryMessage) -> str:
    """What makes an answer unusable; empty if nothing does."""
    code = answer.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return f"says {dns.rcode.to_text(code)}"
    if answer.answer or code == dns.rcode.NXDOMAIN:
        return ""
    kinds = {rrset.rdtype for rrset in answer.authority}
    knows = answer.flags & (dns.flags.AA | dns.flags.RA)
    if RdataType.SOA not in kinds and (RdataType.NS in kinds or not knows):
        return "refers to other servers; name one that resolves"
    return ""
