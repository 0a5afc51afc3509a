"""Who is played, where they are, and which server is asked about them."""

import numpy as np
import pytest

from mat.address import Address, is_ipv4, is_unicast, parse_address
from mat.authentication import Key
from mat.messages import MAT_PORT, Endpoint
from mat_real.load.population import LoadError, Target, parse_target, populate, target_name
from tests.real.tiny_ims import some_keys

HERE = Target(Endpoint(parse_address("127.0.0.1"), 4000))


def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", MAT_PORT),
        ("192.0.2.1:5000", "192.0.2.1", 5000),
        ("2001:db8::1", "2001:db8::1", MAT_PORT),
        ("[2001:db8::1]", "2001:db8::1", MAT_PORT),
        ("[2001:db8::1]:5000", "2001:db8::1", 5000),
    ],
)
def test_a_server_is_an_address_and_perhaps_a_port(text: str, address: str, port: int) -> None:
    target = parse_target(text)
    assert target.endpoint == Endpoint(parse_address(address), port)
    assert target.length == 0


@pytest.mark.parametrize(
    ("text", "prefix", "length"),
    [
        ("10.0.0.0/8=192.0.2.1", "10.0.0.0", 104),
        ("2001:db8::/32=[2001:db8::1]:5000", "2001:db8::", 32),
    ],
)
def test_a_server_may_hold_the_mappings_of_a_prefix(text: str, prefix: str, length: int) -> None:
    target = parse_target(text)
    assert (target.prefix, target.length) == (parse_address(prefix), length)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ims.example", "'ims.example' is not an address"),
        ("192.0.2.1:0", "'0' is no port"),
        ("192.0.2.1:http", "'http' is no port"),
        ("10.0.0.1/8=192.0.2.1", "'10.0.0.1/8' is no prefix"),
        ("ten=192.0.2.1", "'ten' is no prefix"),
        ("", "'' is not an address"),
    ],
)
def test_anything_else_is_no_server(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_target(text)


def test_a_server_is_named_as_it_is_written() -> None:
    assert target_name(parse_target("192.0.2.1")) == f"192.0.2.1:{MAT_PORT}"
    assert target_name(parse_target("[2001:db8::1]:5000")) == "[2001:db8::1]:5000"


def test_the_first_keys_are_the_nodes() -> None:
    keys = some_keys(10)
    population = populate(keys, [HERE], 4, random())
    assert list(population.keys) == keys[:4]
    assert population.homes.tolist() == [key.home_address for key in keys[:4]]
    assert population.key_ids.tolist() == [1, 2, 3, 4]
    assert len(populate(keys, [HERE], None, random())) == 10


def test_keys_of_prefixes_and_second_keys_of_a_home_are_left_out() -> None:
    keys = some_keys(3)
    router = Key(90, bytes(16), parse_address("10.9.0.0"), 112)
    rotated = Key(91, bytes(16), keys[0].home_address)
    assert (
        list(populate([keys[0], router, rotated, *keys[1:]], [HERE], None, random()).keys) == keys
    )


def test_too_few_keys_are_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(LoadError, match="keys of 3 single home addresses, for 4 nodes"):
        populate(some_keys(3), [HERE], 4, random())
    with pytest.raises(LoadError, match="no key of a single home address"):
        populate([], [HERE], None, random())


def test_everybody_has_a_peer_of_his_family_and_is_one() -> None:
    keys = [*some_keys(50), *some_keys(30, "2001:db8::1")]
    peers = populate(keys, [HERE], None, random()).peers
    assert sorted(peers.tolist()) == list(range(80))
    assert (peers != np.arange(80)).all()
    assert {int(peer) < 50 for peer in peers[:50]} == {True}


def test_a_node_is_at_two_addresses_in_turn_that_nobody_else_has() -> None:
    keys = [*some_keys(300), *some_keys(300, "2001:db8::1")]
    population = populate(keys, [HERE], None, random())
    nodes = np.arange(600)
    one, two, again = (
        population.mobile_addresses(nodes, np.full(600, k)).tolist() for k in (0, 1, 2)
    )
    assert one == again
    assert len({*one, *two}) == 1200
    for key, first, second in zip(keys, one, two, strict=True):
        for address in (Address(first), Address(second)):
            assert is_unicast(address)
            assert is_ipv4(address) == is_ipv4(key.home_address)


def test_the_longest_prefix_says_which_server_holds_a_home_address() -> None:
    targets = [
        parse_target("10.0.0.0/8=192.0.2.1"),
        parse_target("192.0.2.9"),
        parse_target("10.0.1.0/24=192.0.2.2"),
    ]
    keys = [*some_keys(1), *some_keys(1, "10.0.1.1"), *some_keys(1, "2001:db8::1")]
    assert populate(keys, targets, None, random()).servers.tolist() == [0, 2, 1]


def test_a_home_address_without_a_server_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"no --server is given for the home address 10\.0\.0\.1"):
        populate(some_keys(1), [parse_target("10.1.0.0/16=192.0.2.1")], None, random())


def test_two_servers_of_the_same_home_addresses_are_refused() -> None:
    with pytest.raises(LoadError, match="replicas are not played"):
        populate(some_keys(1), [HERE, parse_target("192.0.2.1")], None, random())
