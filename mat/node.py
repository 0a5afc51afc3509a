"""The machine of a MAT node, the same for MN and CN.

Theory of operation. A node keeps its own mapping registered (`mat.registrar`) and, for each peer,
a `Peer` that moves through the table `mat.states.PEER`. What the driver translates by is told in
`SetMapping`; packets that no mapping covers come here, are held, and leave when it is known how.

Who speaks first introduces itself: MA Query (step 1), then HA Notify to the peer's IMS (2 to 4),
so that the peer can find out whom a packet is from (6, 7). A node that moves tells the peer's IMS
the same way and, in step 2', the peer itself: its notice is no more than a reason to ask, but no
packet has to come from the mover for the peer to learn of the move.

An address that this node has not held long may stand in somebody's stale mapping as another's. So
until it has settled, packets to a peer leave from it only after that peer has confirmed the notice
(4'), or with a Mapping Update Option that names the sender.

The paper's sections 4.2 and 4.3; docs/protocol.md, section 8. The shape of the interface is that of
aioquic's connection: inputs take the time, effects come back, one deadline.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

from mat.address import Address, in_prefix, is_ipv4, is_unicast, move_to_prefix, prefix_of
from mat.authentication import Key
from mat.effects import (
    ClearMapping,
    DropPacket,
    Event,
    EventKind,
    Handle,
    Lookup,
    NodeEffect,
    NotFound,
    Reason,
    ReleasePacket,
    Send,
    SetMapping,
    Translation,
)
from mat.exchanges import Exchange, Exchanges, Purpose, Random
from mat.mapping_table import Mapping, MappingTable, Missing, Servers
from mat.messages import (
    EXACT,
    MAT_PORT,
    MAX_MOBILE_ADDRESSES,
    Code,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
    shortest_prefix,
)
from mat.parameters import DEFAULTS, Parameters
from mat.peer import Arrival, Peer, Source
from mat.registrar import Progress, Registrar
from mat.resumption import Knowledge, KnownPeer, LeftAddress
from mat.states import PEER, PeerInput, PeerState, RegistrationState
from mat.timers import TokenBucket

_PACED: Final = {Purpose.RESOLVE: 0, Purpose.INTRODUCE: 1, Purpose.CONFIRM: 2}
_MILLISECOND: Final = 0.001

_Effects = list[NodeEffect]


@final
class MobileNode:
    """One home address (or home prefix) and its traffic with any number of peers.

    Inputs take `now`, seconds on any clock that never runs backwards, and return the effects to
    carry out in order. `deadline` is when `handle_timer` is due, None for never; calling it early,
    late or twice does no harm. A host with homes in two families runs two of these, side by side.
    """

    __slots__ = (
        "_announces",
        "_exchanges",
        "_held",
        "_left",
        "_own",
        "_peers",
        "_sources",
        "_table",
        "_triggered",
    )

    def __init__(
        self,
        key: Key,
        random: Random,
        *,
        parameters: Parameters = DEFAULTS,
        servers: Servers = (),
        wall_clock: float = 0.0,
        announces: bool | None = None,
    ) -> None:
        """A node whose home address, or prefix, is that of `key`.

        `servers` are its own IMS where they are configured; otherwise the DNS is asked.
        `wall_clock` is what to add to `now` for the time of day. `announces` chooses MAT(IPv6)'s
        procedure, with the Mapping Update Option, in place of MAT(IPv4)'s; by default the family
        of the home address does.
        """
        self._exchanges = Exchanges(parameters, random)
        self._own = Registrar(key, self._exchanges, servers, wall_clock)
        self._announces = not is_ipv4(key.home_address) if announces is None else announces
        self._table: MappingTable | None = None
        self._peers: dict[Address, Peer] | None = None
        self._sources: dict[Address, Source] | None = None
        self._triggered: TokenBucket | None = None
        self._left: dict[Address, tuple[Address, float]] | None = None
        self._held = 0

    # ---- what a driver may look at -----------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called, in seconds; None for never."""
        return self._exchanges.deadline

    @property
    def home_address(self) -> Address:
        """The home address, or the home prefix of a mobile router."""
        return self._own.key.home_address

    @property
    def prefix_length(self) -> int:
        """Length of the home prefix; `EXACT` unless this is a mobile router."""
        return self._own.key.prefix_length

    @property
    def servers(self) -> Servers:
        """The replicas of the own IMS; none as long as they are not known."""
        return self._own.servers

    @property
    def announces(self) -> bool:
        """Whether this node follows MAT(IPv6)'s procedure, with the Mapping Update Option."""
        return self._announces

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The mobile addresses the host has, in order of priority."""
        return self._own.addresses

    @property
    def registered(self) -> tuple[Address, ...]:
        """The mobile addresses that a replica of the own IMS has acknowledged."""
        return self._own.registered

    @property
    def registration_state(self) -> RegistrationState:
        """Where the own registration stands."""
        return self._own.state

    def peers(self) -> Iterator[Peer]:
        """The peers, the one used longest ago first; to read, not to change."""
        return iter(self._peers.values() if self._peers else ())

    @property
    def held(self) -> int:
        """Packets held now."""
        return self._held

    # ---- inputs --------------------------------------------------------------------------------

    def addresses_changed(
        self, now: float, addresses: Sequence[Address], until: Sequence[float] = ()
    ) -> Sequence[NodeEffect]:
        """The host's mobile addresses are these now, in order of priority; none means detached.

        At home, the home address is among them. `until` says when the lease of each ends, in
        seconds on the same clock; it may be left out where addresses are for good. Addresses that
        no mapping can hold (of the other family, not unicast, repeated, or beyond the eighth) are
        left out; of a mobile router's, the host bits.
        """
        out: _Effects = []
        kept = self._acceptable(addresses)
        leases = self._leases(kept, addresses, until) if until else ()
        if self._own.change(now, kept, leases, out):
            for peer in self._all_peers():
                peer.confirmed = tuple(a for a in peer.confirmed if a in self._own.addresses)
                self._drop_stranded(peer, out)
                self._settle(now, peer, out)
                if peer.state is PeerState.QUERYING:
                    self._query(now, peer, out)
        return out

    def resume(self, now: float, knowledge: Knowledge) -> Sequence[NodeEffect]:
        """Go on from what was known, as the first input: registered, and peers established.

        Nothing is sent; the effects tell the driver how to translate.
        """
        out: _Effects = []
        self._own.resume(knowledge.own)
        if knowledge.left:
            self._left = {one.mobile_address: (one.home_address, one.at) for one in knowledge.left}
        for known in knowledge.peers:
            home = known.mapping.home_address
            peer = self._add_peer(known.used_at, home, caller=known.caller, out=out)
            peer.state = PeerState.ESTABLISHED
            peer.servers = known.servers
            peer.mapping = known.mapping
            peer.confirmed = knowledge.own.addresses if known.confirmed else ()
            peer.introduced_version = knowledge.own.version if known.introduced else 0
            peer.paced = list(known.paced) if known.paced is not None else None
            assert self._table is not None
            self._table.put(known.mapping)
            self._exchanges.schedule(peer, known.query)
            self._settle(now, peer, out)
        return out

    def knowledge(self, now: float) -> Knowledge | None:
        """What `resume` would need to go on from here; None while something is under way.

        A machine that goes on from it does what this one would have done.
        """
        if len(self._exchanges) or self._held or self._sources:
            return None
        if self._triggered is not None and not self._triggered.is_full(now):
            return None
        own = self._own.knowledge()
        if own is None:
            return None
        peers: list[KnownPeer] = []
        for peer in self._all_peers():
            known = self._knowledge_of(now, peer)
            if known is None:
                return None
            peers.append(known)
        memory = self._exchanges.parameters.reuse_memory
        left = [
            LeftAddress(address, home, at)
            for address, (home, at) in (self._left or {}).items()
            if now - at < memory
        ]
        return Knowledge(own, tuple(peers), tuple(left))

    def retire(self) -> None:
        """This machine is not used again. Without timers its parts do not hold each other."""
        self._exchanges.clear()

    def _knowledge_of(self, now: float, peer: Peer) -> KnownPeer | None:
        """All about a peer; None unless both know each other's present mapping."""
        mapping, query = peer.mapping, peer.due
        if mapping is None or query is None or not self._is_at_rest(now, peer):
            return None
        introduced = peer.introduced_version == self._own.registered_version
        return KnownPeer(
            peer.servers,
            mapping,
            query,
            peer.used_at,
            peer.caller,
            bool(peer.confirmed),
            introduced,
            peer.pace(now),
        )

    def _is_at_rest(self, now: float, peer: Peer) -> bool:
        """Whether nothing is open between this node and a peer."""
        return (
            peer.state is PeerState.ESTABLISHED
            and peer.confirmed in ((), self._own.addresses)
            and peer.unanswered_version != self._own.registered_version
            and peer.doubtful_until <= now
            and not peer.notices
        )

    def receive(self, now: float, message: Message, source: Endpoint) -> Sequence[NodeEffect]:
        """A message arrived from `source`."""
        out: _Effects = []
        if isinstance(message, HaNotify):
            self._noticed(now, message, source, out)
        elif isinstance(message, (ImsUpdateReply, MaAnswer, HaNotifyAck, HaAnswer)):
            exchange = self._exchanges.match(now, message)
            if exchange is None:
                out.append(Event(EventKind.UNEXPECTED, source.address))
            else:
                self._answered(now, exchange, message, source, out)
        else:
            out.append(Event(EventKind.IGNORED, source.address))
        return out

    def packet_out(self, now: float, handle: Handle, destination: Address) -> Sequence[NodeEffect]:
        """A packet to a home address that no mapping told to the driver covers."""
        out: _Effects = []
        if not self._own.addresses and self._peer_of(destination) is None:
            out.append(DropPacket(handle, Reason.NO_ADDRESS))
            return out
        if self._is_own(destination):
            out.append(DropPacket(handle, Reason.UNREACHABLE))
            return out
        peer = self._peer_for(now, destination, out)
        if peer is None:
            out.append(DropPacket(handle, Reason.UNREACHABLE))
            return out
        self._used(now, peer, out)
        if peer.translation is not None:
            out.append(ReleasePacket(handle, peer.translation))
        elif self._make_room(peer.held_out, handle, out):
            peer.held_out.append(handle)
        return out

    def packet_in(
        self,
        now: float,
        handle: Handle,
        source: Address,
        destination: Address,
        announced: Address | None = None,
    ) -> Sequence[NodeEffect]:
        """A packet from `source` to an own address that no mapping told to the driver accepts.

        `announced` is the home address in its Mapping Update Option, if it has one.
        """
        out: _Effects = []
        packet = Arrival(handle, source, destination)
        peer = self._owner(now, source)
        if announced is not None and (peer is None or peer.home_address != announced):
            self._announced(now, packet, announced, out)
        elif peer is None:
            self._unknown_source(now, packet, out)
        else:
            self._used(now, peer, out)
            inward = self._inward(now, peer)
            if inward.accepts_at(destination):
                out.append(ReleasePacket(handle, inward))
            elif now < peer.doubtful_until:
                out.append(DropPacket(handle, Reason.MISDIRECTED))
            else:
                self._hold_in(peer, (packet,), out)
        return out

    def used(self, now: float, home_addresses: Iterable[Address]) -> Sequence[NodeEffect]:
        """Packets of these peers have passed, in either direction, by mappings of the driver's."""
        out: _Effects = []
        for home_address in home_addresses:
            peer = self._peer_of(home_address)
            if peer is not None:
                self._used(now, peer, out)
        return out

    def servers_found(
        self, now: float, home_address: Address, result: Servers | NotFound
    ) -> Sequence[NodeEffect]:
        """The DNS answered a `Lookup`: servers in order of preference, or why there are none."""
        out: _Effects = []
        if result == ():
            result = NotFound.FAILED
        if home_address == self.home_address:
            self._own.servers_found(now, result, out)
        peer = self._peers.get(home_address) if self._peers else None
        if peer is not None:
            self._located(now, peer, result, out)
        return out

    def handle_timer(self, now: float) -> Sequence[NodeEffect]:
        """Do whatever is due by now."""
        out: _Effects = []
        for timed in self._exchanges.due(now):
            if isinstance(timed, Peer):
                self._peer_due(now, timed, out)
            elif isinstance(timed, Exchange):
                self._timed_out(now, timed, out)
            elif self._own.fire(now, out) is Progress.LAPSED:
                for peer in self._all_peers():
                    self._settle(now, peer, out)
        return out

    # ---- answers -------------------------------------------------------------------------------

    def _answered(
        self,
        now: float,
        exchange: Exchange,
        answer: ImsUpdateReply | MaAnswer | HaNotifyAck | HaAnswer,
        source: Endpoint,
        out: _Effects,
    ) -> None:
        subject = exchange.subject
        # An answer that comes twice must not count as that of the replica asked since.
        current = source.address == exchange.destination.address
        if isinstance(answer, ImsUpdateReply):
            self._replied(now, exchange, answer, out)
        elif isinstance(answer, HaAnswer) and isinstance(subject, Source):
            if current or answer.code == Code.SUCCEEDED:
                self._identified(now, subject, answer, out)
        elif isinstance(answer, MaAnswer) and isinstance(subject, Peer):
            if current or answer.code == Code.SUCCEEDED:
                self._resolved(now, subject, exchange, answer, out)
        elif isinstance(answer, HaNotifyAck) and isinstance(subject, Peer):
            if exchange.purpose is Purpose.CONFIRM:
                self._confirmed(now, subject, exchange, answer, out)
            else:
                self._introduced(now, subject, exchange, answer, out)

    def _replied(
        self, now: float, exchange: Exchange, reply: ImsUpdateReply, out: _Effects
    ) -> None:
        progress = self._own.replied(now, exchange, reply, out)
        if progress is Progress.NONE:
            return
        for peer in self._all_peers():
            moved = progress is Progress.MOVED
            if peer.state is PeerState.NOTIFYING and (moved or peer.introduction is None):
                self._introduce(now, peer, out)
            elif peer.state is PeerState.ESTABLISHED and moved:
                self._tell(now, peer, out)
            elif peer.state is PeerState.ESTABLISHED and self._in_use(now, peer):
                self._introduce(now, peer, out)
            self._settle(now, peer, out)

    def _tell(self, now: float, peer: Peer, out: _Effects) -> None:
        """The own mapping is new: steps 2 and 2' of the handover.

        The Ack of step 2 says where the peer is now, should it have moved at the same time; where
        the Mapping Update Option stands in for step 2, a query finds that out.
        """
        if self._announces:
            self._query(now, peer, out)
        else:
            self._introduce(now, peer, out)
        self._confirm(now, peer, out)

    def _resolved(
        self, now: float, peer: Peer, exchange: Exchange, answer: MaAnswer, out: _Effects
    ) -> None:
        known = peer.mapping.version if peer.mapping else 0
        if not _covers(answer, peer.home_address):
            out.append(Event(EventKind.UNEXPECTED, peer.home_address))
            return
        mapping = self._mapping(now, peer, answer)
        if answer.code == Code.SUCCEEDED and mapping.mobile_addresses:
            behind = answer.version < max(known, peer.wanted_version)
            if behind and self._ask_next(now, exchange, out):
                return
            self._end_query(peer)
            peer.wanted_version = 0
            if answer.version < known:
                out.append(Event(EventKind.STALE, peer.home_address))
                self._drop_in(peer, Reason.UNREACHABLE, out)
            else:
                self._learn(now, peer, mapping, out)
        elif answer.code in (Code.SUCCEEDED, Code.NO_MAPPING):
            if not self._ask_next(now, exchange, out):
                self._end_query(peer)
                self._fail(now, peer, PeerInput.NO_MAPPING, out)
        else:
            out.append(Event(EventKind.REFUSED, peer.home_address))
            self._ask_next(now, exchange, out)

    def _ask_next(self, now: float, exchange: Exchange, out: _Effects) -> bool:
        """Turn to a replica that was not asked yet. False if there is none."""
        if exchange.attempts >= len(exchange.servers):
            return False
        exchange.turn()
        self._transmit(now, exchange, out)
        return True

    def _introduced(
        self, now: float, peer: Peer, exchange: Exchange, answer: HaNotifyAck, out: _Effects
    ) -> None:
        """Step 4. The peer's IMS knows this node, and says where the peer is."""
        if answer.code != Code.SUCCEEDED:
            out.append(Event(EventKind.REFUSED, peer.home_address))
            return
        self._exchanges.finish(exchange)
        peer.introduction = None
        peer.introduced_version = _notify_of(exchange).version
        if peer.state is PeerState.NOTIFYING:
            self._step(peer, PeerInput.NOTIFIED, out)
        if peer.unanswered_version == peer.introduced_version:
            self._go_on_unconfirmed(now, peer, exchange, out)
        known = peer.mapping.version if peer.mapping else 0
        mapping = self._mapping(now, peer, answer)
        news = mapping.mobile_addresses and answer.version >= known
        if news and _covers(answer, peer.home_address):
            self._learn(now, peer, mapping, out)
        else:
            self._settle(now, peer, out)

    def _confirmed(
        self, now: float, peer: Peer, exchange: Exchange, answer: HaNotifyAck, out: _Effects
    ) -> None:
        """Step 4'. The peer has the own mapping; does it say that it knew of nobody else there?"""
        if answer.code != Code.SUCCEEDED:
            out.append(Event(EventKind.REFUSED, peer.home_address))
            return
        self._exchanges.finish(exchange)
        peer.confirmation = None
        if answer.version < _notify_of(exchange).version:
            self._doubt(now, peer, out)
        self._take_as_confirmed(now, peer, exchange, EventKind.PEER_CONFIRMED, out)

    def _go_on_unconfirmed(self, now: float, peer: Peer, exchange: Exchange, out: _Effects) -> None:
        """The peer answers no notice, but its IMS vouches for this node, as in the paper.

        Whom the peer has meant till now, nobody has said.
        """
        self._doubt(now, peer, out)
        self._take_as_confirmed(now, peer, exchange, EventKind.PEER_UNCONFIRMED, out)

    def _doubt(self, now: float, peer: Peer, out: _Effects) -> None:
        """What a peer has sent here till now may have been meant for who had the address before.

        So that goes, and what comes within a moment: it may have been on its way already.
        """
        self._drop_in(peer, Reason.MISDIRECTED, out)
        peer.doubtful_until = now + self._exchanges.parameters.reuse_grace
        self._exchanges.schedule(peer, peer.doubtful_until)

    def _take_as_confirmed(
        self, now: float, peer: Peer, exchange: Exchange, kind: EventKind, out: _Effects
    ) -> None:
        if _notify_of(exchange).version == self._own.registered_version:
            held = self._own.addresses
            peer.confirmed = tuple(a for a in self._own.registered if a in held)
            out.append(Event(kind, peer.home_address))
        self._settle(now, peer, out)
        self._release_in(now, peer, out)

    def _identified(self, now: float, source: Source, answer: HaAnswer, out: _Effects) -> None:
        """Step 6 is over: the own IMS says whose address it is, or that nobody registered it."""
        if answer.code == Code.SUCCEEDED and answer.home_addresses:
            self._end_source(source)
            self._belongs_to(now, source, answer.home_addresses[0], answer.version, out)
        elif answer.code != Code.NO_MAPPING:
            out.append(Event(EventKind.REFUSED, source.address))
        elif source.query is None or not self._ask_next(now, source.query, out):
            self._end_source(source)
            self._pass_as_ordinary(now, source, out)

    def _belongs_to(
        self, now: float, source: Source, home_address: Address, version: int, out: _Effects
    ) -> None:
        """Step 7 begins: the authoritative word on a source is that of its own IMS."""
        packets = self._take_held(source)
        peer = self._caller(now, home_address, out) if self._can_be_peer(home_address) else None
        if peer is None:
            out.extend(DropPacket(packet.handle, Reason.UNREACHABLE) for packet in packets)
            return
        peer.wanted_version = max(peer.wanted_version, version)
        self._hold_in(peer, packets, out)
        self._query(now, peer, out)

    def _pass_as_ordinary(self, now: float, source: Source, out: _Effects) -> None:
        """Nobody registered this source: for a while, an ordinary host."""
        packets = self._take_held(source)
        peer = self._peers.get(source.address) if self._peers else None
        if peer is None:
            peer = self._add_peer(now, source.address, caller=False, out=out)
            for happened in (PeerInput.NEEDED, PeerInput.NOT_MAT):
                self._step(peer, happened, out)
            life = self._exchanges.parameters.unknown_source_time
            self._learn(now, peer, _ordinary(source.address, now, life), out)
        self._hold_in(peer, packets, out)
        self._release_in(now, peer, out)

    # ---- notices -------------------------------------------------------------------------------

    def _noticed(self, now: float, notify: HaNotify, source: Endpoint, out: _Effects) -> None:
        """Step 2' of a peer's handover: never believed, only a reason to ask its IMS."""
        strange = not self._can_be_peer(notify.home_address, notify.prefix_length)
        if strange or not self._is_own(notify.peer):
            out.append(Event(EventKind.IGNORED, source.address))
            return
        about = self._noticing(now, notify, out)
        behind = [peer for peer in about if not self._knows(now, peer, notify, source)]
        for peer in behind:
            peer.wanted_version = max(peer.wanted_version, notify.version)
            if len(peer.notices) < self._exchanges.parameters.acknowledge_waiting:
                peer.notices.append((notify, source))
            self._query(now, peer, out)
        if not behind and (
            self._all_know(now, notify, source) or self._is_greeted(now, notify, source, out)
        ):
            self._acknowledge(now, notify, source, out)

    def _noticing(self, now: float, notify: HaNotify, out: _Effects) -> list[Peer]:
        """The peers that a notice is about: one, or those behind a mobile router.

        A stranger's notice, and each peer of a router's, takes from what strangers may cause.
        """
        if notify.prefix_length == EXACT:
            peer = self._peer_of(notify.home_address)
            if peer is None and self._may_trigger(now, out):
                peer = self._caller(now, notify.home_address, out)
            elif peer is not None and peer.state is PeerState.NON_MAT:
                self._reconsider(now, peer, out)
            return [peer] if peer is not None else []
        found: list[Peer] = []
        for peer in self._noticing_known(notify):
            if not self._may_trigger(now, out):
                break
            found.append(peer)
        return found

    def _noticing_known(self, notify: HaNotify) -> list[Peer]:
        prefix, length = notify.home_address, notify.prefix_length
        return [peer for peer in self._all_peers() if in_prefix(peer.home_address, prefix, length)]

    def _all_know(self, now: float, notify: HaNotify, source: Endpoint) -> bool:
        """Whether a notice is followed up for every peer that it is about."""
        known = self._noticing_known(notify)
        return bool(known) and all(self._knows(now, peer, notify, source) for peer in known)

    def _is_greeted(self, now: float, notify: HaNotify, source: Endpoint, out: _Effects) -> bool:
        """Whether a mobile router whose peers are all strangers may send from its MoPre.

        Whose packets come from there is asked for when they come, if they are nobody's yet. This
        takes from what strangers may cause.
        """
        return (
            notify.prefix_length != EXACT
            and not self._noticing_known(notify)
            and self._may_trigger(now, out)
            and not self._is_claimed(now, notify, source)
        )

    def _is_claimed(self, now: float, notify: HaNotify, source: Endpoint) -> bool:
        """Whether some other mapping has an address in the MoPre that a notice came from."""
        table, length = self._table, notify.prefix_length
        return table is not None and any(
            mapping.expires > now and in_prefix(address, source.address, length)
            for mapping in table.mappings()
            for address in table.usable(mapping)
        )

    def _reconsider(self, now: float, peer: Peer, out: _Effects) -> bool:
        """What was taken for an ordinary host says that it is not: the DNS is asked again.

        Until it answers, the host stays what it was: anybody can send a notice.
        """
        if not self._may_trigger(now, out):
            return False
        out.append(Lookup(peer.home_address))
        return True

    def _knows(self, now: float, peer: Peer, notify: HaNotify, source: Endpoint) -> bool:
        """Whether a peer's mapping is as new as a notice says, and has its sender's address."""
        mapping = peer.mapping
        if mapping is None or mapping.non_mat or mapping.version < notify.version:
            return False
        return notify.prefix_length != EXACT or self._owner(now, source.address) is peer

    def _acknowledge(self, now: float, notify: HaNotify, source: Endpoint, out: _Effects) -> None:
        """Step 4'. With the version, where nothing sent to that address was for somebody else."""
        version = 0 if self._was_anothers(now, notify, source.address) else notify.version
        ack = HaNotifyAck(
            notify.sequence, Code.SUCCEEDED, notify.peer, version=version, nonce=notify.nonce
        )
        out.append(Send(ack, source))

    def _was_anothers(self, now: float, notify: HaNotify, address: Address) -> bool:
        """Whether a moment ago the notifying node's address, or MoPre, was another node's."""
        memory = self._exchanges.parameters.reuse_memory
        home, length = notify.home_address, notify.prefix_length
        known = self._left or {}
        if length == EXACT:
            within = [known[address]] if address in known else []
        else:
            moved = prefix_of(address, length)
            within = [left for a, left in known.items() if in_prefix(a, moved, length)]
        return any(not in_prefix(who, home, length) and now - at < memory for who, at in within)

    def _remember_left(self, now: float, mapping: Mapping, addresses: Iterable[Address]) -> None:
        """Addresses are no longer this mapping's; packets for it may still be on their way."""
        for address in addresses:
            if self._left is None:
                self._left = {}
            self._left.pop(address, None)
            self._left[address] = (mapping.home_address, now)
            if len(self._left) > self._exchanges.parameters.table_size:
                del self._left[next(iter(self._left))]

    # ---- packets that wait ---------------------------------------------------------------------

    def _announced(self, now: float, packet: Arrival, announced: Address, out: _Effects) -> None:
        """Step 6': a Mapping Update Option names the sender; its IMS is asked (7)."""
        peer = self._peer_of(announced)
        if not self._can_be_peer(announced):
            out.append(DropPacket(packet.handle, Reason.NOT_ITS_ADDRESS))
            return
        if peer is None and self._may_trigger(now, out):
            peer = self._caller(now, announced, out)
        elif peer is not None and peer.state is PeerState.NON_MAT:
            peer = peer if self._reconsider(now, peer, out) else None
        if peer is None:
            out.append(DropPacket(packet.handle, Reason.UNREACHABLE))
            return
        peer.used_at = now
        self._hold_in(peer, (packet,), out)
        self._query(now, peer, out)

    def _unknown_source(self, now: float, packet: Arrival, out: _Effects) -> None:
        """Step 6: hold the packet and ask the own IMS whose address this is."""
        source = self._sources.get(packet.source) if self._sources else None
        if source is None:
            source = self._ask_about(now, packet.source, out)
        if source is None:
            out.append(DropPacket(packet.handle, Reason.UNREACHABLE))
        elif self._make_room(source.held, packet, out):
            source.held.append(packet)

    def _ask_about(self, now: float, address: Address, out: _Effects) -> Source | None:
        if self._is_blocked(now, address) or not self._own.servers:
            return None
        if not self._may_trigger(now, out):
            return None
        source = Source(address)
        if self._sources is None:
            self._sources = {}
        self._sources[address] = source
        sequence, nonce = self._exchanges.identify()
        request = HaQuery(sequence, address, nonce=nonce)
        limit = self._exchanges.parameters.query_attempts
        exchange = Exchange(Purpose.IDENTIFY, source, request, self._own.servers, limit)
        source.query = exchange
        self._exchanges.add(exchange)
        self._transmit(now, exchange, out)
        return source

    def _end_source(self, source: Source) -> None:
        """The question about a source is over."""
        if self._sources is not None:
            self._sources.pop(source.address, None)
            if not self._sources:
                self._sources = None
        if source.query is not None:
            self._exchanges.finish(source.query)

    def _take_held(self, source: Source) -> list[Arrival]:
        """The packets of a source, no longer counted as held."""
        packets, source.held = source.held, []
        self._held -= len(packets)
        return packets

    def _make_room(
        self, queue: list[Handle] | list[Arrival], newcomer: Handle | Arrival, out: _Effects
    ) -> bool:
        """Room for one more in a queue, counted as taken: the oldest of a full queue goes.

        False, and the newcomer is dropped, where the node holds all that it may.
        """
        parameters = self._exchanges.parameters
        if len(queue) >= parameters.hold_per_peer:
            out.append(DropPacket(_handle_of(queue.pop(0)), Reason.OVERFLOW))
            return True
        if self._held >= parameters.hold_total:
            out.append(DropPacket(_handle_of(newcomer), Reason.OVERFLOW))
            return False
        self._held += 1
        return True

    def _hold_in(self, peer: Peer, packets: Iterable[Arrival], out: _Effects) -> None:
        for packet in packets:
            if self._make_room(peer.held_in, packet, out):
                peer.held_in.append(packet)

    def _may_trigger(self, now: float, out: _Effects) -> bool:
        """Whether a stranger may cause one more look-up."""
        parameters = self._exchanges.parameters
        if self._triggered is None:
            self._triggered = TokenBucket(parameters.triggered_rate, parameters.triggered_burst)
        if self._triggered.take(now):
            return True
        out.append(Event(EventKind.RATE_LIMITED))
        return False

    def _drop_in(self, peer: Peer, reason: Reason, out: _Effects) -> None:
        held, peer.held_in = peer.held_in, []
        self._held -= len(held)
        out.extend(DropPacket(packet.handle, reason) for packet in held)

    def _drop_stranded(self, peer: Peer, out: _Effects) -> None:
        """Packets that wait at an address which this node has no more."""
        length, own = self._own.key.prefix_length, self._own.addresses
        held, peer.held_in = peer.held_in, []
        for packet in held:
            if prefix_of(packet.destination, length) in own:
                peer.held_in.append(packet)
            else:
                self._held -= 1
                out.append(DropPacket(packet.handle, Reason.NO_ADDRESS))

    def _drop_all(self, peer: Peer, out: _Effects) -> None:
        self._drop_in(peer, Reason.UNREACHABLE, out)
        held, peer.held_out = peer.held_out, []
        self._held -= len(held)
        out.extend(DropPacket(handle, Reason.UNREACHABLE) for handle in held)

    def _release_in(self, now: float, peer: Peer, out: _Effects) -> None:
        """Packets that came in before it was known whose they are, or whether for this node."""
        if not peer.held_in or peer.mapping is None:
            return
        held, peer.held_in = peer.held_in, []
        self._held -= len(held)
        inward = self._inward(now, peer)
        for packet in held:
            ordinary = peer.state is PeerState.NON_MAT and packet.source == peer.home_address
            if self._owner(now, packet.source) is not peer and not ordinary:
                out.append(DropPacket(packet.handle, Reason.NOT_ITS_ADDRESS))
            elif inward.accepts_at(packet.destination):
                out.append(ReleasePacket(packet.handle, inward))
            else:
                self._hold_in(peer, (packet,), out)

    # ---- peers ---------------------------------------------------------------------------------

    def _all_peers(self) -> list[Peer]:
        return list(self._peers.values()) if self._peers else []

    def _peer_of(self, home_address: Address) -> Peer | None:
        return self._peers.get(home_address) if self._peers else None

    def _owner(self, now: float, mobile_address: Address) -> Peer | None:
        """The peer with the newest claim to a mobile address."""
        mapping = self._table.owner(now, mobile_address) if self._table else None
        return self._peer_of(mapping.home_address) if mapping is not None else None

    def _is_own(self, home_address: Address) -> bool:
        return in_prefix(home_address, self.home_address, self._own.key.prefix_length)

    def _can_be_peer(self, home_address: Address, prefix_length: int = EXACT) -> bool:
        """Whether somebody else can have this home address, or prefix, in this node's family."""
        if is_ipv4(home_address) != is_ipv4(self.home_address) or self._is_own(home_address):
            return False
        if prefix_length != EXACT:
            return prefix_length >= shortest_prefix(home_address)
        return is_unicast(home_address)

    def _acceptable(self, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """The addresses, or MoPre, that a mapping of this node can hold."""
        family, length = is_ipv4(self.home_address), self._own.key.prefix_length
        fitting = [prefix_of(a, length) for a in addresses if is_ipv4(a) == family]
        if length == EXACT:
            fitting = [address for address in fitting if is_unicast(address)]
        return tuple(dict.fromkeys(fitting))[:MAX_MOBILE_ADDRESSES]

    def _leases(
        self, kept: Sequence[Address], addresses: Sequence[Address], until: Sequence[float]
    ) -> tuple[float, ...]:
        """When each address that was kept is lost: of several in one MoPre, the first end."""
        length = self._own.key.prefix_length
        ends: dict[Address, float] = {}
        for address, end in zip(addresses, until, strict=True):
            moved = prefix_of(address, length)
            ends[moved] = min(end, ends.get(moved, end))
        return tuple([ends[address] for address in kept])

    def _caller(self, now: float, home_address: Address, out: _Effects) -> Peer | None:
        """The peer that speaks first: met now, if it was unknown."""
        return self._peer_for(now, home_address, out, caller=False)

    def _is_blocked(self, now: float, address: Address) -> bool:
        table = self._table
        return table is not None and table.find(now, address) is Missing.RATE_LIMITED

    def _peer_for(
        self, now: float, home_address: Address, out: _Effects, *, caller: bool = True
    ) -> Peer | None:
        """The peer, met now if it was unknown; None while nobody may ask for it."""
        peer = self._peer_of(home_address)
        if peer is not None:
            return peer
        if self._is_blocked(now, home_address):
            out.append(Event(EventKind.RATE_LIMITED, home_address))
            return None
        peer = self._add_peer(now, home_address, caller=caller, out=out)
        self._step(peer, PeerInput.NEEDED, out)
        out.append(Lookup(home_address))
        return peer

    def _add_peer(self, now: float, home_address: Address, *, caller: bool, out: _Effects) -> Peer:
        if self._peers is None or self._table is None:
            self._peers = {}
            self._table = MappingTable(self._exchanges.parameters.table_size)
        if len(self._peers) >= self._table.limit:
            self._forget(now, next(iter(self._peers.values())), PeerInput.ENDED, out)
        peer = Peer(home_address, now, caller=caller)
        self._peers[home_address] = peer
        return peer

    def _step(self, peer: Peer, happened: PeerInput, out: _Effects) -> None:
        peer.state = PEER[peer.state, happened]
        if peer.state is PeerState.ESTABLISHED:
            out.append(Event(EventKind.PEER_ESTABLISHED, peer.home_address))

    def _in_use(self, now: float, peer: Peer) -> bool:
        return peer.in_use(now, self._exchanges.parameters)

    def _used(self, now: float, peer: Peer, out: _Effects) -> None:
        """Traffic with a peer. After a long silence it may have forgotten this node."""
        was_in_use = self._in_use(now, peer)
        peer.used_at = now
        assert self._peers is not None
        assert self._table is not None
        self._peers[peer.home_address] = self._peers.pop(peer.home_address)
        self._table.find(now, peer.home_address)
        if not was_in_use and peer.state is PeerState.ESTABLISHED:
            self._introduce(now, peer, out)
            self._schedule(now, peer)

    def _located(self, now: float, peer: Peer, result: Servers | NotFound, out: _Effects) -> None:
        """Step 0 is over."""
        if not isinstance(result, NotFound):
            if peer.state is PeerState.NON_MAT:
                peer = self._met_again(now, peer, out)
            peer.servers = result
            if peer.state is PeerState.LOCATING:
                self._step(peer, PeerInput.SERVERS_FOUND, out)
                self._query(now, peer, out)
        elif peer.state is not PeerState.LOCATING:
            peer.notices, peer.wanted_version = [], 0
            if peer.state is PeerState.NON_MAT:
                self._release_in(now, peer, out)
        elif result is NotFound.NOT_MAT:
            self._step(peer, PeerInput.NOT_MAT, out)
            life = self._exchanges.parameters.non_mat_time
            self._learn(now, peer, _ordinary(peer.home_address, now, life), out)
        else:
            self._fail(now, peer, PeerInput.LOOKUP_FAILED, out)

    def _met_again(self, now: float, former: Peer, out: _Effects) -> Peer:
        """The DNS has an IMS for what was taken for an ordinary host: it begins anew."""
        notices, wanted = former.notices, former.wanted_version
        packets, former.held_in = former.held_in, []
        self._held -= len(packets)
        self._forget(now, former, PeerInput.ENDED, out)
        peer = self._add_peer(now, former.home_address, caller=False, out=out)
        self._step(peer, PeerInput.NEEDED, out)
        peer.notices, peer.wanted_version = notices, wanted
        self._hold_in(peer, packets, out)
        return peer

    def _query(self, now: float, peer: Peer, out: _Effects) -> None:
        """Steps 1 and 7: MA Query to the peer's IMS, unless under way or not yet possible."""
        if peer.query is None and peer.servers and self._own.addresses:
            sequence, nonce = self._exchanges.identify()
            request = MaQuery(sequence, peer.home_address, peer.wanted_version, nonce=nonce)
            limit = self._exchanges.parameters.query_attempts
            peer.query = Exchange(Purpose.RESOLVE, peer, request, peer.servers, limit)
            self._begin(now, peer, peer.query, out)

    def _end_query(self, peer: Peer) -> None:
        if peer.query is not None:
            self._exchanges.finish(peer.query)
            peer.query = None

    def _notice(self, peer: Peer) -> HaNotify:
        sequence, nonce = self._exchanges.identify()
        return HaNotify(
            sequence,
            self.home_address,
            peer.home_address,
            self._own.registered_version,
            self._own.key.prefix_length,
            nonce=nonce,
        )

    def _introduce(self, now: float, peer: Peer, out: _Effects) -> None:
        """Step 2: HA Notify to the peer's IMS, in place of an older one under way."""
        if not self._own.registered or not peer.servers:
            return
        if peer.introduction is not None:
            self._exchanges.finish(peer.introduction)
        limit = self._exchanges.parameters.notify_attempts
        peer.introduction = Exchange(
            Purpose.INTRODUCE, peer, self._notice(peer), peer.servers, limit
        )
        self._begin(now, peer, peer.introduction, out)

    def _confirm(self, now: float, peer: Peer, out: _Effects) -> None:
        """Step 2': HA Notify to the peer itself, from the address that it is to learn."""
        if peer.confirmation is not None:
            self._exchanges.finish(peer.confirmation)
            peer.confirmation = None
        local, usable = self._own.foremost(), self._usable(peer)
        if local is None or not usable:
            return
        limit = self._exchanges.parameters.notify_attempts
        there = (Endpoint(usable[0], MAT_PORT),)
        peer.confirmation = Exchange(Purpose.CONFIRM, peer, self._notice(peer), there, limit)
        peer.confirmation.local = local
        self._begin(now, peer, peer.confirmation, out)

    def _begin(self, now: float, peer: Peer, exchange: Exchange, out: _Effects) -> None:
        """Send a request about a peer, later if there were many of its kind."""
        self._exchanges.add(exchange)
        rate = self._exchanges.parameters.peer_message_rate
        at = peer.may_send(now, _PACED[exchange.purpose], rate)
        if at <= now:
            self._transmit_first(now, peer, exchange, out)
        else:
            out.append(Event(EventKind.RATE_LIMITED, peer.home_address))
            self._exchanges.schedule(exchange, at)

    def _transmit_first(self, now: float, peer: Peer, exchange: Exchange, out: _Effects) -> None:
        rate = self._exchanges.parameters.peer_message_rate
        peer.count_sent(now, _PACED[exchange.purpose], rate)
        self._transmit(now, exchange, out)

    def _transmit(self, now: float, exchange: Exchange, out: _Effects) -> None:
        self._exchanges.transmitted(now, exchange)
        out.append(Send(exchange.request, exchange.destination, exchange.local))

    def _usable(self, peer: Peer) -> tuple[Address, ...]:
        if peer.mapping is None or self._table is None:
            return ()
        if peer.mapping.non_mat:
            return peer.mapping.mobile_addresses
        return self._table.usable(peer.mapping)

    # ---- what is learnt ------------------------------------------------------------------------

    def _learn(self, now: float, peer: Peer, mapping: Mapping, out: _Effects) -> None:
        """The peer's IMS has said where it is: the authoritative word."""
        assert self._table is not None
        before = peer.mapping
        if before is not None and self._only_refreshed(before, mapping):
            before.registered_at, before.expires = mapping.registered_at, mapping.expires
            mapping = before
        peer.mapping = mapping
        if before is not mapping:
            self._replace(now, peer, before, mapping, out)
        if peer.state is PeerState.QUERYING:
            self._enter_table(now, peer, out)
        self._schedule(now, peer)
        self._answer_notices(now, peer, out)
        self._settle(now, peer, out)
        self._release_in(now, peer, out)

    def _only_refreshed(self, before: Mapping, mapping: Mapping) -> bool:
        """Whether nothing is new but the times, and nobody has claimed an address since."""
        return (
            before.version == mapping.version
            and before.mobile_addresses == mapping.mobile_addresses
            and self._table is not None
            and self._table.usable(before) is before.mobile_addresses
        )

    def _replace(
        self, now: float, peer: Peer, before: Mapping | None, mapping: Mapping, out: _Effects
    ) -> None:
        """Enter a new mapping in place of the old one, and see to what that touches."""
        assert self._table is not None
        if before is not None:
            held = self._table.usable(before)
            left = [address for address in held if address not in mapping.mobile_addresses]
            self._remember_left(now, before, left)
        for rival in self._table.put(mapping):
            self._lost_address(now, rival, out)
        self._adopt_sources(now, peer, mapping, out)
        if before is not None and before.mobile_addresses != mapping.mobile_addresses:
            out.append(Event(EventKind.PEER_MOVED, peer.home_address))
        self._redirect(now, peer, out)

    def _answer_notices(self, now: float, peer: Peer, out: _Effects) -> None:
        """Step 4', before any packet goes to the new address."""
        if not peer.notices:
            return
        notices, peer.notices = peer.notices, []
        for notify, source in notices:
            if self._all_know(now, notify, source):
                self._acknowledge(now, notify, source, out)

    def _mapping(self, now: float, peer: Peer, answer: MaAnswer | HaNotifyAck) -> Mapping:
        """What an answer says of a peer. Of a prefix, the one address that was asked for.

        Whether the answering IMS is that of the prefix's other addresses, only the DNS could tell.
        """
        longest = self._exchanges.parameters.maximum_lifetime
        family, home, length = is_ipv4(peer.home_address), peer.home_address, answer.prefix_length
        moved = [move_to_prefix(home, address, length) for address in answer.mobile_addresses]
        return Mapping(
            home,
            EXACT,
            tuple(
                address
                for address in dict.fromkeys(moved)
                if is_ipv4(address) == family
                and is_unicast(address)
                and address not in self._own.addresses
            ),
            answer.version,
            now - answer.age * _MILLISECOND,
            now + min(answer.lifetime, longest),
        )

    def _enter_table(self, now: float, peer: Peer, out: _Effects) -> None:
        if peer.caller and not self._announces:
            self._step(peer, PeerInput.ANSWERED_TO_CALLER, out)
            self._introduce(now, peer, out)
            return
        self._step(peer, PeerInput.ANSWERED_TO_CALLEE, out)
        if not peer.caller and not peer.held_in and not self._announces:
            self._introduce(now, peer, out)

    def _adopt_sources(self, now: float, peer: Peer, mapping: Mapping, out: _Effects) -> None:
        """Sources asked about that this mapping explains."""
        for address in mapping.mobile_addresses:
            source = self._sources.get(address) if self._sources else None
            if source is not None and self._owner(now, address) is peer:
                self._end_source(source)
                self._hold_in(peer, self._take_held(source), out)

    def _lost_address(self, now: float, rival: Mapping, out: _Effects) -> None:
        """Another mapping lost an address to a newer claim, or its place in the table."""
        assert self._table is not None
        peer = self._peers.get(rival.home_address) if self._peers else None
        if peer is None or peer.mapping is not rival:
            return
        if self._table.find(now, rival.home_address) is not rival or rival.non_mat:
            self._forget(now, peer, PeerInput.ENDED, out)
            return
        out.append(Event(EventKind.ADDRESS_REUSED, rival.home_address))
        still = self._table.usable(rival)
        self._remember_left(now, rival, [a for a in rival.mobile_addresses if a not in still])
        self._settle(now, peer, out)
        self._query(now, peer, out)

    def _redirect(self, now: float, peer: Peer, out: _Effects) -> None:
        """A notice under way to an address that the peer has left goes to the new one."""
        under_way, usable = peer.confirmation, self._usable(peer)
        if under_way is not None and usable and under_way.destination.address not in usable:
            self._confirm(now, peer, out)

    def _settle(self, now: float, peer: Peer, out: _Effects) -> None:
        """Work out the translation; tell the driver if it is new; let held packets go."""
        translation = self._translation(now, peer)
        if translation is None:
            if peer.translation is not None:
                peer.translation = None
                out.append(ClearMapping(peer.home_address))
        elif translation is not peer.translation:
            peer.translation = translation
            out.append(SetMapping(translation))
        self._seek_confirmation(now, peer, out)
        if translation is not None and peer.held_out:
            held, peer.held_out = peer.held_out, []
            self._held -= len(held)
            out.extend(ReleasePacket(handle, translation) for handle in held)

    def _translation(self, now: float, peer: Peer) -> Translation | None:
        if peer.state not in (PeerState.ESTABLISHED, PeerState.NON_MAT):
            return None
        usable, local = self._usable(peer), self._local_for(now, peer)
        if not usable or local is None:
            return None
        accepting = self._accepting(now, peer)
        announce = self._announces and self._wants_announcing(now, peer, local)
        announced = self.home_address if announce else None
        known = peer.translation
        if (
            known is not None
            and known.accepted == usable
            and known.local == local
            and known.local_accepted == accepting
            and known.announce == announced
        ):
            return known
        key = self._own.key
        return Translation(
            peer.home_address,
            usable[0],
            usable,
            key.home_address,
            key.prefix_length,
            local,
            accepting,
            announced,
        )

    def _inward(self, now: float, peer: Peer) -> Translation:
        """How a packet from this peer is delivered, whether or not any may go out yet."""
        usable = self._usable(peer)
        return Translation(
            peer.home_address,
            peer.home_address,
            usable,
            self.home_address,
            self._own.key.prefix_length,
            self.home_address,
            self._accepting(now, peer),
        )

    def _accepting(self, now: float, peer: Peer) -> tuple[Address, ...]:
        """Own addresses at which packets from a peer are taken as meant for this node."""
        own = self._own.addresses
        if peer.state is PeerState.NON_MAT:
            return own
        confirmed = peer.confirmed if now >= peer.doubtful_until else ()
        if confirmed == own:
            return own
        return tuple(a for a in own if a in confirmed or self._own.settled(now, a))

    def _local_for(self, now: float, peer: Peer) -> Address | None:
        """The own address to use towards a peer: the first that it may be used from."""
        own = self._own
        if peer.state is PeerState.NON_MAT:
            return own.addresses[0] if own.addresses else None
        for address in own.addresses:
            if address in own.registered and (
                self._announces or address in peer.confirmed or own.settled(now, address)
            ):
                return address
        return None

    def _wants_announcing(self, now: float, peer: Peer, local: Address) -> bool:
        if peer.state is PeerState.NON_MAT or local in peer.confirmed:
            return False
        return peer.caller or not self._own.settled(now, local)

    def _seek_confirmation(self, now: float, peer: Peer, out: _Effects) -> None:
        """Ask the peer to confirm the own mapping where packets wait for that."""
        own = self._own
        if peer.confirmation is not None or not own.registered or not peer.servers:
            return
        if peer.state not in (PeerState.NOTIFYING, PeerState.ESTABLISHED):
            return
        wanted = own.foremost()
        if wanted is None or wanted in peer.confirmed:
            return
        if not own.settled(now, wanted) or (self._announces and peer.caller):
            self._confirm(now, peer, out)

    # ---- endings -------------------------------------------------------------------------------

    def _schedule(self, now: float, peer: Peer) -> None:
        """The peer's timer: the next periodic query while it is in use, else the mapping's end."""
        assert peer.mapping is not None
        parameters = self._exchanges.parameters
        ends = peer.mapping.expires
        if not peer.mapping.non_mat and self._in_use(now, peer):
            # Half of what is left, so that a lost query is made good before the end; but never so
            # little that the timer runs after an end it cannot reach.
            interval = min(parameters.peer_query_interval, (ends - now) / 2)
            interval = self._exchanges.jittered(interval, parameters.peer_query_jitter)
            ends = min(ends, now + max(interval, parameters.failure_time))
        if peer.doubtful_until > now:
            ends = min(ends, peer.doubtful_until)
        self._exchanges.schedule(peer, ends)

    def _peer_due(self, now: float, peer: Peer, out: _Effects) -> None:
        if peer.mapping is None:
            return
        if peer.mapping.expires <= now:
            self._forget(now, peer, PeerInput.ENDED, out)
            return
        if peer.doubtful_until and peer.doubtful_until <= now:
            peer.doubtful_until = 0.0
            self._settle(now, peer, out)
            self._schedule(now, peer)
            return
        if not peer.mapping.non_mat and self._in_use(now, peer):
            self._query(now, peer, out)
        self._schedule(now, peer)

    def _timed_out(self, now: float, exchange: Exchange, out: _Effects) -> None:
        peer = exchange.subject
        if exchange.purpose is Purpose.REGISTER:
            self._own.timed_out(now, exchange, out)
        elif exchange.attempts == 0 and isinstance(peer, Peer):
            self._transmit_first(now, peer, exchange, out)
        elif self._exchanges.fall_over(exchange):
            out.append(Event(EventKind.RETRANSMITTED, exchange.destination.address))
            self._transmit(now, exchange, out)
            if exchange.purpose is Purpose.CONFIRM and isinstance(peer, Peer):
                self._query(now, peer, out)
                if self._announces and peer.introduction is None:
                    self._introduce(now, peer, out)
        else:
            self._gave_up(now, exchange, out)

    def _gave_up(self, now: float, exchange: Exchange, out: _Effects) -> None:
        subject = exchange.subject
        if isinstance(subject, Source):
            self._end_source(subject)
            held = self._take_held(subject)
            out.extend(DropPacket(packet.handle, Reason.UNREACHABLE) for packet in held)
            out.append(Event(EventKind.SILENT, subject.address))
            return
        assert isinstance(subject, Peer)
        out.append(Event(EventKind.SILENT, subject.home_address))
        if exchange.purpose is Purpose.RESOLVE:
            subject.query = None
            if subject.state is PeerState.QUERYING:
                self._fail(now, subject, PeerInput.SILENT, out)
            else:
                subject.notices = []
                if self._unplaced(now, subject):
                    self._drop_in(subject, Reason.UNREACHABLE, out)
                out.append(Lookup(subject.home_address))
        elif exchange.purpose is Purpose.INTRODUCE:
            subject.introduction = None
            if subject.state is PeerState.NOTIFYING:
                self._fail(now, subject, PeerInput.SILENT, out)
        else:
            subject.confirmation = None
            self._never_confirmed(now, subject, exchange, out)

    def _unplaced(self, now: float, peer: Peer) -> bool:
        """Whether packets wait for a new mapping of the peer, not for a confirmation."""
        return any(self._owner(now, packet.source) is not peer for packet in peer.held_in)

    def _never_confirmed(self, now: float, peer: Peer, exchange: Exchange, out: _Effects) -> None:
        """The peer does not answer notices. Its IMS's word (4) will do, as in the paper."""
        if peer.introduced_version == _notify_of(exchange).version:
            self._go_on_unconfirmed(now, peer, exchange, out)
        elif self._in_use(now, peer):
            peer.unanswered_version = _notify_of(exchange).version
            if peer.introduction is None:
                self._introduce(now, peer, out)
            self._confirm(now, peer, out)

    def _fail(self, now: float, peer: Peer, happened: PeerInput, out: _Effects) -> None:
        """The peer cannot be reached: forget it, and leave its servers in peace for a moment."""
        self._forget(now, peer, happened, out)
        assert self._table is not None
        self._table.block(peer.home_address, now + self._exchanges.parameters.failure_time)

    def _forget(self, now: float, peer: Peer, happened: PeerInput, out: _Effects) -> None:
        if (peer.state, happened) in PEER:
            self._step(peer, happened, out)
        assert self._peers is not None
        assert self._table is not None
        self._peers.pop(peer.home_address, None)
        if peer.mapping is not None:
            self._remember_left(now, peer.mapping, self._table.usable(peer.mapping))
            self._table.remove(peer.home_address)
        self._end_exchanges(peer)
        self._drop_all(peer, out)
        if peer.translation is not None:
            peer.translation = None
            out.append(ClearMapping(peer.home_address))
        out.append(Event(EventKind.PEER_FORGOTTEN, peer.home_address))

    def _end_exchanges(self, peer: Peer) -> None:
        self._exchanges.cancel(peer)
        for exchange in (peer.query, peer.introduction, peer.confirmation):
            if exchange is not None:
                self._exchanges.finish(exchange)
        peer.query = peer.introduction = peer.confirmation = None


def _covers(answer: MaAnswer | HaNotifyAck, home_address: Address) -> bool:
    """Whether an answer is about this home address, itself or within a prefix."""
    return in_prefix(home_address, answer.home_address, answer.prefix_length)


def _notify_of(exchange: Exchange) -> HaNotify:
    assert isinstance(exchange.request, HaNotify)
    return exchange.request


def _handle_of(packet: Handle | Arrival) -> Handle:
    return packet.handle if isinstance(packet, Arrival) else packet


def _ordinary(address: Address, now: float, life: float) -> Mapping:
    """An entry for a host that is not a MAT node: it stands for itself."""
    return Mapping(address, EXACT, (address,), 0, now, now + life, non_mat=True)
