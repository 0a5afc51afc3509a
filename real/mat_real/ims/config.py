"""The configuration of an IMS: a TOML file, or overrides alone (docs/ims.md is the reference)."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, final

from pydantic import Field

from mat.address import Address, from_ipv4
from mat.messages import MAT_PORT
from mat.parameters import Parameters
from mat_files.document import Document, Table
from mat_files.errors import InputError, shown
from mat_real.dns.config import DNS_PORT, ResolverConfig
from mat_real.ims.zones import Zone
from mat_real.tables import DnsTable, LogTable, endpoint, text_field

DEFAULT_CONTROL: Final = "/run/mat/ims.sock"
METRICS_PORT: Final = 9628


class ConfigError(InputError):
    """A configuration that cannot be used; lists every problem found."""


def _zone(text: str) -> Zone:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        reason = "host bits are set" if "host bits" in str(error) else "is no prefix"
        raise ValueError(f"is {shown(text)}: {reason}; write for example 10.1.0.0/16") from None
    packed = network.network_address.packed
    if len(packed) == 4:
        return from_ipv4(packed), 96 + network.prefixlen
    return Address(packed), network.prefixlen


Listener = Annotated[tuple[Address, int], text_field(endpoint(MAT_PORT))]


@final
class ImsTable(Table):
    """What the server listens to, and whom it serves."""

    zones: Annotated[
        tuple[Annotated[Zone, text_field(_zone)], ...], Field(min_length=1, strict=False)
    ]
    """Home prefixes that this IMS is responsible for, as ["10.1.0.0/16", "2001:db8:1::/48"]."""
    listen: Annotated[tuple[Listener, ...], Field(min_length=1, strict=False)] = (
        (Address(bytes(16)), MAT_PORT),
    )
    """Addresses, with or without a port: ["[::]:49628"] is all addresses of both families."""
    keys: str = "/etc/mat/keys"
    """The key file (`mat key`), beside this file if not absolute."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the port. With the journal each holds all mappings in memory."""
    backlog: Annotated[int, Field(ge=1000)] = 200_000
    """Datagrams that may wait in each worker; beyond, the kernel drops."""
    receive_buffer: Annotated[int, Field(ge=65536, le=1 << 30)] = 32 << 20
    """Wanted size of each socket's kernel buffer, in bytes; net.core.rmem_max may allow less."""
    control: str = DEFAULT_CONTROL
    """Unix socket for `mat ims status`, beside this file if not absolute."""


@final
class StoreTable(Table):
    """Where mappings are kept."""

    kind: Literal["journal", "redis", "memory"] = "journal"
    """journal: a file. redis: a Redis or Valkey server or cluster, which several IMS may share.
    memory: nothing survives; for tests."""
    path: str = "/var/lib/mat/ims.store"
    """The journal's file, beside this file if not absolute."""
    url: str = ""
    """redis://HOST:PORT/DB, rediss:// or unix://PATH."""
    password_file: str = ""
    """File with the server's password."""
    cluster: bool = False
    """Whether the URL is that of a node of a cluster."""
    timeout: Annotated[float, Field(gt=0)] = 1.0
    """Seconds until a server that does not answer counts as lost."""
    durability: Literal["fsync", "trust"] = "fsync"
    """fsync: refuse a server that would acknowledge a change before it is on its disk. trust: the
    operator sees to it by other means."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Updates are acknowledged when so many replicas of the server have them too."""


@final
class ResponderTable(Table):
    """A small authoritative DNS server for the zones, for demos and labs."""

    listen: Annotated[tuple[Address, int], text_field(endpoint(DNS_PORT))]
    """Address and port, as "127.0.0.1:5353"."""
    zones: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """Reverse zones that it serves, as ["1.10.in-addr.arpa"]."""
    records: dict[str, str]
    """IMS records by home address or prefix: {"10.1.0.0/16" = "10 49628 192.0.2.1"}."""


@final
class MetricsTable(Table):
    """Prometheus metrics over HTTP."""

    listen: Annotated[tuple[Address, int], text_field(endpoint(METRICS_PORT))]
    """Address and port, as "127.0.0.1:9628"."""


@final
class ServerConfig(Table):
    """All of a configuration."""

    ims: ImsTable
    store: StoreTable = StoreTable()
    dns: DnsTable = DnsTable()
    responder: ResponderTable | None = None
    metrics: MetricsTable | None = None
    log: LogTable = LogTable()
    protocol: dict[str, float] = Field(default_factory=dict[str, float])
    """Protocol parameters by name (docs/protocol.md, section 10), in place of their defaults."""

    @property
    def parameters(self) -> Parameters:
        """The protocol's parameters."""
        return Parameters.with_overrides(self.protocol)

    @property
    def resolver(self) -> ResolverConfig:
        """The table `dns` as the resolver takes it."""
        return self.dns.resolver


@final
class Configuration:
    """A configuration and where it came from: what a reload reads again."""

    __slots__ = ("_overrides", "_path", "config", "text")

    def __init__(
        self, path: Path | None, overrides: tuple[str, ...] = (), text: str | None = None
    ) -> None:
        """Read a file (None: overrides alone) and apply `KEY=VALUE` overrides.

        With `text`, that is taken for what the file holds. Raises `ConfigError` with every problem
        found.
        """
        self._path = path
        self._overrides = overrides
        document = Document(path, "a configuration", ConfigError, text)
        self.text = document.text
        """What the file held when it was read."""
        document.override(overrides)
        self.config = document.validated(ServerConfig)
        document.fail_on(_findings(self.config))

    def reread(self, text: str | None = None) -> "Configuration":
        """The same file and overrides, as they are now or with this text. Raises `ConfigError`."""
        return Configuration(self._path, self._overrides, text)

    def beside(self, name: str) -> Path:
        """A file that the configuration names: relative to the configuration's own place."""
        return (self._path.parent if self._path else Path()) / name


def _findings(config: ServerConfig) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong between fields that are valid one by one."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    store = config.store
    if store.kind == "redis" and not store.url:
        found.append((("store", "url"), 'is missing; write for example "redis://127.0.0.1:6379"'))
    if store.kind == "memory" and config.ims.workers > 1:
        what = f"is {config.ims.workers}; a store in memory is that of one worker: write 1"
        found.append((("ims", "workers"), what))
    addresses = [address for address, _ in config.ims.listen]
    if len(set(addresses)) != len(addresses):
        found.append((("ims", "listen"), "has an address twice; one socket an address"))
    wildcards = {bytes(16), from_ipv4(bytes(4))} & set(addresses)
    if wildcards and len(addresses) > 1:
        what = "has all addresses and others; name either all, or each that is meant"
        found.append((("ims", "listen"), what))
    try:
        _ = config.parameters
    except ValueError as error:
        found.append((("protocol",), str(error)))
    try:
        _ = config.resolver
    except ValueError as error:
        found.append((("dns",), str(error)))
    return found
