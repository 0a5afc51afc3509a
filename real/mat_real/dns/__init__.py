"""The DNS, both sides: finding the IMS record of a home address, and publishing one.

`Resolver` finds (module `resolver`), `Responder` is a small authoritative server for laboratories,
`publish` sets a record by dynamic update, `record_lines` prints it for a zone file.
"""

from mat_real.dns.config import (
    ResolverConfig,
    Server,
    format_server,
    parse_server,
    system_servers,
)
from mat_real.dns.errors import BogusError, DnsError, ResolutionError, UnansweredError
from mat_real.dns.lookup import Absent, Located
from mat_real.dns.presentation import make_records, record_lines
from mat_real.dns.publish import Published, publish
from mat_real.dns.resolver import Resolver
from mat_real.dns.responder import Responder
from mat_real.dns.tsig import Key, exposure, read_key, read_secret
from mat_real.dns.upstream import ResolverCounters
from mat_real.dns.validation import parse_anchors, read_anchors

__all__ = [
    "Absent",
    "BogusError",
    "DnsError",
    "Key",
    "Located",
    "Published",
    "ResolutionError",
    "Resolver",
    "ResolverConfig",
    "ResolverCounters",
    "Responder",
    "Server",
    "UnansweredError",
    "exposure",
    "format_server",
    "make_records",
    "parse_anchors",
    "parse_server",
    "publish",
    "read_anchors",
    "read_key",
    "read_secret",
    "record_lines",
    "system_servers",
]
