"""IPv6 addresses that are used before the kernel knows that nobody else has them (RFC 4429)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until
from tests.real.node_world import HOMES, World, address, world
from tests.real.privilege import needs_root

pytestmark = needs_root

CN = HOMES["cn"][1]
A, B = address("a", 2, ipv6=True), address("b", 2, ipv6=True)
PORT = 8080


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    """MN in network a; on its other uplink, what begins to be checked is checked for ever."""
    with world(tmp_path) as made:
        made.attach("mn", "w0", "a", 2)
        wait_until(lambda: not made.run("mn", "ip", "-6", "addr", "show", "tentative"))
        setting(made, "dad_transmits", 1000)
        for host in ("mn", "cn"):
            made.start_node(host)
        made.listen("cn", PORT, "::")
        yield made


def setting(made: World, name: str, value: int) -> None:
    made.run("mn", "sysctl", "-qw", f"net.ipv6.conf.w1.{name}={value}")


def be_optimistic(made: World) -> None:
    setting(made, "optimistic_dad", 1)
    setting(made, "use_optimistic", 1)


def add(made: World, *flags: str, metric: int = 50) -> None:
    """Network b by hand, in IPv6."""
    made.ip(
        "mn",
        f"addr add {B}/64 dev w1 {' '.join(flags)}",
        f"route add default via {address('b', 1, ipv6=True)} dev w1 metric {metric}",
    )


def unproven(made: World) -> str:
    """What the kernel has found out nothing of yet."""
    return made.run("mn", "ip", "-6", "addr", "show", "dev", "w1", "scope", "global", "tentative")


def registered(made: World) -> list[str]:
    return made.registered("mn")[1]


def test_an_optimistic_address_is_registered_while_it_is_being_checked(two: World) -> None:
    be_optimistic(two)
    with two.talk("mn", CN, PORT) as kept:
        two.ip("mn", f"addr del {A}/64 dev w0")
        wait_until(lambda: registered(two) == [])
        add(two, "optimistic")
        wait_until(lambda: registered(two) == [B])
        assert kept.goes_on()
        assert "optimistic" in unproven(two)


def test_an_address_by_router_advertisement_is_too(two: World) -> None:
    be_optimistic(two)
    with two.talk("mn", CN, PORT) as kept:
        two.ip("mn", f"addr del {A}/64 dev w0")
        wait_until(lambda: registered(two) == [])
        log = two.folder / "dnsmasq.log"
        options = ["--port=0", "--user=root", "--bind-interfaces", "--interface=rb", "--enable-ra"]
        options += ["--conf-file=/dev/null", f"--pid-file={two.folder}/pid", "--ra-param=rb,4,60"]
        options += [f"--log-facility={log}", f"--dhcp-leasefile={two.folder}/leases"]
        options += ["--dhcp-range=fd00:2::,ra-only,10m"]
        two.start("r", "dnsmasq", "--keep-in-foreground", *options)
        wait_until(lambda: registered(two) != [])
        (given,) = registered(two)
        assert given.startswith("fd00:2::")
        assert kept.goes_on()
        assert f"{given}/64" in unproven(two)


def test_without_the_setting_an_address_waits_until_it_is_checked(two: World) -> None:
    add(two)
    # Another of the same uplink, given without a check, counts at once.
    two.attach("mn", "w1", "b", 7, metric=50)
    wait_until(lambda: address("b", 7, ipv6=True) in registered(two))
    assert B not in registered(two)
    assert B in unproven(two)


def test_an_optimistic_address_comes_after_one_that_is_checked(two: World) -> None:
    be_optimistic(two)
    add(two, "optimistic", metric=50)
    wait_until(lambda: registered(two) == [A, B])
    two.ip("mn", f"addr del {B}/64 dev w1", f"addr add {B}/64 dev w1 nodad")
    wait_until(lambda: registered(two) == [B, A])


def test_an_optimistic_address_that_is_another_hosts_is_left(two: World) -> None:
    be_optimistic(two)
    with two.talk("mn", CN, PORT) as kept:
        two.ip("mn", f"addr del {A}/64 dev w0")
        add(two, "optimistic")
        wait_until(lambda: registered(two) == [B])
        assert kept.goes_on()
        # The other host begins to check it as well, so neither may have it.
        two.run("r", "ip", "addr", "add", f"{B}/64", "dev", "rb")
        wait_until(lambda: "dadfailed" in unproven(two))
        wait_until(lambda: two.status("mn")["homes"][1]["addresses"] == [])
        two.ip("mn", f"addr add {A}/64 dev w0 nodad")
        wait_until(lambda: registered(two) == [A])
        assert kept.goes_on()
