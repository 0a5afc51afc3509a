"""The DHCP client's machine: what it sends when, and what it believes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from mat.address import Address, format_address, parse_address, to_packed
from mat.dhcp import (
    Bind,
    DhcpClient,
    DhcpEffect,
    State,
    Transmit,
    Unbind,
)
from mat.dhcp_messages import BROADCAST, DhcpMessage, Kind, Option

HARDWARE = bytes.fromhex("020000000001")
SERVER = parse_address("10.1.0.1")
ADDRESS = parse_address("10.1.0.7")


def sent(effects: Sequence[DhcpEffect]) -> Transmit:
    """The one thing that was sent."""
    (transmit,) = [effect for effect in effects if isinstance(effect, Transmit)]
    return transmit


def question(effects: Sequence[DhcpEffect]) -> DhcpMessage:
    return sent(effects).message


def answer(
    to: DhcpMessage,
    kind: Kind,
    *,
    yours: Address = ADDRESS,
    seconds: int = 1000,
    more: dict[int, bytes] | None = None,
) -> DhcpMessage:
    options = {
        int(Option.SERVER): to_packed(SERVER),
        int(Option.LEASE_TIME): seconds.to_bytes(4),
        int(Option.SUBNET_MASK): bytes.fromhex("ffffff00"),
        int(Option.ROUTER): to_packed(SERVER),
    }
    return DhcpMessage(
        kind, to.transaction, to.hardware_address, yours=yours, options={**options, **(more or {})}
    )


def bound(
    now: float = 0.0, seconds: int = 1000, more: dict[int, bytes] | None = None
) -> DhcpClient:
    """A client that got a lease at `now`."""
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(now, HARDWARE))
    request = question(client.receive(now, answer(discover, Kind.OFFER)))
    client.receive(now, answer(request, Kind.ACK, seconds=seconds, more=more))
    assert client.state is State.BOUND
    return client


def times_of_transmissions(client: DhcpClient, until: float) -> list[float]:
    """When something is sent, if nobody answers."""
    found: list[float] = []
    while client.deadline is not None and (now := client.deadline) <= until:
        effects = client.handle_timer(now)
        found += [now for effect in effects if isinstance(effect, Transmit)]
    return found


def test_discover_offer_request_acknowledgement() -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(5.0, HARDWARE))
    assert discover.kind is Kind.DISCOVER
    assert Option.RAPID_COMMIT in discover.options
    assert Option.REQUESTED_ADDRESS not in discover.options
    assert discover.options[Option.CLIENT] == b"\1" + HARDWARE
    request = question(client.receive(5.1, answer(discover, Kind.OFFER)))
    assert request.kind is Kind.REQUEST
    assert request.options[Option.REQUESTED_ADDRESS] == to_packed(ADDRESS)
    assert request.options[Option.SERVER] == to_packed(SERVER)
    (effect,) = client.receive(5.3, answer(request, Kind.ACK))
    assert isinstance(effect, Bind)
    assert effect.lease is client.lease
    # Counted from the request, not from the answer.
    assert effect.lease.until == pytest.approx(1005.1)
    assert (effect.lease.address, effect.lease.prefix_length) == (ADDRESS, 120)
    assert effect.lease.gateway == SERVER


def test_retransmissions_begin_after_a_tenth_of_a_second_and_slow_down() -> None:
    client = DhcpClient(Random(1))
    client.carrier_came(0.0, HARDWARE)
    times = [0.0, *times_of_transmissions(client, 200.0)]
    gaps = [after - before for before, after in pairwise(times)]
    expected = [0.1, 0.4, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]
    assert len(gaps) >= len(expected)
    for gap, least in zip(gaps, expected, strict=False):
        assert least <= gap <= least * 1.1 + 1e-9


def test_a_silent_server_is_left_for_others_after_four_requests() -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    client.receive(0.0, answer(discover, Kind.OFFER))
    kinds: list[Kind] = []
    while Kind.DISCOVER not in kinds:
        assert client.deadline is not None
        kinds.append(question(client.handle_timer(client.deadline)).kind)
    assert kinds == [Kind.REQUEST] * 3 + [Kind.DISCOVER]


def test_with_rapid_commit_one_exchange_is_enough_and_without_it_an_acknowledgement_is_none() -> (
    None
):
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    assert client.receive(0.1, answer(discover, Kind.ACK)) == ()
    rapid = {int(Option.RAPID_COMMIT): b""}
    (effect,) = client.receive(0.1, answer(discover, Kind.ACK, more=rapid))
    assert isinstance(effect, Bind)


def test_after_a_flap_the_address_is_asked_for_again() -> None:
    client = bound()
    assert client.carrier_went() == [Unbind()]
    assert client.deadline is None
    reboot = question(client.carrier_came(10.0, HARDWARE))
    assert reboot.kind is Kind.REQUEST
    assert reboot.options[Option.REQUESTED_ADDRESS] == to_packed(ADDRESS)
    assert Option.SERVER not in reboot.options
    (effect,) = client.receive(10.05, answer(reboot, Kind.ACK))
    assert isinstance(effect, Bind)
    assert effect.lease.until == 1010.0


def test_if_nobody_answers_that_everybody_is_asked_and_a_late_answer_still_counts() -> None:
    client = bound()
    client.carrier_went()
    reboot = question(client.carrier_came(10.0, HARDWARE))
    assert client.deadline is not None
    assert client.deadline <= 10.11
    discover = question(client.handle_timer(client.deadline))
    assert discover.kind is Kind.DISCOVER
    assert discover.transaction != reboot.transaction
    (effect,) = client.receive(10.3, answer(reboot, Kind.ACK))
    assert isinstance(effect, Bind)
    # Counted from the question that was answered.
    assert effect.lease.until == 1010.0


def test_a_late_refusal_of_the_old_address_does_not_stop_the_search_for_another() -> None:
    client = bound()
    client.carrier_went()
    reboot = question(client.carrier_came(10.0, HARDWARE))
    assert client.deadline is not None
    discover = question(client.handle_timer(client.deadline))
    assert client.receive(10.2, answer(reboot, Kind.NAK)) == ()
    assert client.state is State.SELECTING
    assert question(client.receive(10.2, answer(discover, Kind.OFFER))).kind is Kind.REQUEST


def test_where_the_old_address_is_refused_everybody_is_asked_at_once() -> None:
    client = bound()
    client.carrier_went()
    reboot = question(client.carrier_came(10.0, HARDWARE))
    discover = question(client.receive(10.01, answer(reboot, Kind.NAK)))
    assert discover.kind is Kind.DISCOVER
    assert Option.REQUESTED_ADDRESS not in discover.options


def test_what_was_offered_and_then_refused_is_not_asked_for_as_fast_as_it_is_refused() -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    now, pauses = 0.0, list[float]()
    for _ in range(5):
        request = question(client.receive(now, answer(discover, Kind.OFFER)))
        assert client.receive(now, answer(request, Kind.NAK)) == ()
        assert client.deadline is not None
        pauses.append(client.deadline - now)
        now = client.deadline
        discover = question(client.handle_timer(now))
        assert discover.kind is Kind.DISCOVER
    assert pauses[0] >= 0.4
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4.0


def test_a_second_offer_comes_too_late() -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    client.receive(0.0, answer(discover, Kind.OFFER))
    other = parse_address("10.1.0.8")
    assert client.receive(0.0, answer(discover, Kind.OFFER, yours=other)) == ()


def test_a_search_begins_fast_again_with_the_carrier_and_after_a_lease() -> None:
    client = DhcpClient(Random(1))
    client.carrier_came(0.0, HARDWARE)
    times_of_transmissions(client, 1000.0)
    client.carrier_went()
    discover = question(client.carrier_came(1000.0, HARDWARE))
    assert client.deadline is not None
    assert client.deadline < 1000.2
    times_of_transmissions(client, 2000.0)
    rapid = {int(Option.RAPID_COMMIT): b""}
    client.receive(2000.0, answer(discover, Kind.ACK, more=rapid))
    request = question(client.handle_timer(client.deadline))
    client.receive(client.deadline, answer(request, Kind.NAK))
    assert client.deadline - client._sent < 0.2


def test_the_first_request_for_an_offer_is_repeated_soon_however_long_the_search_was() -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    times_of_transmissions(client, 1000.0)
    client.receive(1000.0, answer(discover, Kind.OFFER))
    assert client.state is State.REQUESTING
    assert client.deadline is not None
    assert client.deadline - 1000.0 < 0.2


def test_a_lease_that_ended_without_carrier_is_forgotten() -> None:
    client = bound(seconds=100)
    client.carrier_went()
    assert question(client.carrier_came(101.0, HARDWARE)).kind is Kind.DISCOVER


def test_another_ethernet_address_is_another_client() -> None:
    client = bound()
    client.carrier_went()
    other = bytes.fromhex("020000000002")
    discover = question(client.carrier_came(10.0, other))
    assert discover.kind is Kind.DISCOVER
    assert Option.REQUESTED_ADDRESS not in discover.options
    assert discover.hardware_address == other


def test_a_lease_is_renewed_at_half_rebound_at_seven_eighths_and_ends() -> None:
    client = bound(seconds=1000)
    renewing = client.handle_timer(500.0)
    assert sent(renewing).destination == SERVER
    assert sent(renewing).source == question(renewing).client == ADDRESS
    assert Option.SERVER not in question(renewing).options
    assert Option.REQUESTED_ADDRESS not in question(renewing).options
    times = times_of_transmissions(client, 874.9)
    # Half of what is left until all servers are asked, and not below a minute.
    assert times == [687.5, 781.25, 841.25]
    rebinding = client.handle_timer(875.0)
    assert sent(rebinding).destination == BROADCAST
    assert question(rebinding).transaction != question(renewing).transaction
    assert times_of_transmissions(client, 999.9) == [937.5, 997.5]
    unbind, discover = client.handle_timer(1000.0)
    assert unbind == Unbind()
    assert isinstance(discover, Transmit)
    assert discover.message.kind is Kind.DISCOVER
    assert client.lease is None


def test_a_renewal_moves_everything() -> None:
    client = bound(seconds=1000)
    request = question(client.handle_timer(500.0))
    (effect,) = client.receive(500.5, answer(request, Kind.ACK, seconds=2000))
    assert isinstance(effect, Bind)
    assert (effect.lease.renew, effect.lease.rebind, effect.lease.until) == (1500, 2250, 2500)
    assert client.deadline == 1500


def test_a_refused_renewal_takes_the_address_away_at_once() -> None:
    client = bound()
    request = question(client.handle_timer(500.0))
    unbind, discover = client.receive(500.1, answer(request, Kind.NAK))
    assert unbind == Unbind()
    assert isinstance(discover, Transmit)
    assert discover.message.kind is Kind.DISCOVER


def test_the_servers_own_times_count_if_they_make_sense() -> None:
    def times(renew: int, rebind: int) -> tuple[float, float]:
        more = {
            int(Option.RENEWAL_TIME): renew.to_bytes(4),
            int(Option.REBINDING_TIME): rebind.to_bytes(4),
        }
        lease = bound(more=more).lease
        assert lease is not None
        return lease.renew, lease.rebind

    assert times(100, 300) == (100, 300)
    assert times(100, 5000) == (100, 875)
    assert times(900, 300) == (300, 300)
    assert times(5000, 6000) == (500, 875)


def test_a_lease_without_end_needs_no_renewal() -> None:
    client = bound(seconds=0xFFFFFFFF)
    assert client.deadline is None
    assert client.lease is not None
    assert client.lease.until == math.inf


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replace(m, transaction=m.transaction ^ 1),
        lambda m: replace(m, hardware_address=bytes(6)),
        lambda m: replace(m, yours=parse_address("0.0.0.0")),
        lambda m: replace(m, yours=parse_address("224.0.0.1")),
        lambda m: replace(m, options={**m.options, Option.SERVER: b""}),
        lambda m: replace(m, kind=Kind.DISCOVER),
    ],
    ids=["transaction", "hardware", "no address", "multicast", "no server", "a client's"],
)
@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.ACK])
def test_what_is_no_answer_to_the_question_is_ignored(
    kind: Kind, spoil: Callable[[DhcpMessage], DhcpMessage]
) -> None:
    client = DhcpClient(Random(1))
    asked = question(client.carrier_came(0.0, HARDWARE))
    if kind is Kind.ACK:
        asked = question(client.receive(0.0, answer(asked, Kind.OFFER)))
    state = client.state
    assert client.receive(0.1, spoil(answer(asked, kind))) == ()
    assert client.state is state


@pytest.mark.parametrize("seconds", [b"", b"\0\0\0\0", b"\0\1"])
def test_an_acknowledgement_without_a_time_is_none(seconds: bytes) -> None:
    client = DhcpClient(Random(1))
    discover = question(client.carrier_came(0.0, HARDWARE))
    request = question(client.receive(0.0, answer(discover, Kind.OFFER)))
    spoilt = {int(Option.LEASE_TIME): seconds}
    assert client.receive(0.1, answer(request, Kind.ACK, more=spoilt)) == ()


def test_nothing_is_believed_while_nothing_is_asked() -> None:
    client = bound()
    discover = DhcpMessage(Kind.DISCOVER, client._transaction, HARDWARE)
    for kind in Kind:
        assert client.receive(1.0, answer(discover, kind)) == ()
    client.carrier_went()
    for kind in Kind:
        assert client.receive(1.0, answer(discover, kind)) == ()


@pytest.mark.parametrize(
    ("mask", "length"),
    [("ffffff00", 120), ("ffffffff", 128), ("80000000", 97), ("00000000", 128), ("ff00ff00", 128)],
)
def test_a_mask_that_is_none_is_that_of_a_host(mask: str, length: int) -> None:
    lease = bound(more={int(Option.SUBNET_MASK): bytes.fromhex(mask)}).lease
    assert lease is not None
    assert lease.prefix_length == length


def test_addresses_that_cannot_be_a_hosts_are_left_out() -> None:
    more = {
        int(Option.ROUTER): bytes(4),
        int(Option.NAME_SERVER): bytes(4) + bytes([10, 1, 0, 53, 255, 255, 255, 255]),
    }
    lease = bound(more=more).lease
    assert lease is not None
    assert lease.gateway is None
    assert [format_address(server) for server in lease.name_servers] == ["10.1.0.53"]


def test_early_timers_do_no_harm() -> None:
    client = bound()
    assert client.handle_timer(499.9) == ()
    assert client.state is State.BOUND


def test_what_a_predecessor_left_is_asked_for_and_kept_until_it_is_refused() -> None:
    client = DhcpClient(Random(1), ADDRESS)
    reboot = question(client.carrier_came(0.0, HARDWARE))
    assert reboot.options[Option.REQUESTED_ADDRESS] == to_packed(ADDRESS)
    effects = client.receive(0.1, answer(reboot, Kind.NAK))
    assert effects[0] == Unbind()
    assert question(effects).kind is Kind.DISCOVER
