"""Machines that come and go: of a large population, only those in use are there.

A node's machine takes some 3 KB; what it knows while nothing is under way takes 0.3 KB. So a
machine is put away as soon as nothing is, as `mat.resumption.Knowledge`, packed, and is made again
when something happens to its node: of a crowd that moves within seconds, only those are awake that
wait for an answer. The machine itself says what it needs to go on.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, final

from mat.address import Address
from mat.mapping_table import Mapping
from mat.messages import EXACT, Endpoint
from mat.resumption import Knowledge, KnownPeer, LeftAddress, OwnMapping
from mat_sim.engine._zones import Zones

_OWN: Final = Struct("<16sddQQddBdBd")
"""A mapping of one address, and the round trips to two servers, by their number."""
_PEER: Final = Struct("<16s16sQdddd???ddd16sd")
"""A peer of one address, and the address that it had before."""
_NO_SERVER: Final = 255
_NO_TRIP: Final = (_NO_SERVER, 0.0)
_NOWHERE: Final = bytes(16)
_NO_PACE: Final = (0.0, 0.0, 0.0)


@final
class Packing:
    """Knowledge as bytes, where it is the usual: one address, at most one peer, of one address."""

    __slots__ = ("_endpoints", "_numbers", "_zones")

    def __init__(self, endpoints: Sequence[Endpoint], zones: Zones) -> None:
        self._endpoints = list(endpoints)
        self._numbers = {endpoint: number for number, endpoint in enumerate(endpoints)}
        self._zones = zones

    def pack(self, knowledge: Knowledge) -> bytes | None:
        """The bytes; None for what is not the usual."""
        own, peers, left = knowledge.own, knowledge.peers, knowledge.left
        known = len(own.round_trips)
        if len(own.addresses) != 1 or len(peers) > 1 or len(left) > len(peers) or known > 2:
            return None
        one, trip = self._trip(own.round_trips[0]) if known else _NO_TRIP
        other, second = self._trip(own.round_trips[1]) if known > 1 else _NO_TRIP
        if known and (one == _NO_SERVER or (known > 1 and other == _NO_SERVER)):
            return None
        packed: bytes = _OWN.pack(
            own.addresses[0],
            own.since[0],
            own.until[0],
            own.version,
            own.freshness,
            own.expires,
            own.refresh,
            one,
            trip,
            other,
            second,
        )
        if not peers:
            return packed
        peer = self._pack_peer(peers[0], left)
        return packed + peer if peer is not None else None

    def _trip(self, measured: tuple[Endpoint, float]) -> tuple[int, float]:
        return self._numbers.get(measured[0], _NO_SERVER), measured[1]

    def _pack_peer(self, peer: KnownPeer, left: tuple[LeftAddress, ...]) -> bytes | None:
        mapping = peer.mapping
        home, moved = mapping.home_address, mapping.mobile_addresses
        if len(moved) != 1 or (left and left[0].home_address != home):
            return None
        resolve, introduce, confirm = peer.paced if peer.paced is not None else _NO_PACE
        packed: bytes = _PEER.pack(
            home,
            moved[0],
            mapping.version,
            mapping.registered_at,
            mapping.expires,
            peer.query,
            peer.used_at,
            peer.caller,
            peer.confirmed,
            peer.introduced,
            resolve,
            introduce,
            confirm,
            left[0].mobile_address if left else _NOWHERE,
            left[0].at if left else 0.0,
        )
        return packed

    def unpack(self, home: Address, packed: bytes) -> Knowledge:
        """What was packed, of the node with this home address."""
        address, since, until, version, freshness, expires, refresh, one, trip, other, second = (
            _OWN.unpack_from(packed)
        )
        measured: list[tuple[int, float]] = [(one, trip), (other, second)]
        trips = tuple([(self._endpoints[n], s) for n, s in measured if n != _NO_SERVER])
        own = OwnMapping(
            (Address(address),),
            (since,),
            (until,),
            self._zones.servers(home),
            version,
            freshness,
            expires,
            refresh,
            trips,
        )
        if len(packed) == _OWN.size:
            return Knowledge(own)
        peer, left = self._peer(packed)
        return Knowledge(own, (peer,), left)

    def _peer(self, packed: bytes) -> tuple[KnownPeer, tuple[LeftAddress, ...]]:
        (
            home,
            moved,
            version,
            registered_at,
            expires,
            query,
            used_at,
            caller,
            confirmed,
            introduced,
            resolve,
            introduce,
            confirm,
            before,
            at,
        ) = _PEER.unpack_from(packed, _OWN.size)
        mapping = Mapping(home, EXACT, (Address(moved),), version, registered_at, expires)
        pace = (resolve, introduce, confirm)
        peer = KnownPeer(
            self._zones.servers(home),
            mapping,
            query,
            used_at,
            caller,
            confirmed,
            introduced,
            pace if pace != _NO_PACE else None,
        )
        if before == _NOWHERE:
            return peer, ()
        return peer, (LeftAddress(Address(before), Address(home), at),)
