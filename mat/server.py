"""The machine of an IMS.

Theory of operation. Every request becomes at most one store effect, whose answer makes the reply:
the effect carries the request, so the machine keeps nothing for it meanwhile. Only HA Notify for a
node of another IMS needs memory: an `Inquiry` collects the notices, finds that IMS through the DNS,
asks it (step 3), keeps its mapping for later HA Query, and acknowledges (4). A notice is never
believed, only followed up.

Updates must be authentic, fresh, and for the home address of the key. Answers are never longer
than `AMPLIFICATION_LIMIT` times the query. docs/protocol.md, sections 6 and 8.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

from mat.address import Address, in_prefix, is_ipv4, is_unicast, move_to_prefix
from mat.authentication import Key, KeyRing, is_authentic, sign
from mat.codec import encode
from mat.effects import (
    Event,
    EventKind,
    Learned,
    Lookup,
    NotFound,
    ReadByHome,
    ReadByMobile,
    Send,
    ServerEffect,
    StoreWrite,
)
from mat.exchanges import Exchange, Exchanges, Purpose, Random
from mat.mapping_table import Mapping, MappingTable, Servers
from mat.messages import (
    AMPLIFICATION_LIMIT,
    EXACT,
    MAX_MOBILE_ADDRESSES,
    MOST_FRESHNESS,
    REQUEST_SIZE,
    Code,
    Endpoint,
    HaAnswer,
    HaNotify,
    HaNotifyAck,
    HaQuery,
    ImsUpdate,
    ImsUpdateReply,
    MaAnswer,
    MaQuery,
    Message,
    shortest_prefix,
)
from mat.parameters import DEFAULTS, Parameters
from mat.registrations import Outcome, Registration, home_behind
from mat.timers import TokenBucket

Responsible = Callable[[Address], bool]
"""Whether this IMS holds the mapping of a home address (that is, whether its zone is served)."""

_ANSWER_BASE: Final = 60
"""Bytes of the longest answer to a query with a nonce, but for its mobile addresses and prefix."""
_DRAFT_ANSWER_BASE: Final = 32
_ADDRESS: Final = 16
_PREFIX_EXTENSION: Final = 4

_SAID: Final = {
    Outcome.STORED: Code.SUCCEEDED,
    Outcome.REPEATED: Code.SUCCEEDED,
    Outcome.STALE: Code.STALE,
    Outcome.UNAVAILABLE: Code.TRY_AGAIN,
}
"""What is replied to an update, by what became of it."""

_Effects = list[ServerEffect]


@final
class _Inquiry:
    """HA Notify for one node of another IMS: who waits, and the question to that IMS."""

    __slots__ = ("home_address", "prefix_length", "query", "version", "waiting")

    def __init__(self, home_address: Address, prefix_length: int) -> None:
        self.home_address = home_address
        self.prefix_length = prefix_length
        self.waiting: dict[tuple[int, Endpoint], HaNotify] = {}
        self.version = 0
        self.query: Exchange | None = None


@final
class MappingServer:
    """One IMS, or one worker of it. Inputs and effects as in `mat.node.MobileNode`."""

    __slots__ = ("_exchanges", "_foreign", "_inquiries", "_keys", "_rate", "_responsible")

    def __init__(
        self,
        keys: KeyRing,
        responsible: Responsible,
        random: Random,
        *,
        parameters: Parameters = DEFAULTS,
    ) -> None:
        self._keys = keys
        self._responsible = responsible
        self._exchanges = Exchanges(parameters, random)
        self._foreign = MappingTable(parameters.foreign_table_size)
        self._inquiries: dict[Address, _Inquiry] = {}
        self._rate = TokenBucket(parameters.inquiry_rate, parameters.inquiry_burst)

    @property
    def deadline(self) -> float | None:
        """When `handle_timer` wants to be called, in seconds; None for never."""
        return self._exchanges.deadline

    @property
    def inquiries(self) -> int:
        """HA Notify procedures in progress."""
        return len(self._inquiries)

    @property
    def foreign_mappings(self) -> int:
        """Mappings kept of nodes of other IMS."""
        return len(self._foreign)

    # ---- inputs --------------------------------------------------------------------------------

    def receive(self, now: float, message: Message, source: Endpoint) -> Sequence[ServerEffect]:
        """A message arrived from `source`."""
        out: _Effects = []
        if isinstance(message, MaQuery):
            self._ma_query(message, source, out)
        elif isinstance(message, ImsUpdate):
            self._ims_update(now, message, source, out)
        elif isinstance(message, HaNotify):
            self._ha_notify(now, message, source, out)
        elif isinstance(message, HaQuery):
            out.append(ReadByMobile(message.mobile_address, message, source))
        elif isinstance(message, MaAnswer):
            self._ma_answer(now, message, source, out)
        else:
            out.append(Event(EventKind.IGNORED, source.address))
        return out

    def written(
        self, now: float, write: StoreWrite, outcome: Outcome, freshness: int
    ) -> Sequence[ServerEffect]:
        """The store did, or did not do, a `StoreWrite`; `freshness` is what it holds now."""
        del now
        code = _SAID[outcome]
        signature = write.update.authentication
        assert signature is not None
        key = self._keys(signature.key_id)
        if key is None:
            return [Event(EventKind.UNAUTHENTIC, write.source.address)]
        said = freshness if code is Code.STALE else signature.freshness
        out: _Effects = [Send(_reply(write.update, code, key, said), write.source)]
        if code is Code.STALE:
            out.append(Event(EventKind.STALE, write.registration.home_address))
        return out

    def read(
        self,
        now: float,
        request: ReadByHome | ReadByMobile,
        found: Registration | Outcome | None,
    ) -> Sequence[ServerEffect]:
        """The store's answer to a read: a registration, None, or `Outcome.UNAVAILABLE`."""
        if isinstance(request, ReadByMobile):
            return [self._ha_answer(now, request, found)]
        if isinstance(request.asked, MaQuery):
            return [_ma_answer_from(now, request.asked, request.source, found)]
        if request.of_notifier:
            return [_vouch(now, request, request.asked, found)]
        code = Code.TRY_AGAIN if found is Outcome.UNAVAILABLE else request.code
        ack = HaNotifyAck(
            request.asked.sequence, code, request.home_address, nonce=request.asked.nonce
        )
        if isinstance(found, Registration):
            _fill(now, ack, found, request.asked)
        return [Send(ack, request.source)]

    def servers_found(
        self, now: float, home_address: Address, result: Servers | NotFound
    ) -> Sequence[ServerEffect]:
        """The DNS answered a `Lookup`."""
        out: _Effects = []
        inquiry = self._inquiries.get(home_address)
        if inquiry is None or inquiry.query is not None:
            return out
        if isinstance(result, NotFound):
            failed = result is NotFound.FAILED
            self._end(inquiry, Code.TRY_AGAIN if failed else Code.NO_MAPPING, out)
        else:
            self._inquire(now, inquiry, result, out)
        return out

    def learn(self, now: float, mapping: Mapping) -> bool:
        """Keep the mapping of another IMS's node, unless a newer one is known; whether it is kept.

        `mapping` comes from an inquiry, or from another worker of this IMS (`Learned`).
        """
        known = self._foreign.find(now, mapping.home_address)
        if (
            isinstance(known, Mapping)
            and known.home_address == mapping.home_address
            and known.version > mapping.version
        ):
            return False
        self._foreign.put(mapping)
        return True

    def adopt(self, keys: KeyRing, responsible: Responsible) -> None:
        """Go on with other keys and other zones; what is under way ends as it began."""
        self._keys = keys
        self._responsible = responsible

    def handle_timer(self, now: float) -> Sequence[ServerEffect]:
        """Do whatever is due by now."""
        out: _Effects = []
        for exchange in self._exchanges.due(now):
            assert isinstance(exchange, Exchange)
            assert isinstance(exchange.subject, _Inquiry)
            if self._exchanges.fall_over(exchange):
                out.append(Event(EventKind.RETRANSMITTED, exchange.destination.address))
                self._transmit(now, exchange, out)
            else:
                out.append(Event(EventKind.SILENT, exchange.subject.home_address))
                self._end(exchange.subject, Code.TRY_AGAIN, out)
        return out

    # ---- IMS Update ----------------------------------------------------------------------------

    def _ims_update(self, now: float, update: ImsUpdate, source: Endpoint, out: _Effects) -> None:
        key = self._keys(update.authentication.key_id) if update.authentication else None
        if update.authentication is None or key is None or not is_authentic(update, key):
            out.append(Event(EventKind.UNAUTHENTIC, source.address))
            out.append(Send(_reply(update, Code.AUTHENTICATION_FAILED, None, 0), source))
            return
        freshness = update.authentication.freshness
        refusal = self._refusal(update, key, freshness)
        if refusal is not None:
            out.append(Event(EventKind.REFUSED, update.home_address))
            out.append(Send(_reply(update, refusal, key, freshness), source))
            return
        addresses = update.mobile_addresses if update.lifetime else ()
        longest = int(self._exchanges.parameters.maximum_lifetime)
        registration = Registration(
            update.home_address,
            update.prefix_length,
            addresses,
            update.version,
            freshness,
            now,
            min(update.lifetime, longest),
        )
        out.append(StoreWrite(registration, update, source))

    def _refusal(self, update: ImsUpdate, key: Key, freshness: int) -> Code | None:
        """Why an authentic update is not acceptable; None if it is."""
        if not key.permits(update.home_address, update.prefix_length):
            return Code.NOT_RESPONSIBLE
        if not self._responsible(update.home_address):
            return Code.NOT_RESPONSIBLE
        addresses = update.mobile_addresses
        family = is_ipv4(update.home_address)
        fit = all(is_ipv4(a) == family and is_unicast(a) for a in addresses)
        ordered = update.version <= freshness < MOST_FRESHNESS
        if not fit or not ordered or len(set(addresses)) != len(addresses):
            return Code.UNACCEPTABLE
        return None

    # ---- queries -------------------------------------------------------------------------------

    def _ma_query(self, query: MaQuery, source: Endpoint, out: _Effects) -> None:
        if self._responsible(query.home_address):
            out.append(ReadByHome(query.home_address, query, source))
            return
        answer = MaAnswer(
            query.sequence,
            Code.NOT_RESPONSIBLE,
            query.home_address,
            (),
            0,
            0,
            nonce=query.nonce,
            draft_length=query.draft_length,
        )
        out.append(Send(answer, source))

    def _ha_answer(
        self, now: float, request: ReadByMobile, found: Registration | Outcome | None
    ) -> Send:
        """The newest claim to the address: of an own node, or of another IMS's that notified."""
        asked, moved = request.asked, request.mobile_address
        own = found if isinstance(found, Registration) and found.expires > now else None
        if own is not None and not self._responsible(own.home_address):
            own = None
        foreign = self._foreign.owner(now, moved)
        answer = HaAnswer(asked.sequence, Code.SUCCEEDED, moved, nonce=asked.nonce)
        if own is not None and (foreign is None or _claims_over(own, foreign)):
            answer.home_addresses = (home_behind(own, moved),)
            _set_times(now, answer, own.version, own.registered_at, own.expires)
        elif foreign is not None:
            answer.home_addresses = (foreign.home_behind(moved),)
            _set_times(now, answer, foreign.version, foreign.registered_at, foreign.expires)
        else:
            unavailable = found is Outcome.UNAVAILABLE
            answer.code = Code.TRY_AGAIN if unavailable else Code.NO_MAPPING
        return Send(answer, request.source)

    # ---- HA Notify -----------------------------------------------------------------------------

    def _ha_notify(self, now: float, notify: HaNotify, source: Endpoint, out: _Effects) -> None:
        home, length = notify.home_address, notify.prefix_length
        fits = is_unicast(home) if length == EXACT else length >= shortest_prefix(home)
        if not fits or is_ipv4(home) != is_ipv4(notify.peer):
            out.append(Event(EventKind.IGNORED, source.address))
            return
        if not self._responsible(notify.peer):
            ack = HaNotifyAck(
                notify.sequence, Code.NOT_RESPONSIBLE, notify.peer, nonce=notify.nonce
            )
            out.append(Send(ack, source))
        elif self._responsible(notify.home_address):
            out.append(ReadByHome(notify.home_address, notify, source, of_notifier=True))
        else:
            self._follow_up(now, notify, source, out)

    def _follow_up(self, now: float, notify: HaNotify, source: Endpoint, out: _Effects) -> None:
        """Step 3, once for all notices of a node that come in meanwhile."""
        known = self._foreign.find(now, notify.home_address)
        if isinstance(known, Mapping) and self._still_good(now, known, notify):
            out.append(ReadByHome(notify.peer, notify, source))
            return
        parameters = self._exchanges.parameters
        inquiry = self._inquiries.get(notify.home_address)
        if inquiry is None:
            if len(self._inquiries) >= parameters.inquiry_limit or not self._rate.take(now):
                out.append(Event(EventKind.RATE_LIMITED, notify.home_address))
                out.append(ReadByHome(notify.peer, notify, source, Code.TRY_AGAIN))
                return
            inquiry = _Inquiry(notify.home_address, notify.prefix_length)
            self._inquiries[notify.home_address] = inquiry
            out.append(Lookup(notify.home_address))
        inquiry.version = max(inquiry.version, notify.version)
        if len(inquiry.waiting) < parameters.inquiry_waiting:
            inquiry.waiting[notify.sequence, source] = notify
        else:
            out.append(ReadByHome(notify.peer, notify, source, Code.TRY_AGAIN))

    def _still_good(self, now: float, known: Mapping, notify: HaNotify) -> bool:
        """Whether what is known needs no new question: a notice repeated, not a refresh."""
        if (known.home_address, known.prefix_length) != (notify.home_address, notify.prefix_length):
            return False
        life = known.expires - known.registered_at
        young = now - known.registered_at < life * self._exchanges.parameters.refresh_share / 2
        return young and known.version >= notify.version > 0

    def _inquire(self, now: float, inquiry: _Inquiry, servers: Servers, out: _Effects) -> None:
        sequence, nonce = self._exchanges.identify()
        request = MaQuery(sequence, inquiry.home_address, inquiry.version, nonce=nonce)
        limit = self._exchanges.parameters.query_attempts
        inquiry.query = Exchange(Purpose.INQUIRE, inquiry, request, servers, limit)
        self._exchanges.add(inquiry.query)
        self._transmit(now, inquiry.query, out)

    def _ma_answer(self, now: float, answer: MaAnswer, source: Endpoint, out: _Effects) -> None:
        exchange = self._exchanges.match(now, answer)
        if exchange is None or not isinstance(exchange.subject, _Inquiry):
            out.append(Event(EventKind.UNEXPECTED, source.address))
            return
        inquiry = exchange.subject
        if source.address != exchange.destination.address or not in_prefix(
            inquiry.home_address, answer.home_address, answer.prefix_length
        ):
            out.append(Event(EventKind.UNEXPECTED, source.address))
            return
        useful = answer.code == Code.SUCCEEDED and bool(answer.mobile_addresses)
        good_enough = useful and answer.version >= inquiry.version
        if not good_enough and exchange.attempts < len(exchange.servers):
            exchange.turn()
            self._transmit(now, exchange, out)
        elif useful:
            self._keep(now, inquiry, answer, out)
            self._end(inquiry, Code.SUCCEEDED, out, answer.version)
        elif answer.code in (Code.SUCCEEDED, Code.NO_MAPPING):
            self._end(inquiry, Code.NO_MAPPING, out)
        else:
            out.append(Event(EventKind.REFUSED, inquiry.home_address))

    def _keep(self, now: float, inquiry: _Inquiry, answer: MaAnswer, out: _Effects) -> None:
        """Remember the mapping of another IMS's node, for HA Query.

        Of a prefix that was not notified, only the address that was asked for: the answering IMS
        need not be that of the others.
        """
        home, length = inquiry.home_address, answer.prefix_length
        moved = answer.mobile_addresses
        if (answer.home_address, length) != (home, inquiry.prefix_length):
            moved = tuple(move_to_prefix(home, address, length) for address in moved)
            length = EXACT
        family = is_ipv4(home)
        longest = self._exchanges.parameters.maximum_lifetime
        mapping = Mapping(
            home,
            length,
            tuple(a for a in dict.fromkeys(moved) if is_ipv4(a) == family and is_unicast(a)),
            answer.version,
            now - answer.age / 1000,
            now + min(answer.lifetime, longest),
        )
        if self.learn(now, mapping):
            out.append(Learned(mapping))

    def _end(self, inquiry: _Inquiry, code: int, out: _Effects, version: int = 0) -> None:
        """Step 4 for all who wait; whose notice is of a later version has to try again."""
        del self._inquiries[inquiry.home_address]
        if inquiry.query is not None:
            self._exchanges.finish(inquiry.query)
        for (_, source), notify in inquiry.waiting.items():
            behind = code == Code.SUCCEEDED and version < notify.version
            said = Code.TRY_AGAIN if behind else code
            out.append(ReadByHome(notify.peer, notify, source, said))

    def _transmit(self, now: float, exchange: Exchange, out: _Effects) -> None:
        self._exchanges.transmitted(now, exchange)
        out.append(Send(exchange.request, exchange.destination))


def _vouch(
    now: float, request: ReadByHome, notify: HaNotify, found: Registration | Outcome | None
) -> ReadByHome:
    """Step 3 where both nodes are this server's: does it hold what the notice speaks of?"""
    good = (
        isinstance(found, Registration) and found.expires > now and found.version >= notify.version
    )
    code = Code.SUCCEEDED if good else Code.TRY_AGAIN
    return ReadByHome(notify.peer, notify, request.source, code)


def _claims_over(own: Registration, foreign: Mapping) -> bool:
    """Whether an address is an own node's: exact claims beat prefixes, later ones older ones."""
    exact = own.prefix_length == EXACT
    if exact != (foreign.prefix_length == EXACT):
        return exact
    return own.registered_at >= foreign.registered_at


def _reply(update: ImsUpdate, code: Code, key: Key | None, freshness: int) -> ImsUpdateReply:
    reply = ImsUpdateReply(
        update.sequence, code, nonce=update.nonce, draft_length=update.draft_length
    )
    if key is not None:
        sign(reply, key, freshness)
    return reply


def _ma_answer_from(
    now: float, query: MaQuery, source: Endpoint, found: Registration | Outcome | None
) -> Send:
    code = Code.TRY_AGAIN if found is Outcome.UNAVAILABLE else Code.NO_MAPPING
    answer = MaAnswer(
        query.sequence,
        code,
        query.home_address,
        (),
        0,
        0,
        nonce=query.nonce,
        draft_length=query.draft_length,
    )
    if isinstance(found, Registration) and _fill(now, answer, found, query):
        answer.code = Code.SUCCEEDED
    return Send(answer, source)


def _fill(
    now: float, answer: MaAnswer | HaNotifyAck, found: Registration, query: MaQuery | HaNotify
) -> bool:
    """Put a mapping into an answer, as much of it as the size of the query allows.

    A query without a nonce gets no extensions, so a prefix is narrowed to the address asked for.
    """
    if found.expires <= now or not found.mobile_addresses:
        return False
    room = _room(query)
    if query.nonce and found.prefix_length != EXACT:
        answer.home_address, answer.prefix_length = found.home_address, found.prefix_length
        answer.mobile_addresses = found.mobile_addresses[:room]
    else:
        answer.mobile_addresses = found.addresses_of(answer.home_address)[:room]
    _set_times(now, answer, found.version, found.registered_at, found.expires)
    return True


def _room(query: MaQuery | HaNotify) -> int:
    """Mobile addresses that fit an answer of `AMPLIFICATION_LIMIT` times the query."""
    if query.nonce and query.wire is None:
        return MAX_MOBILE_ADDRESSES
    size = len(encode(query))
    if query.nonce and size >= REQUEST_SIZE:
        return MAX_MOBILE_ADDRESSES
    base = _ANSWER_BASE + _PREFIX_EXTENSION if query.nonce else _DRAFT_ANSWER_BASE
    return min(MAX_MOBILE_ADDRESSES, max(0, AMPLIFICATION_LIMIT * size - base) // _ADDRESS)


def _set_times(
    now: float,
    answer: MaAnswer | HaNotifyAck | HaAnswer,
    version: int,
    registered_at: float,
    expires: float,
) -> None:
    """Lifetime is what remains, rounded down; age is in milliseconds.

    Both are relative, so that nobody's clock has to be right.
    """
    answer.version = version
    answer.lifetime = max(0, int(expires - now))
    answer.age = max(0, int((now - registered_at) * 1000))
