"""Who is played: nodes with the keys of a key file, a peer for each, and their servers."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from mat.address import (
    UNSPECIFIED,
    Address,
    format_address,
    from_ipv4,
    in_prefix,
    is_ipv4,
    parse_address,
)
from mat.authentication import Key
from mat.messages import EXACT, MAT_PORT, Endpoint
from mat_real.load.forms import Addresses, Numbers, Sequences

MOST_NODES: Final = 1 << 21
"""Each node has two mobile addresses in turn, out of 100.64.0.0/10 where it is of IPv4."""
_MOBILE: Final[dict[bool, bytes]] = {
    True: from_ipv4(ipaddress.ip_address("100.64.0.0").packed),
    False: ipaddress.ip_address("2001:2::").packed,
}
"""Where mobile addresses come from, by `is_ipv4`: shared address space (RFC 6598) and addresses for
benchmarks (RFC 5180). Nothing is sent there."""


class LoadError(Exception):
    """A load test that cannot be run as asked; says why, and what would do."""


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the home addresses it holds the mappings of: those of one prefix.

    The prefix length counts in the 128-bit form; 0 is every address.
    """

    endpoint: Endpoint
    prefix: Address = UNSPECIFIED
    length: int = 0


def target_name(target: Target) -> str:
    """An IMS by its address and port."""
    address, port = format_address(target.endpoint.address), target.endpoint.port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parse_target(text: str) -> Target:
    """The target written as `[PREFIX=]ADDRESS[:PORT]`. Raises `ValueError`."""
    prefix, equals, where = text.rpartition("=")
    endpoint = _parse_endpoint(where)
    if not equals:
        return Target(endpoint)
    try:
        network = ipaddress.ip_network(prefix)
    except ValueError:
        raise ValueError(f"{prefix!r} is no prefix; write 10.0.0.0/8=192.0.2.1") from None
    packed = network.network_address.packed
    if network.version == 6:
        return Target(endpoint, Address(packed), network.prefixlen)
    return Target(endpoint, from_ipv4(packed), 96 + network.prefixlen)


def _parse_endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":") if _has_port(text) else (text, "", str(MAT_PORT))
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is no port; a port is 1 to 65535")
    return Endpoint(parse_address(address.removeprefix("[").removesuffix("]")), int(port))


def _has_port(text: str) -> bool:
    """An IPv6 address has colons itself, and stands in brackets before a port."""
    return "]:" in text or text.count(":") == 1


@final
@dataclass(slots=True)
class Population:
    """Nodes 0 to n - 1, as arrays over their numbers."""

    keys: Sequence[Key]
    homes: Addresses
    key_ids: Sequences
    peers: NDArray[np.intp]
    """Whom each node talks to; nobody to himself, and all of one address family."""
    servers: NDArray[np.intp]
    """Which of the targets holds the node's mapping."""
    freshness: Numbers
    """The last that each node used."""
    _places: NDArray[np.uint32] = field(repr=False)
    """The first of each node's two mobile addresses, as words in network order."""

    def __len__(self) -> int:
        return len(self.keys)

    def mobile_addresses(self, nodes: NDArray[np.intp], ordinals: NDArray[np.integer]) -> Addresses:
        """Where nodes are after so many moves: at two addresses of their own in turn."""
        places = self._places[nodes]
        places[:, 3] += (ordinals & 1).astype(np.uint32)
        return places.astype(">u4").view("V16")[:, 0]

    def secrets(self, nodes: NDArray[np.intp]) -> list[bytes]:
        """The secrets of these nodes."""
        numbers: list[int] = nodes.tolist()
        return [self.keys[node].secret for node in numbers]


def populate(
    keys: Iterable[Key], targets: Sequence[Target], count: int | None, random: np.random.Generator
) -> Population:
    """The nodes of the first `count` keys, or of all; peers by lot.

    Only keys of single home addresses count, the first for each address. Raises `LoadError`.
    """
    if len({(target.prefix, target.length) for target in targets}) < len(targets):
        what = "two servers for the same home addresses; replicas are not played"
        raise LoadError(f"{what}: give one --server, or PREFIX=ADDRESS for each prefix")
    chosen = _chosen(keys, count)
    packed = b"".join(key.home_address for key in chosen)
    return Population(
        chosen,
        np.frombuffer(packed, "V16"),
        np.array([key.key_id for key in chosen], np.uint32),
        _peers(chosen, random),
        np.array([_server(key.home_address, targets) for key in chosen], np.intp),
        np.zeros(len(chosen), np.uint64),
        _places(chosen),
    )


def idle_targets(population: Population, targets: Sequence[Target]) -> list[Target]:
    """The targets that hold no node's mapping, and so are sent nothing."""
    busy: list[int] = np.unique(population.servers).tolist()
    return [target for number, target in enumerate(targets) if number not in busy]


def _chosen(keys: Iterable[Key], count: int | None) -> list[Key]:
    by_home: dict[Address, Key] = {}
    for key in keys:
        if key.prefix_length == EXACT:
            by_home.setdefault(key.home_address, key)
        if len(by_home) == count:
            break
    if not by_home:
        what = "the key file has no key of a single home address"
        raise LoadError(f"{what}; make some: mat key new PREFIX --each")
    if count is not None and len(by_home) < count:
        what = f"the key file has keys of {len(by_home)} single home addresses, for {count} nodes"
        mend = "lower --nodes, or make keys of another prefix too: mat key new PREFIX --each"
        raise LoadError(f"{what}; {mend}")
    if len(by_home) > MOST_NODES:
        raise LoadError(f"{len(by_home)} nodes; at most {MOST_NODES} can be played: give --nodes")
    return list(by_home.values())


def _peers(keys: Sequence[Key], random: np.random.Generator) -> NDArray[np.intp]:
    """Each node's peer is the next one in a circle by lot; one that is alone has itself."""
    peers = np.empty(len(keys), np.intp)
    ipv4 = np.array([is_ipv4(key.home_address) for key in keys])
    for family in (True, False):
        circle = random.permutation(np.flatnonzero(ipv4 == family))
        peers[circle] = np.roll(circle, -1)
    return peers


def _server(home_address: Address, targets: Sequence[Target]) -> int:
    """The number of the target with the longest prefix of the address."""
    fitting = [
        (target.length, number)
        for number, target in enumerate(targets)
        if target.length == 0 or in_prefix(home_address, target.prefix, target.length)
    ]
    if not fitting:
        text = format_address(home_address)
        raise LoadError(f"no --server is given for the home address {text}")
    return max(fitting)[1]


def _places(keys: Sequence[Key]) -> NDArray[np.uint32]:
    base = b"".join(_MOBILE[is_ipv4(key.home_address)] for key in keys)
    places = np.frombuffer(base, ">u4").reshape(-1, 4).astype(np.uint32)
    places[:, 3] += 2 * np.arange(len(keys), dtype=np.uint32)
    return places
