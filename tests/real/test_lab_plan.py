"""What a lab consists of, and which addresses it has."""

from dataclasses import replace
from pathlib import Path

import pytest

from mat.address import parse_address
from mat_files.distributions import Constant, Uniform
from mat_files.scenario import load_scenario
from mat_real.ims.config import Configuration as ImsConfiguration
from mat_real.lab import LabError, Plan, Quality, plan_of, simple_plan
from mat_real.lab.layout import Layout, names, uplinks
from mat_real.lab.services import Dataplane, dnsmasq, ims_config, node_config, reverse_zone
from mat_real.node.config import Configuration as NodeConfiguration

SCENARIOS = Path(__file__).parents[2] / "sim" / "scenarios"
SMALL = """
format = 1
[scenario]
name = "small"
[movement]
events = "moves.csv"
[[network]]
name = "A"
pool = "10.64.0.0/24"
[[network]]
name = "B"
"""
MOVES = "t,node,action,network,interface,moa\n0,m1,attach,A,0,\n5,m1,attach,B,1,10.192.3.4\n"


def plan_from(
    folder: Path, more: str = "", *, events: str = MOVES, rates: dict[str, float] | None = None
) -> Plan:
    (folder / "moves.csv").write_text(events)
    (folder / "small.toml").write_text(SMALL + more)
    return plan_of(load_scenario(folder / "small.toml"), rates=rates)


def test_addresses_follow_from_the_order_of_names() -> None:
    plan = simple_plan(["north", "south"], mobile=["m1", "m2"])
    assert str(plan.network("south").pool.ipv4) == "10.129.0.0/16"
    assert str(plan.network("south").pool.ipv6) == "2001:db8:8000:1::/64"
    assert list(map(str, plan.network("south").gateway)) == ["10.129.0.1", "2001:db8:8000:1::1"]
    assert list(map(str, plan.node("m2").home or ())) == ["10.1.0.2", "2001:db8:1::2"]
    assert list(map(str, plan.node("CN").home or ())) == ["10.2.0.1", "2001:db8:2::1"]
    assert list(map(str, plan.node("CN").site or ())) == ["172.16.1.0/24", "2001:db8:7f10:1::/64"]
    assert plan.node("PLAIN").home is None
    assert list(map(str, plan.node("PLAIN").site or ())) == [
        "172.16.2.0/24",
        "2001:db8:7f10:2::/64",
    ]
    assert [str(ims.address.ipv4) for ims in plan.ims] == ["192.0.2.1", "192.0.2.2"]
    assert list(map(str, plan.dns.address)) == ["192.0.2.53", "2001:db8:7f00:2::53"]
    moa = plan.moa("m2", "south", 1)
    assert list(map(str, moa)) == ["10.129.0.19", "2001:db8:8000:1:0:ff:fe01:201"]


def test_the_prefixes_links_and_servers_of_a_scenario_count() -> None:
    plan = plan_of(load_scenario(SCENARIOS / "first.toml"), rates={"B": 2e6})
    assert [network.quality.delay for network in plan.networks] == [
        Constant(0.005),
        Constant(0.01),
        Uniform(0.01, 0.03),
    ]
    assert [network.quality.rate for network in plan.networks] == [None, 2e6, None]
    assert [str(network.pool.ipv4) for network in plan.networks] == [
        "10.128.0.0/11",
        "10.160.0.0/11",
        "10.192.0.0/11",
    ]
    assert [node.name for node in plan.nodes] == ["m1", "CN1", "PLAIN"]
    assert list(map(str, plan.ims[1].zones)) == ["10.32.0.0/11", "2001:db8:2::/48"]
    home = plan.node("CN1").home
    assert home is not None
    assert plan.served_by(home.ipv4).name == plan.served_by(home.ipv6).name == "IMS_CN"


def test_rates_and_queues_of_a_scenario_count(tmp_path: Path) -> None:
    more = "rate = 2e6\nqueue = 9\n[correspondents]\nrate = 3e6\n[[ims]]\nname = 'I'\nrate = 1e6\n"
    plan = plan_from(tmp_path, more + "link_queue = 7")
    fast = Quality(Constant(0.005))
    assert [one.quality for one in plan.networks] == [fast, replace(fast, rate=2e6, queue=9)]
    assert plan.node("CN1").quality == replace(fast, rate=3e6, queue=100)
    assert plan.ims[0].quality == replace(fast, rate=1e6, queue=7)
    assert plan_from(tmp_path, rates={"B": 4e6}).networks[1].quality == replace(fast, rate=4e6)


BY_DHCP = "".join(f'[[network]]\nname = "{name}"\n[network.dhcp]\n{{options}}\n' for name in "XY")


def by_dhcp(folder: Path, options: str = "", more: str = "") -> Plan:
    (folder / "moves.csv").write_text("t,node,action,network\n0,m1,attach,X\n5,m1,attach,Y\n")
    text = SMALL[: SMALL.index("[[network]]")] + BY_DHCP.format(options=options) + more
    (folder / "small.toml").write_text(text)
    return plan_of(load_scenario(folder / "small.toml"))


def test_a_scenarios_dhcp_servers_are_the_labs(tmp_path: Path) -> None:
    plan = by_dhcp(tmp_path)
    lines = dnsmasq(plan, plan.network("X"), tmp_path).splitlines()
    assert "dhcp-authoritative" in lines
    assert "dhcp-rapid-commit" not in lines
    plan = by_dhcp(tmp_path, "authoritative = false\nrapid_commit = true")
    lines = dnsmasq(plan, plan.network("Y"), tmp_path).splitlines()
    assert "dhcp-authoritative" not in lines
    assert "dhcp-rapid-commit" in lines


@pytest.mark.parametrize(
    ("options", "more", "problem"),
    [
        ("delay = 0.02", "", "X: dhcp.delay = 0.02, its servers are on the link: set it to 0"),
        ("loss = 0.1", "", "Y: dhcp.loss = 0.1, nothing is lost on its links to nodes"),
        ("probe = 1.0", "", "X: dhcp.probe, its servers do not: leave it out"),
        ("", '[[network]]\nname = "Z"\n', "networks with dhcp beside some without"),
    ],
)
def test_what_the_labs_dhcp_servers_do_not_is_refused(
    tmp_path: Path, options: str, more: str, problem: str
) -> None:
    with pytest.raises(LabError) as caught:
        by_dhcp(tmp_path, options, more)
    assert f"the lab cannot play {problem}" in str(caught.value)


def test_a_town_of_134_vehicles_can_be_planned() -> None:
    plan = plan_of(load_scenario(SCENARIOS / "town.toml"))
    assert len(plan.networks) == 9
    assert sum(node.mobile for node in plan.nodes) == 134
    assert len({moa for node in plan.nodes for moa in plan.moa(node.name, "A1")}) == 2 * 145


def test_mobile_addresses_that_a_scenario_prescribes_are_reserved(tmp_path: Path) -> None:
    plan = plan_from(tmp_path)
    assert str(plan.moa("m1", "B", 1).ipv4) == "10.192.3.4"
    assert str(plan.moa("m1", "A", 0).ipv4) == "10.64.0.16"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("lease = 100", "network B: lease is 100 s; the DHCP server gives none below 120 s"),
        ('[[ims]]\nname = "I"\nreplicas = 2', "IMS I has 2 replicas"),
        ('[[ims]]\nname = "I"\ncount = 4', "IMS I is 4 servers that share nodes"),
        ('pool = "192.0.2.0/24"', "192.0.2.0/24 .* overlap"),
        (
            "[correspondents]\ncount = 2\nrate = 1e6",
            "correspondents.rate, which they share",
        ),
        ("[correspondents]\ncount = 300", "300 nodes|301 nodes"),
        ('pool = "10.65.0.0/28"', "network B: 10.65.0.0/28 is too small"),
        ('[[network]]\nname = "core"', "'core' is the name of two things"),
    ],
)
def test_what_a_lab_cannot_do_is_said(tmp_path: Path, more: str, complaint: str) -> None:
    with pytest.raises(LabError, match=complaint):
        plan_from(tmp_path, more)


def test_a_rate_for_no_network_and_two_moas_for_one_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="Z, which is no access network"):
        plan_from(tmp_path, rates={"Z": 1e6})
    moves = "t,node,action,network,moa\n0,m1,attach,A,10.64.0.9\n1,m1,detach,A,\n"
    with pytest.raises(LabError, match=r"m1 gets 10\.64\.0\.9 on A, and later 10\.64\.0\.8"):
        plan_from(tmp_path, events=moves + "2,m1,attach,A,10.64.0.8\n")


def test_names_that_are_taken_or_unknown_are_refused() -> None:
    with pytest.raises(LabError, match="'A' is the name of two things"):
        simple_plan(["A", "B"], mobile=["A"])
    with pytest.raises(LabError, match="'D' is no access network of this lab; there are: A, B, C"):
        simple_plan().network("D")


def test_servers_and_nodes_read_the_configurations_that_are_written_for_them(
    tmp_path: Path,
) -> None:
    plan = simple_plan()
    path = tmp_path / "some.toml"
    path.write_text(ims_config(plan, plan.ims[0], tmp_path / "ims.sock"))
    ims = ImsConfiguration(path).config
    assert ims.ims.zones[1] == (parse_address("2001:db8:1::"), 48)
    assert ims.dns.servers == (("192.0.2.53", 53), ("2001:db8:7f00:2::53", 53))
    path.write_text(node_config(plan, plan.node("MN"), tmp_path / "node.sock", dhcp=True))
    assert NodeConfiguration(path).config.node.dhcp == ("eth0", "eth1")
    path.write_text(node_config(plan, plan.node("CN"), tmp_path / "node.sock", dhcp=True))
    assert NodeConfiguration(path).config.node.dhcp == ()


def test_reverse_zones_are_whole_labels() -> None:
    plan = plan_of(load_scenario(SCENARIOS / "first.toml"))
    zones = [reverse_zone(zone) for zone in plan.ims[0].zones]
    assert zones == ["10.in-addr.arpa", "1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"]
    assert reverse_zone(simple_plan().ims[1].zones[0]) == "2.10.in-addr.arpa"


def test_a_link_that_a_process_impairs_is_two_pairs_that_meet_in_the_air() -> None:
    plan = simple_plan()
    full = {name: f"lab-{name}" for name in names(plan)}
    plain = dict(Layout(plan, full, ()).batches())
    wired = Layout(plan, full, {"B"}).batches()
    (_, core), (_, air), *_ = wired
    here, there = "B address 02:00:00:10:00:01", "core address 02:00:00:11:00:01"
    assert f"link add name {here} type veth peer name {there} netns lab-B" not in core
    assert f"link add name {here} type veth peer name wire1.core netns lab-air" in core
    assert f"link add name wire1.out type veth peer name {there} netns lab-B" in air
    assert not any("wire" in line for line in plain["air"])
    assert [link.name for link in uplinks(plan)][:4] == ["A", "B", "C", "IMS_MN"]


@pytest.mark.parametrize("dataplane", ["maps", "queue"])
def test_a_node_has_the_kernel_translate_or_does_so_itself(
    tmp_path: Path, dataplane: Dataplane
) -> None:
    plan, path = simple_plan(), tmp_path / "node.toml"
    control = tmp_path / "node.sock"
    path.write_text(node_config(plan, plan.node("MN"), control, dhcp=False, dataplane=dataplane))
    assert NodeConfiguration(path).config.node.dataplane == dataplane
