"""A node's own registration: clocks, replicas, lost and forged messages, refresh and lapse."""

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from mat.address import parse_address
from mat.authentication import MINIMUM_SECRET, Key, sign
from mat.effects import Effect, Event, EventKind, Lookup, NotFound, Send
from mat.messages import EXACT, MAT_PORT, Code, Endpoint, ImsUpdate, ImsUpdateReply
from mat.node import MobileNode
from mat.parameters import DEFAULTS, Parameters
from mat.registrations import Registration
from mat.server import MappingServer
from mat.states import RegistrationState
from tests.core.test_figures import separate
from tests.core.world import World

HOME = parse_address("10.1.0.1")
HERE, THERE = parse_address("198.51.100.1"), parse_address("198.51.100.77")
REPLICAS = (
    Endpoint(parse_address("192.0.2.1"), MAT_PORT),
    Endpoint(parse_address("192.0.2.2"), MAT_PORT),
)
KEY = Key(1, b"a secret of 24 bytes, so.", HOME)
REFRESH = DEFAULTS.registration_lifetime * DEFAULTS.refresh_share


def stored(world: World, server: str = "IMS_MN") -> Registration | None:
    return world.servers[server].store.by_home(HOME)


def state(world: World) -> RegistrationState:
    return world.hosts["MN"].machine.registration_state


def cut_off(world: World, server: str) -> None:
    del world.holder[world.servers[server].endpoint.address]


def reconnect(world: World, server: str) -> None:
    world.holder[world.servers[server].endpoint.address] = server


def updates(effects: Iterable[Effect]) -> list[ImsUpdate]:
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    return [message for message in sent if isinstance(message, ImsUpdate)]


def events(effects: Iterable[Effect]) -> list[EventKind]:
    return [effect.kind for effect in effects if isinstance(effect, Event)]


def recorded_move(world: World, address: str) -> ImsUpdate:
    """The node moves, and somebody records its IMS Update."""
    machine = world.hosts["MN"].machine
    world.release("MN")
    world.holder[parse_address(address)] = "MN"
    effects = machine.addresses_changed(world.now, [parse_address(address)])
    (update,) = updates(effects)
    world.apply("MN", effects)
    return update


def replayed(world: World, update: ImsUpdate) -> Code:
    """What becomes of a recording of an IMS Update."""
    server, source = world.servers["IMS_MN"], Endpoint(THERE, MAT_PORT)
    before = world.events[EventKind.STALE], stored(world)
    world.apply(server.name, server.machine.receive(world.now, update, source))
    assert stored(world) == before[1]
    return Code.STALE if world.events[EventKind.STALE] > before[0] else Code.SUCCEEDED


# ---- freshness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wall_clock", [0.0, 5e8, 1e9 - 1000])
def test_reboot_with_a_clock_that_is_slow_costs_one_more_exchange(wall_clock: float) -> None:
    world = separate()
    host = world.hosts["MN"]
    world.reboot("MN")
    host.machine = MobileNode(host.key, random.Random(5), wall_clock=wall_clock)
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.run(0.5)
    assert world.messages(start) == [
        "MN → DNS: DNS",
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
        "MN → IMS_MN: IMS Update",
        "IMS_MN → MN: IMS Update Reply",
    ]
    assert state(world) is RegistrationState.REGISTERED
    assert world.events[EventKind.RESYNCHRONISED] == 1
    registration = stored(world)
    assert registration is not None
    assert registration.mobile_addresses == (THERE,)


def test_reboot_with_a_right_clock_costs_nothing() -> None:
    world = separate()
    world.reboot("MN")
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.run(0.5)
    assert world.messages(start).count("MN → IMS_MN: IMS Update") == 1
    assert world.events[EventKind.RESYNCHRONISED] == 0


def test_version_after_a_slow_reboot_is_newer_than_what_peers_know() -> None:
    world = separate()
    host, before = world.hosts["MN"], stored(world)
    host.machine = MobileNode(host.key, random.Random(5), wall_clock=0.0)
    world.attach("MN", "198.51.100.77")
    world.run(0.5)
    after = stored(world)
    assert before is not None
    assert after is not None
    assert before.version < after.version <= after.freshness


def test_ims_that_restarts_with_its_store_keeps_refusing_replays() -> None:
    world = separate()
    old = recorded_move(world, "198.51.100.77")
    world.run(1.0)
    recorded_move(world, "198.51.100.78")
    world.run(1.0)
    assert replayed(world, old) is Code.STALE
    server = world.servers["IMS_MN"]
    server.machine = MappingServer(world._key_of, lambda _home: True, random.Random(2))
    assert replayed(world, old) is Code.STALE
    assert world.servers["IMS_MN"].store.by_mobile(THERE) is None


def test_every_transmission_is_fresher_and_asks_for_what_is_left_of_the_lease() -> None:
    node = MobileNode(KEY, random.Random(1), servers=REPLICAS[:1], wall_clock=1e9)
    sent = updates(node.addresses_changed(10.0, [HERE], [110.0]))
    times = [10.0]
    while len(sent) < 7:
        assert node.deadline is not None
        times.append(node.deadline)
        sent += updates(node.handle_timer(node.deadline))
    signatures = [update.authentication for update in sent]
    freshness = [signature.freshness for signature in signatures if signature is not None]
    assert all(one < other for one, other in pairwise(freshness))
    assert len({(update.sequence, update.nonce, update.version) for update in sent}) == 1
    lifetimes = [int(110.0 - DEFAULTS.lease_guard - at) for at in times]
    assert [update.lifetime for update in sent] == lifetimes
    assert lifetimes[0] == 95 > lifetimes[1] > lifetimes[2]
    assert node.deadline is not None
    assert not updates(node.handle_timer(node.deadline))
    assert updates(node.addresses_changed(120.0, [HERE], [220.0]))


def test_clock_that_stands_still_does_not_stop_freshness() -> None:
    node = MobileNode(KEY, random.Random(1), servers=REPLICAS[:1], wall_clock=1e9)
    sent = [
        update
        for last in range(1, 6)
        for update in updates(node.addresses_changed(10.0, [parse_address(f"198.51.100.{last}")]))
    ]
    freshness = [update.authentication.freshness for update in sent if update.authentication]
    assert len(set(freshness)) == 5
    assert freshness == sorted(freshness)


# ---- replies that are not what they should be --------------------------------------------------


def registering() -> tuple[MobileNode, ImsUpdate]:
    """A node whose IMS Update is under way, and that update."""
    node = MobileNode(KEY, random.Random(1), servers=REPLICAS[:1], wall_clock=1e9)
    (update,) = updates(node.addresses_changed(10.0, [HERE]))
    return node, update


def reply_to(
    update: ImsUpdate, code: Code = Code.SUCCEEDED, *, key: Key = KEY, said: int | None = None
) -> ImsUpdateReply:
    assert update.authentication is not None
    reply = ImsUpdateReply(update.sequence, code, nonce=update.nonce)
    sign(reply, key, update.authentication.freshness if said is None else said)
    return reply


def test_authentic_reply_registers() -> None:
    node, update = registering()
    effects = node.receive(10.1, reply_to(update), REPLICAS[0])
    assert events(effects) == [EventKind.REGISTERED]
    assert node.registered == (HERE,)


def forgeries(update: ImsUpdate) -> dict[str, tuple[ImsUpdateReply, EventKind]]:
    good = reply_to(update)
    bad_mac = reply_to(update)
    assert bad_mac.authentication is not None
    bad_mac.authentication.mac = bytes(16)
    signature = update.authentication
    assert signature is not None
    fresh = signature.freshness
    other_key = Key(1, b"another secret, as long as it", HOME)
    other_id = Key(2, KEY.secret, HOME)
    unauthentic, unexpected = EventKind.UNAUTHENTIC, EventKind.UNEXPECTED
    stray = ImsUpdateReply(update.sequence, 0, good.authentication, nonce=bytes(8))
    elsewhere = ImsUpdateReply(update.sequence ^ 1, 0, good.authentication, nonce=update.nonce)
    unsigned = ImsUpdateReply(update.sequence, 0, nonce=update.nonce)
    refused = ImsUpdateReply(update.sequence, Code.AUTHENTICATION_FAILED, nonce=update.nonce)
    return {
        "unsigned": (unsigned, unauthentic),
        "unsigned refusal": (refused, unauthentic),
        "unsigned stale": (
            ImsUpdateReply(update.sequence, Code.STALE, nonce=update.nonce),
            unauthentic,
        ),
        "other secret": (reply_to(update, key=other_key), unauthentic),
        "other key": (reply_to(update, key=other_id), unauthentic),
        "wrong mac": (bad_mac, unauthentic),
        "other nonce": (stray, unexpected),
        "other sequence": (elsewhere, unexpected),
        "freshness of the past": (reply_to(update, said=fresh - 1), unexpected),
        "freshness never sent": (reply_to(update, said=fresh + 1), unexpected),
        "stale against an older update": (reply_to(update, Code.STALE, said=fresh - 1), unexpected),
        "stale at the end of freshness": (
            reply_to(update, Code.STALE, said=(1 << 64) - 1),
            unexpected,
        ),
    }


@pytest.mark.parametrize("name", list(forgeries(registering()[1])))
def test_forged_reply_is_counted_and_the_true_one_still_counts(name: str) -> None:
    node, update = registering()
    forged, kind = forgeries(update)[name]
    (effect,) = node.receive(10.1, forged, REPLICAS[0])
    assert isinstance(effect, Event)
    assert effect.kind is kind
    assert node.registered == ()
    effects = node.receive(10.2, reply_to(update), REPLICAS[0])
    assert events(effects) == [EventKind.REGISTERED]


def test_reply_to_an_earlier_transmission_counts() -> None:
    node, update = registering()
    assert node.deadline is not None
    node.handle_timer(node.deadline)
    assert events(node.receive(11.2, reply_to(update), REPLICAS[0])) == [EventKind.REGISTERED]


def test_replayed_stale_reply_does_nothing() -> None:
    node, update = registering()
    signature = update.authentication
    assert signature is not None
    stale = reply_to(update, Code.STALE, said=signature.freshness + 100)
    effects = node.receive(10.1, stale, REPLICAS[0])
    assert events(effects) == [EventKind.RESYNCHRONISED]
    (fresher,) = updates(effects)
    assert fresher.authentication is not None
    assert fresher.version > signature.freshness + 100
    for _ in range(3):
        (effect,) = node.receive(10.2, stale, REPLICAS[0])
        assert effect == Event(EventKind.UNEXPECTED, REPLICAS[0].address)
    node.receive(10.3, reply_to(fresher), REPLICAS[0])
    assert node.registration_state is RegistrationState.REGISTERED


def test_duplicate_reply_to_a_former_update_is_counted() -> None:
    node, update = registering()
    node.receive(10.1, reply_to(update), REPLICAS[0])
    node.addresses_changed(20.0, [THERE])
    assert events(node.receive(20.1, reply_to(update), REPLICAS[0])) == [EventKind.UNEXPECTED]
    assert node.registered == ()


@pytest.mark.parametrize("code", [Code.NOT_RESPONSIBLE, Code.UNACCEPTABLE, Code.TRY_AGAIN])
def test_refusal_is_counted_and_the_update_sent_again_in_its_time(code: Code) -> None:
    node, update = registering()
    deadline = node.deadline
    effects = node.receive(10.1, reply_to(update, code), REPLICAS[0])
    assert effects == [Event(EventKind.REGISTRATION_REFUSED, HOME)]
    assert node.deadline == deadline
    assert deadline is not None
    assert [again.sequence for again in updates(node.handle_timer(deadline))] == [update.sequence]


# ---- replicas ----------------------------------------------------------------------------------


def replicated() -> World:
    world = World()
    world.add_server("IMS_1", "192.0.2.1", "10.0.0.0/8")
    world.add_server("IMS_2", "192.0.2.2", "10.0.0.0/8")
    world.add_host("MN", "10.1.0.1", "IMS_1", "IMS_2")
    world.attach("MN", "198.51.100.1")
    world.run(1.0)
    return world


def test_every_replica_is_updated() -> None:
    world = replicated()
    registrations = [stored(world, name) for name in ("IMS_1", "IMS_2")]
    assert [r.mobile_addresses for r in registrations if r] == [(HERE,), (HERE,)]
    assert world.events[EventKind.REGISTERED] == 1


@pytest.mark.parametrize(("dead", "alive"), [("IMS_1", "IMS_2"), ("IMS_2", "IMS_1")])
def test_dead_replica_does_not_delay_and_is_updated_when_it_returns(dead: str, alive: str) -> None:
    world = replicated()
    cut_off(world, dead)
    world.attach("MN", "198.51.100.77")
    world.run(3 * world.delay)
    assert state(world) is RegistrationState.REGISTERED
    for name, address in ((alive, THERE), (dead, HERE)):
        registration = stored(world, name)
        assert registration is not None
        assert registration.mobile_addresses == (address,)
    world.run(100.0)
    reconnect(world, dead)
    world.run(DEFAULTS.maximum_timeout * (1 + DEFAULTS.timeout_jitter) + 1.0)
    registration = stored(world, dead)
    assert registration is not None
    assert registration.mobile_addresses == (THERE,)


def test_replica_that_has_seen_more_than_the_other_resynchronises_both() -> None:
    world = replicated()
    host = world.hosts["MN"]
    cut_off(world, "IMS_1")
    world.attach("MN", "198.51.100.77")
    world.run(1.0)
    reconnect(world, "IMS_1")
    host.machine = MobileNode(host.key, random.Random(3), wall_clock=0.0)
    world.attach("MN", "198.51.100.78")
    world.run(DEFAULTS.maximum_timeout)
    registrations = [stored(world, name) for name in ("IMS_1", "IMS_2")]
    there = parse_address("198.51.100.78")
    assert [r.mobile_addresses for r in registrations if r] == [(there,), (there,)]
    assert state(world) is RegistrationState.REGISTERED


# ---- refresh and lapse -------------------------------------------------------------------------


def test_refresh_is_early_by_up_to_its_jitter_and_never_late() -> None:
    world = separate()
    world.run(10_000.0)
    times = [at for at, a, _, what in world.log if (a, what) == ("MN", "IMS Update")]
    intervals = [other - one for one, other in pairwise(times)]
    assert len(intervals) > 100
    assert max(intervals) <= REFRESH + 1e-6
    assert min(intervals) >= REFRESH * (1 - DEFAULTS.refresh_jitter) - 1e-6
    assert max(intervals) - min(intervals) > REFRESH * DEFAULTS.refresh_jitter / 2


def test_refresh_keeps_the_version_and_tells_no_peer() -> None:
    world = separate()
    before = stored(world)
    start = world.now
    world.run(REFRESH)
    after = stored(world)
    assert before is not None
    assert after is not None
    assert after.version == before.version
    assert after.freshness > before.freshness
    mine = [line for line in world.messages(start) if "MN" in line.split(":")[0].split(" ")]
    assert set(mine) == {"MN → IMS_MN: IMS Update", "IMS_MN → MN: IMS Update Reply"}


def test_two_lost_refreshes_do_not_end_the_mapping() -> None:
    world = separate()
    losses = iter([True, True])
    world.lose = lambda source, _target, what: (
        (source, what) == ("MN", "IMS Update") and next(losses, False)
    )
    for _ in range(400):
        world.run(1.0)
        registration = stored(world)
        assert registration is not None
        assert registration.expires > world.now
        assert state(world) is RegistrationState.REGISTERED


def test_mapping_lapses_when_the_ims_is_silent_for_its_lifetime_and_recovers() -> None:
    world = separate()
    machine = world.hosts["MN"].machine
    before = stored(world)
    assert before is not None
    cut_off(world, "IMS_MN")
    world.run(before.expires - world.now - 0.5)
    assert state(world) is RegistrationState.REGISTERED
    world.run(0.5)
    assert state(world) is RegistrationState.REGISTERING
    assert not machine.registered
    world.run(300.0)
    reconnect(world, "IMS_MN")
    world.run(DEFAULTS.maximum_timeout * (1 + DEFAULTS.timeout_jitter) + 1.0)
    assert state(world) is RegistrationState.REGISTERED
    assert list(machine.registered) == [HERE]
    after = stored(world)
    assert after is not None
    assert after.registered_at > before.expires


def test_new_lease_of_the_same_address_is_registered_if_it_ends_before_the_mapping() -> None:
    world = separate()
    start = world.now
    world.attach("MN", "198.51.100.1", until=[world.now + 1000.0])
    world.run(1.0)
    assert "MN → IMS_MN: IMS Update" not in world.messages(start)
    world.attach("MN", "198.51.100.1", until=[world.now + 30.0])
    world.run(1.0)
    registration = stored(world)
    assert registration is not None
    assert registration.lifetime == 30 - DEFAULTS.lease_guard


def test_detached_node_sends_nothing() -> None:
    world = separate()
    cut_off(world, "IMS_MN")
    world.attach("MN", "198.51.100.77")
    world.run(0.1)
    world.attach("MN")
    start = world.now
    world.run(1000.0)
    assert state(world) is RegistrationState.DETACHED
    assert not [line for line in world.messages(start) if line.startswith("MN")]


# ---- the own IMS and the DNS -------------------------------------------------------------------


@pytest.mark.parametrize("result", [NotFound.NOT_MAT, NotFound.FAILED])
def test_own_home_address_without_an_ims_record_is_looked_up_again_ever_less_often(
    result: NotFound,
) -> None:
    world = World()
    world.add_server("IMS_MN", "192.0.2.1", "10.1.0.0/16")
    world.add_host("MN", "10.1.0.1", "IMS_MN")
    servers = world.zones[HOME]
    world.zones[HOME] = result
    world.attach("MN", "198.51.100.1")
    world.run(200.0)
    asked = [at for at, _, target, _ in world.log if target == "DNS"]
    gaps = [other - one for one, other in pairwise(asked)]
    assert gaps == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, *[DEFAULTS.maximum_timeout] * 5])
    counted = len(asked) if result is NotFound.NOT_MAT else 0
    assert world.events[EventKind.NOT_A_MAT_ZONE] == counted
    assert state(world) is RegistrationState.LOCATING
    world.zones[HOME] = servers
    world.run(DEFAULTS.maximum_timeout + 1.0)
    assert state(world) is RegistrationState.REGISTERED


def test_ims_that_moved_is_found_again_after_silence() -> None:
    world = separate()
    cut_off(world, "IMS_MN")
    moved = world.add_server("IMS_NEW", "192.0.2.77", "10.1.0.0/16")
    world.zones[HOME] = (moved.endpoint,)
    start = world.now
    world.attach("MN", "198.51.100.77")
    world.run(DEFAULTS.maximum_timeout)
    registration = stored(world, "IMS_NEW")
    assert registration is not None
    assert registration.mobile_addresses == (THERE,)
    assert state(world) is RegistrationState.REGISTERED
    sent = world.messages(start)
    assert sent[: sent.index("MN → DNS: DNS")] == ["MN → nobody: IMS Update"] * 4


def test_silent_ims_that_did_not_move_is_asked_on_without_starting_anew() -> None:
    node, update = registering()
    asked: list[Effect] = []
    while not any(isinstance(effect, Lookup) for effect in asked):
        assert node.deadline is not None
        now = node.deadline
        asked += node.handle_timer(now)
        assert node.servers_found(now, HOME, REPLICAS[:1]) == []
    assert {again.sequence for again in updates(asked)} == {update.sequence}


# ---- keys and parameters -----------------------------------------------------------------------


def test_secret_shorter_than_the_mac_is_refused() -> None:
    with pytest.raises(ValueError, match=f"key 7: secret of 15 bytes, {MINIMUM_SECRET} needed"):
        Key(7, bytes(15), HOME)
    assert Key(7, bytes(MINIMUM_SECRET), HOME).prefix_length == EXACT


@pytest.mark.parametrize("key_id", [-1, 1 << 32])
def test_key_id_that_does_not_fit_is_refused(key_id: int) -> None:
    with pytest.raises(ValueError, match=f"key {key_id}: the key id must fit 32 bits"):
        Key(key_id, bytes(16), HOME)


@pytest.mark.parametrize("key_id", [0, (1 << 32) - 1])
def test_key_id_at_its_limits_is_a_key_id(key_id: int) -> None:
    assert Key(key_id, bytes(16), HOME).key_id == key_id


def test_key_permits_its_home_address_or_prefix_and_nothing_else() -> None:
    router = Key(2, bytes(16), parse_address("10.1.4.0"), 120)
    assert KEY.permits(HOME, EXACT)
    assert router.permits(parse_address("10.1.4.0"), 120)
    for key, home, length in (
        (KEY, "10.1.0.2", EXACT),
        (KEY, "10.1.0.1", 120),
        (router, "10.1.4.0", EXACT),
        (router, "10.1.4.0", 119),
        (router, "10.1.5.0", 120),
        (router, "10.1.4.1", EXACT),
    ):
        assert not key.permits(parse_address(home), length)


def test_overrides_replace_defaults_and_keep_their_type() -> None:
    parameters = Parameters.with_overrides({"initial_timeout": 2, "hold_per_peer": 4.0})
    assert (parameters.initial_timeout, parameters.hold_per_peer) == (2, 4)
    assert isinstance(parameters.hold_per_peer, int)
    assert parameters.maximum_timeout == DEFAULTS.maximum_timeout
    assert Parameters.with_overrides({}) == DEFAULTS


def test_unknown_parameter_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"^initial_timout: no such .*initial_timeout") as raised:
        Parameters.with_overrides({"hold_total": 4, "initial_timout": 1})
    assert "foreign_table_size" in str(raised.value)


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
def test_parameter_that_is_not_positive_is_named_with_its_value(value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^settle_time: must be a finite number greater than 0, is {value}"
    ):
        Parameters.with_overrides({"settle_time": value})


def test_table_of_parameters_is_complete_and_gives_every_reason() -> None:
    rows = Parameters.table()
    assert [name for name, _, _, _ in rows] == list(Parameters.__dataclass_fields__)
    assert all(reason and value == getattr(DEFAULTS, name) for name, value, _, reason in rows)
