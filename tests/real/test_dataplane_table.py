"""What the dataplane keeps of translations: by packets' addresses, and as elements of maps."""

from mat.address import Address, parse_address, prefix_of, to_packed
from mat.effects import Translation
from mat_real.dataplane import rules
from mat_real.dataplane.maps import KernelMaps
from mat_real.dataplane.nfnetlink import delete, put
from mat_real.dataplane.table import TranslationTable

HOME, LOCAL, LOCAL_2 = map(parse_address, ("10.1.0.1", "192.0.2.1", "192.0.2.2"))
PEER, MOBILE, MOBILE_2 = map(parse_address, ("10.2.0.1", "203.0.113.1", "203.0.113.2"))


def translation(
    home: Address = PEER,
    accepted: tuple[Address, ...] = (MOBILE,),
    local: tuple[Address, ...] = (LOCAL,),
    length: int = 128,
) -> Translation:
    return Translation(home, accepted[0], accepted, HOME, length, local[0], local)


def key(source: Address, destination: Address) -> bytes:
    return to_packed(source) + to_packed(destination)


def test_a_translation_is_found_by_every_pair_of_addresses_that_it_accepts() -> None:
    table = TranslationTable()
    one = translation(accepted=(MOBILE, MOBILE_2), local=(LOCAL, LOCAL_2))
    table.set(one)
    pairs = {key(peer, own) for peer in (MOBILE, MOBILE_2) for own in (LOCAL, LOCAL_2)}
    assert table.inward == dict.fromkeys(pairs, one)
    assert table.outward[to_packed(PEER)] == (one, LOCAL, MOBILE)


def test_one_that_takes_the_place_of_another_leaves_nothing_of_it() -> None:
    table = TranslationTable()
    table.set(translation(accepted=(MOBILE, MOBILE)))
    new = translation(accepted=(MOBILE_2,), local=(LOCAL_2,))
    table.set(new)
    assert table.inward == {key(MOBILE_2, LOCAL_2): new}
    table.clear(PEER)
    table.clear(PEER)
    assert not table.inward
    assert not table.outward
    assert not table.by_home


def test_a_mat_node_has_its_address_before_the_same_as_a_host_without_mat() -> None:
    table = TranslationTable()
    plain = translation(home=MOBILE)
    mobile = translation()
    for order in ((plain, mobile), (mobile, plain)):
        for each in order:
            table.set(each)
        assert table.inward[key(MOBILE, LOCAL)] is mobile
        assert table.outward[to_packed(MOBILE)].translation is plain
        table.clear(PEER)
        assert table.inward[key(MOBILE, LOCAL)] is plain
        table.clear(MOBILE)


def test_of_two_mat_nodes_with_one_address_the_one_set_last_has_it() -> None:
    table = TranslationTable()
    first, last = translation(), translation(home=parse_address("10.3.0.1"))
    table.set(first)
    table.set(last)
    assert table.inward[key(MOBILE, LOCAL)] is last
    table.clear(last.home)
    assert table.inward[key(MOBILE, LOCAL)] is first


def test_a_mobile_router_s_translation_is_found_by_the_source_alone() -> None:
    table = TranslationTable()
    one = translation(local=(prefix_of(LOCAL, 120),), length=120)
    table.set(one)
    assert table.routed == {to_packed(MOBILE): one}
    assert not table.inward
    table.clear(PEER)
    assert not table.routed


def test_only_elements_that_differ_are_named() -> None:
    maps = KernelMaps(rules.IPV4)
    table = rules.IPV4.number, rules.TABLE
    here, there = key(LOCAL, MOBILE), key(LOCAL_2, MOBILE)
    first = {"out": {to_packed(PEER): here, to_packed(HOME): here}}
    assert maps.changes(first) == put(*table, "out", {to_packed(PEER): here, to_packed(HOME): here})
    maps.done(first)
    assert maps.changes(first) == []
    second = {"out": {to_packed(PEER): there, to_packed(HOME): here}}
    replaced = delete(*table, "out", [to_packed(PEER)]) + put(
        *table, "out", {to_packed(PEER): there}
    )
    assert maps.changes(second) == replaced
    maps.done(second)
    gone = {"out": {to_packed(PEER): None, to_packed(MOBILE): None}}
    assert maps.changes(gone) == delete(*table, "out", [to_packed(PEER)])
    maps.done(gone)
    assert maps.elements["out"] == {to_packed(HOME): here}


def test_a_set_has_the_members_that_it_is_to_have_only() -> None:
    maps = KernelMaps(rules.IPV4)
    table = rules.IPV4.number, rules.TABLE
    maps.done({"mobiles": maps.members("mobiles", [to_packed(LOCAL), to_packed(MOBILE)])})
    changes = maps.changes({"mobiles": maps.members("mobiles", [to_packed(MOBILE)])})
    assert changes == delete(*table, "mobiles", [to_packed(LOCAL)])
