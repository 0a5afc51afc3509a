"""The configuration of a node: a TOML file, or overrides alone (docs/node.md is the reference)."""

import time
from pathlib import Path
from typing import Annotated, Final, Literal, final

from pydantic import Field

from mat.address import Address, is_ipv4
from mat.authentication import Key
from mat.messages import MAT_PORT
from mat.parameters import Parameters
from mat_files.document import Document, Table
from mat_files.errors import InputError
from mat_real.dataplane import QUEUE
from mat_real.key_file import fail, format_home, numbered_entries, open_key_file
from mat_real.tables import DnsTable, LogTable, endpoint, text_field

DEFAULT_CONFIG: Final = Path("/etc/mat/node.toml")
DEFAULT_CONTROL: Final = "/run/mat-node/node.sock"

Server = Annotated[tuple[Address, int], text_field(endpoint(MAT_PORT))]


class ConfigError(InputError):
    """A configuration that cannot be used; lists every problem found."""


@final
class NodeTable(Table):
    """Who the node is, and what it uses."""

    key: str = "/etc/mat/node.key"
    """The key of the node's home address, or home prefix, as `mat key new HOA --out` wrote it; with
    a home address in each family, both lines in one file. Beside this file if not absolute."""
    interfaces: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Interfaces to use, the best first. None: all that lead out."""
    dhcp: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Interfaces on which the node is its own DHCP client. On others, whoever manages the host's
    addresses assigns them: NetworkManager, systemd-networkd, router advertisements, you."""
    ims: Annotated[tuple[Server, ...], Field(strict=False)] = ()
    """The node's own IMS, as ["192.0.2.1"], where the DNS does not say."""
    dataplane: Literal["maps", "queue"] = "maps"
    """maps: the kernel translates, and brings up what it does not know. queue: every packet is
    translated in this process; slow, and needs less of the kernel."""
    queue: Annotated[int, Field(ge=0, le=65535)] = QUEUE
    """Number of the netfilter queue."""
    control: str = DEFAULT_CONTROL
    """Unix socket for `mat node status`, beside this file if not absolute."""


@final
class NodeConfig(Table):
    """All of a configuration."""

    node: NodeTable = NodeTable()
    dns: DnsTable = DnsTable()
    log: LogTable = LogTable()
    protocol: dict[str, float] = Field(default_factory=dict[str, float])
    """Protocol parameters by name (docs/protocol.md, section 10), in place of their defaults."""

    @property
    def parameters(self) -> Parameters:
        """The protocol's parameters. Raises `ValueError`."""
        return Parameters.with_overrides(self.protocol)


@final
class Configuration:
    """A configuration and where it came from."""

    __slots__ = ("_path", "config")

    def __init__(self, path: Path | None, overrides: tuple[str, ...] = ()) -> None:
        """Read a file (None: overrides alone) and apply `KEY=VALUE` overrides.

        Raises `ConfigError` with every problem found.
        """
        self._path = path
        document = Document(path, "a configuration", ConfigError)
        document.override(overrides)
        self.config = document.validated(NodeConfig)
        document.fail_on(_findings(self.config))

    def beside(self, name: str) -> Path:
        """A file that the configuration names: relative to the configuration's own place."""
        return (self._path.parent if self._path else Path()) / name

    def own_keys(self) -> tuple[Key, ...]:
        """The keys of the node: at most one of each family. Raises `KeyFileError`."""
        return read_keys(self.beside(self.config.node.key))


def _findings(config: NodeConfig) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong between fields that are valid one by one."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    try:
        _ = config.parameters
    except ValueError as error:
        found.append((("protocol",), str(error)))
    try:
        _ = config.dns.resolver
    except ValueError as error:
        found.append((("dns",), str(error)))
    return found


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a node's key file: at most one of each family, IPv4 first.

    Of two for the same home address, as during a rotation, the later line counts. Raises
    `KeyFileError`.
    """
    keys: dict[bool, Key] = {}
    mend = f"mat key new HOA --out {path.name}, where the IMS is, makes one: copy it here"
    with open_key_file(path, mend) as file:
        for number, entry in numbered_entries(file, path):
            key, now = entry.key(), time.time()
            ipv4 = is_ipv4(key.home_address)
            other = keys.get(ipv4, key)
            if (other.home_address, other.prefix_length) != entry.home:
                homes = f"{format_home((other.home_address, other.prefix_length))} and this one"
                what = f"line {number}: a node has one home address of each family, not {homes}"
                fail(path, what)
            if entry.state(now) != "expired":
                keys[ipv4] = key
    if not keys:
        fail(path, "has no valid key; make one with: mat key new HOA --out node.key")
    return tuple(keys[ipv4] for ipv4 in sorted(keys, reverse=True))
