"""The dataplane over real packets, in both modes: two hosts and a router in namespaces."""

import errno
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress

import pytest

from mat.address import format_address, parse_address
from mat.effects import Translation
from mat.messages import MAT_PORT
from mat.translation import MUO_SIZE, Refusal
from mat_real.dataplane import QUEUE, DataplaneError, Mode
from tests.real.privilege import needs_root
from tests.real.two_hosts import (
    HOST,
    IPV4,
    IPV6,
    LIMIT,
    Host,
    Net,
    Plan,
    Plane,
    Wire,
    set_offload,
    two_hosts,
    until,
)

pytest.importorskip("nftables", reason="the dataplane needs pip-nftables")
pytestmark = needs_root

DGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM
PORT = 7777
_NO_CHECK = 11
_FORCE_SEND_BUFFER = 32
_IP_MTU, _IPV6_MTU = 14, 24


@pytest.fixture(params=[IPV4, IPV6], ids=["ipv4", "ipv6"], scope="module")
def namespaces(request: pytest.FixtureRequest) -> Generator[Net]:
    with two_hosts(request.param) as net:
        yield net


@pytest.fixture
def net(namespaces: Net) -> Generator[Net]:
    yield namespaces
    namespaces.clean()


@pytest.fixture(params=list(Mode), ids=[mode.value for mode in Mode])
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


def only(plan: Plan, net: Net) -> None:
    if net.plan is not plan:
        pytest.skip(f"of IPv{plan.version}")


def echo(client: socket.socket, server: socket.socket, data: bytes = b"there and back") -> None:
    """One datagram to a server and back, as its own program would."""
    client.sendto(data, server.getsockname()[:2])
    received, source = server.recvfrom(1 << 17)
    assert received == data
    assert source[:2] == client.getsockname()[:2]
    server.sendto(data[::-1], source)
    received, source = client.recvfrom(1 << 17)
    assert received == data[::-1]
    assert source[:2] == server.getsockname()[:2]


def transfer(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Bytes of a stream, from one end to the other; fails when it stands still."""
    data = bytes(range(256)) * (size // 256)
    sent, received = 0, bytearray()
    sender.setblocking(False)
    receiver.setblocking(False)
    try:
        while len(received) < len(data):
            writing = [sender] if sent < len(data) else []
            readable, writable, _ = select.select([receiver], writing, [], LIMIT)
            assert readable or writable, "the stream stands still"
            if writable:
                sent += sender.send(data[sent : sent + 65536])
            if readable:
                received += receiver.recv(65536)
    finally:
        sender.settimeout(LIMIT)
        receiver.settimeout(LIMIT)
    assert received == data


def connected(client: socket.socket, listener: socket.socket) -> socket.socket:
    """The server's end of a connection that the client makes."""
    client.connect(listener.getsockname()[:2])
    accepted, source = listener.accept()
    assert source[:2] == client.getsockname()[:2]
    return accepted


def ping(host: Host, destination: str, source: str) -> None:
    host.node.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-I", source, destination)


# ---- both directions ---------------------------------------------------------------------------


def test_datagrams_bear_home_addresses_above_and_mobile_ones_on_the_wire(
    net: Net, mode: Mode
) -> None:
    net.planes_know(mode)
    with Wire(net.router, "to-a") as wire:
        echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT))
        out, back = wire.packets(2)
    for packet in (out, back):
        assert packet.checksums_are_right
    assert (out.source, out.destination) == (net.a.mobiles[0], net.b.mobiles[0])
    assert (back.source, back.destination) == (net.b.mobiles[0], net.a.mobiles[0])


@pytest.mark.parametrize("offload", [False, True], ids=["sums complete", "sums left to hardware"])
def test_a_stream_goes_both_ways(net: Net, mode: Mode, offload: bool) -> None:
    for host in (net.a, net.b):
        set_offload(host.node, "eth0", on=offload)
    net.planes_know(mode)
    client, listener = net.a.bound(STREAM), net.b.listen()
    with connected(client, listener) as server, Wire(net.router, "to-a") as wire:
        transfer(client, server, 400_000)
        transfer(server, client, 400_000)
        seen = wire.packets(10)
    assert {packet.source for packet in seen} == {net.a.mobiles[0], net.b.mobiles[0]}
    assert offload or all(packet.checksums_are_right for packet in seen)


def test_a_ping_comes_back(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    with Wire(net.router, "to-b") as wire:
        ping(net.a, net.b.home, net.a.home)
        request, reply, *_ = wire.packets(2)
    assert request.checksums_are_right
    assert reply.checksums_are_right
    assert (request.source, request.destination) == (net.a.mobiles[0], net.b.mobiles[0])


def test_a_datagram_without_checksum_goes_without(net: Net, mode: Mode) -> None:
    only(IPV4, net)
    net.planes_know(mode)
    client = net.a.bound(DGRAM)
    client.setsockopt(socket.SOL_SOCKET, _NO_CHECK, 1)
    with Wire(net.router, "to-a") as wire:
        echo(client, net.b.bound(DGRAM, port=PORT))
        out, back = wire.packets(2)
    assert out.data[26:28] == bytes(2)
    assert back.data[26:28] != bytes(2)
    assert back.checksums_are_right


@pytest.mark.parametrize("size", [1600, 9000, 65_000])
def test_datagrams_longer_than_the_mtu_arrive_whole(net: Net, mode: Mode, size: int) -> None:
    net.planes_know(mode)
    with Wire(net.router, "to-a") as wire:
        echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT), b"fragment" * (size // 8))
        seen = wire.packets(4)
    assert all(len(packet.data) <= 1500 for packet in seen)
    assert {packet.source for packet in seen} == {net.a.mobiles[0], net.b.mobiles[0]}


# ---- misses ------------------------------------------------------------------------------------


def test_a_packet_to_an_unknown_peer_waits_and_leaves_translated(net: Net, mode: Mode) -> None:
    plane = net.plane(net.a, mode)
    other = net.plane(net.b, mode)
    other.set(net.translation(net.b))
    other.commit()
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    with Wire(net.router, "to-a") as wire:
        client.sendto(b"held", server.getsockname()[:2])
        (event,) = plane.events(1)
        assert event == ("out", parse_address(net.a.home), parse_address(net.b.home), None)
        assert plane.counters().waiting == 1
        assert not wire.seen()
        plane.release(0, net.translation(net.a))
        assert server.recvfrom(100) == (b"held", client.getsockname())
        (packet,) = wire.packets(1)
    assert packet.checksums_are_right
    counters = plane.counters()
    assert (counters.held, counters.waiting, counters.translated) == (1, 0, 1)


def test_a_packet_from_an_unknown_source_waits_and_arrives_translated(net: Net, mode: Mode) -> None:
    plane = net.plane(net.b, mode)
    other = net.plane(net.a, mode)
    other.set(net.translation(net.a))
    other.commit()
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    client.sendto(b"held", server.getsockname()[:2])
    (event,) = plane.events(1)
    mobiles = parse_address(net.a.mobiles[0]), parse_address(net.b.mobiles[0])
    assert event == ("in", *mobiles, None)
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.recv(100)
    server.settimeout(LIMIT)
    plane.release(0, net.translation(net.b))
    assert server.recvfrom(100) == (b"held", client.getsockname())


def test_a_dropped_packet_is_gone_and_those_behind_it_are_not(net: Net, mode: Mode) -> None:
    plane = net.plane(net.a, mode)
    other = net.plane(net.b, mode)
    other.set(net.translation(net.b))
    other.commit()
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    for data in (b"first", b"second"):
        client.sendto(data, server.getsockname()[:2])
    plane.events(2)
    plane.drop(0)
    plane.release(1, net.translation(net.a))
    assert server.recv(100) == b"second"
    assert plane.counters().dropped == 1


def test_a_held_datagram_longer_than_the_mtu_is_released_whole(net: Net, mode: Mode) -> None:
    plane = net.plane(net.a, mode)
    other = net.plane(net.b, mode)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    client.sendto(b"fragment" * 1000, server.getsockname()[:2])
    plane.events(1)
    plane.release(0, net.translation(net.a))
    other.events(1)
    other.release(0, net.translation(net.b))
    assert server.recvfrom(10_000) == (b"fragment" * 1000, client.getsockname())


def test_a_cleared_peer_is_unknown_again(net: Net, mode: Mode) -> None:
    plane, _ = net.planes_know(mode)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    echo(client, server)
    plane.clear(net.b.home)
    plane.commit()
    client.sendto(b"who?", server.getsockname()[:2])
    assert [kind for kind, *_ in plane.events(1)] == ["out"]


# ---- flows of others ---------------------------------------------------------------------------


def test_a_flow_on_mobile_addresses_and_one_on_home_addresses_do_not_meet(
    net: Net, mode: Mode
) -> None:
    net.planes_know(mode)
    own_port = 40_000
    listener = net.b.listen(port=PORT)
    mobile_listener = net.b.listen(net.b.mobiles[0], PORT + 1)
    mobile = net.a.bound(STREAM, net.a.mobiles[0], own_port)
    home = net.a.bound(STREAM, port=own_port + 1)
    with connected(mobile, mobile_listener) as mobile_server, connected(home, listener) as server:
        for sender, receiver in (
            (mobile, mobile_server),
            (home, server),
            (mobile_server, mobile),
            (server, home),
        ):
            transfer(sender, receiver, 100_000)


def test_fragments_of_a_flow_on_mobile_addresses_are_left_alone(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    client = net.a.bound(DGRAM, net.a.mobiles[0])
    server = net.b.bound(DGRAM, net.b.mobiles[0], PORT + 1)
    echo(client, server, b"fragment" * 1000)
    echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT), b"fragment" * 1000)


def test_a_ping_from_a_mobile_address_comes_back_to_it(net: Net, mode: Mode) -> None:
    net.plane(net.a, mode).set(net.translation(net.a))
    ping(net.a, net.b.mobiles[0], net.a.mobiles[0])


def test_packets_of_a_host_without_mat_bear_its_one_address(net: Net, mode: Mode) -> None:
    plane = net.plane(net.a, mode)
    address = parse_address(net.b.mobiles[0])
    local = parse_address(net.a.mobiles[0])
    home = parse_address(net.a.home)
    plane.set(Translation(address, address, (address,), home, HOST, local, (local,)))
    plane.commit()
    client = net.a.bound(DGRAM, port=PORT + 1)
    server = net.b.bound(DGRAM, net.b.mobiles[0], PORT)
    client.sendto(b"to it", server.getsockname()[:2])
    data, source = server.recvfrom(100)
    assert (data, source[:2]) == (b"to it", (net.a.mobiles[0], PORT + 1))
    server.sendto(b"from it", source)
    assert client.recvfrom(100) == (b"from it", server.getsockname())
    stranger = net.b.bound(DGRAM, net.b.mobiles[0], PORT + 2)
    stranger.sendto(b"unasked", source)
    assert client.recvfrom(100) == (b"unasked", stranger.getsockname())


def test_at_home_the_own_address_is_both(net: Net, mode: Mode) -> None:
    """The first host's home address is its mobile one: only the peer's is exchanged."""
    at_home = net.a.mobiles[0]
    plane = net.plane(net.a, mode)
    plane.own(at_home, HOST, (at_home,))
    home, mobile = parse_address(net.b.home), parse_address(net.b.mobiles[0])
    own = parse_address(at_home)
    plane.set(Translation(home, mobile, (mobile,), own, HOST, own, (own,)))
    plane.commit()
    other = net.plane(net.b, mode)
    other.set(Translation(own, own, (own,), home, HOST, mobile, (mobile,)))
    other.commit()
    client = net.a.bound(DGRAM, at_home)
    echo(client, net.b.bound(DGRAM, port=PORT))
    stream = net.a.bound(STREAM, at_home)
    with connected(stream, net.b.listen()) as server:
        transfer(stream, server, 10_000)


def test_at_home_the_node_itself_speaks_to_mapping_servers(net: Net, mode: Mode) -> None:
    at_home = net.a.mobiles[0]
    plane = net.plane(net.a, mode)
    plane.own(at_home, HOST, (at_home,))
    plane.commit()
    mapping_server = net.b.bound(DGRAM, net.b.mobiles[0], PORT)
    echo(net.a.bound(DGRAM, at_home, MAT_PORT), mapping_server)
    assert plane.events(0) == []
    net.a.bound(DGRAM, at_home).sendto(b"any other", (net.b.mobiles[0], PORT))
    assert len(plane.events(1)) == 1


# ---- ICMP errors -------------------------------------------------------------------------------


def test_an_application_learns_that_nobody_listens(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    client = net.a.bound(DGRAM)
    client.connect((net.b.home, PORT + 9))
    with Wire(net.router, "to-b") as wire:
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        _, error = wire.packets(2)
    assert (error.source, error.destination) == (net.b.mobiles[0], net.a.mobiles[0])
    assert error.checksums_are_right
    assert error.quoted == (net.a.mobiles[0], net.b.mobiles[0])


def test_an_application_on_a_mobile_address_learns_it_too(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    client = net.a.bound(DGRAM, net.a.mobiles[0])
    client.connect((net.b.mobiles[0], PORT + 9))
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def path_mtu(sock: socket.socket, plan: Plan) -> int:
    if plan.version == 4:
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)


def insist(sock: socket.socket, plan: Plan) -> None:
    """Have the socket's packets go whole or not at all: IP_PMTUDISC_DO."""
    if plan.version == 4:
        sock.setsockopt(socket.IPPROTO_IP, 10, 2)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, 23, 2)


def test_path_mtu_discovery_reaches_the_application(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    net.narrow(1300)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    insist(client, net.plan)
    client.connect(server.getsockname()[:2])
    client.send(bytes(1400))
    until(lambda: path_mtu(client, net.plan) == 1300)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
    with pytest.raises(OSError, match="too long"):
        client.send(bytes(1400))
    client.send(bytes(1200))
    assert len(server.recv(2000)) == 1200


def test_a_stream_finds_its_way_through_a_narrow_path(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    net.narrow(1300)
    client, listener = net.a.bound(STREAM), net.b.listen()
    with connected(client, listener) as server:
        transfer(client, server, 200_000)


def test_long_datagrams_find_their_way_through_a_narrow_path(net: Net, mode: Mode) -> None:
    net.planes_know(mode)
    net.narrow(1300)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    client.connect(server.getsockname()[:2])
    server.settimeout(0.2)

    def arrives() -> bool:
        with suppress(TimeoutError, OSError):
            client.send(b"fragment" * 1000)
            return len(server.recv(10_000)) == 8000
        return False

    until(arrives)


# ---- moving ------------------------------------------------------------------------------------


def move(net: Net, planes: tuple[Plane, Plane], own: int, peer: int) -> None:
    """Both hosts use another of their networks from now on."""
    for host, plane, here, there in (
        (net.a, planes[0], own, peer),
        (net.b, planes[1], peer, own),
    ):
        plane.own(host.home, HOST, (host.mobiles[here],))
        plane.set(net.translation(host, here, there))
        plane.commit()


def test_a_stream_goes_on_while_both_ends_move(net: Net, mode: Mode) -> None:
    planes = net.planes_know(mode)
    client, listener = net.a.bound(STREAM), net.b.listen()
    with connected(client, listener) as server, Wire(net.router, "to-a") as wire:
        for own, peer in ((0, 0), (1, 0), (1, 1), (0, 1)):
            move(net, planes, own, peer)
            transfer(client, server, 50_000)
            transfer(server, client, 50_000)
        seen = {(packet.source, packet.destination) for packet in wire.packets(40)}
    pairs = {(net.a.mobiles[own], net.b.mobiles[peer]) for own in (0, 1) for peer in (0, 1)}
    assert seen == pairs | {(there, here) for here, there in pairs}


def test_what_is_set_takes_effect_with_commit_only(net: Net, mode: Mode) -> None:
    if mode is Mode.QUEUE:
        pytest.skip("of the kernel's maps")
    plane, _ = net.planes_know(mode)
    before = net.a.node.run("nft", "list", "table", net.nft, "mat")
    plane.own(net.a.home, HOST, (net.a.mobiles[1],))
    plane.set(net.translation(net.a, 1, 1))
    assert net.a.node.run("nft", "list", "table", net.nft, "mat") == before
    plane.commit()
    after = net.a.node.run("nft", "list", "table", net.nft, "mat")
    assert net.a.mobiles[0] not in after
    assert net.a.mobiles[1] in after


def test_a_move_is_one_transaction(net: Net) -> None:
    """nft monitor prints the number of each; a reader sees all of a move, or nothing."""
    planes = net.planes_know(Mode.MAPS)
    monitor = net.a.node.popen(
        ["nft", "monitor"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        until(lambda: net.listens_to_netlink(monitor.pid))
        move(net, planes, 1, 1)
        net.a.node.run("nft", "add", "table", "ip", "end-of-test")
        assert monitor.stdout is not None
        lines: list[str] = []
        while "end-of-test" not in (line := monitor.stdout.readline()):
            lines.append(line)
    finally:
        monitor.kill()
        monitor.communicate()
        net.a.node.run("nft", "delete", "table", "ip", "end-of-test")
    assert sum("new generation" in line for line in lines) == 1
    assert any(net.b.mobiles[1] in line for line in lines)


def test_connection_tracking_sees_one_flow_between_home_addresses(net: Net, mode: Mode) -> None:
    family = net.nft
    net.a.node.run("nft", f"add table {family} user")
    net.a.node.run("nft", f"add chain {family} user in {{ type filter hook input priority 0; }}")
    net.a.node.run("nft", f"add rule {family} user in ct state invalid drop")
    planes = net.planes_know(mode)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    for own, peer in ((0, 0), (1, 1), (0, 1)):
        move(net, planes, own, peer)
        echo(client, server)
    listed = net.a.node.run("conntrack", "-L", "-f", f"ipv{net.plan.version}", "-p", "udp")
    port = f"sport={client.getsockname()[1]} "
    (flow,) = [line for line in listed.splitlines() if port in line]
    assert "UNREPLIED" not in flow
    assert flow.count(f"src={net.a.home} ") == flow.count(f"dst={net.a.home} ") == 1
    assert flow.count(f"src={net.b.home} ") == flow.count(f"dst={net.b.home} ") == 1


# ---- the Mapping Update Option -----------------------------------------------------------------


def test_an_announcement_names_the_sender_and_does_not_reach_the_application(
    net: Net, mode: Mode
) -> None:
    only(IPV6, net)
    net.b.node.run("nft", "add table ip6 user")
    net.b.node.run("nft", "add chain ip6 user in { type filter hook input priority 0; }")
    net.b.node.run("nft", "add rule ip6 user in exthdr dst exists counter")
    plane, other = net.plane(net.a, mode), net.plane(net.b, mode)
    plane.set(net.translation(net.a, announce=True))
    plane.commit()
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    with Wire(net.router, "to-a") as wire:
        client.sendto(b"it is me", server.getsockname()[:2])
        ((kind, *addresses),) = other.events(1)
        (packet,) = wire.packets(1)
    assert len(packet.data) == 40 + MUO_SIZE + 8 + 8
    mobiles = parse_address(net.a.mobiles[0]), parse_address(net.b.mobiles[0])
    assert (kind, *addresses) == ("in", *mobiles, parse_address(net.a.home))
    other.release(0, net.translation(net.b))
    assert server.recvfrom(100) == (b"it is me", client.getsockname())
    other.set(net.translation(net.b))
    other.commit()
    client.sendto(b"still me", server.getsockname()[:2])
    assert server.recvfrom(100) == (b"still me", client.getsockname())
    assert len(other.events(0)) == 1
    assert counted(net.b, "ip6") == ["0"]


def test_a_packet_that_has_no_room_for_an_announcement_goes_without(net: Net, mode: Mode) -> None:
    only(IPV6, net)
    plane, other = net.planes_know(mode)
    plane.set(net.translation(net.a, announce=True))
    plane.set_mtu(1400)
    plane.commit()
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    room = 1400 - MUO_SIZE - 48
    with Wire(net.router, "to-a") as wire:
        for size in (room, room + 1):
            client.sendto(bytes(size), server.getsockname()[:2])
            assert len(server.recv(2000)) == size
        sizes = [len(packet.data) for packet in wire.packets(2)]
    assert sizes == [1400, 48 + room + 1]
    assert not other.events(0)


# ---- mobile routers ----------------------------------------------------------------------------


def test_hosts_behind_a_mobile_router_keep_their_home_addresses(net: Net, mode: Mode) -> None:
    plan = net.plan
    with net.network_behind() as behind:
        plane, other = net.plane(net.a, mode), net.plane(net.b, mode)
        prefix, mobile_prefix = plan.prefix_behind()
        plane.own(format_address(prefix), plan.mapped_length, (format_address(mobile_prefix),))
        b_home, b_mobile = parse_address(net.b.home), parse_address(net.b.mobiles[0])
        routed = Translation(
            b_home,
            b_mobile,
            (b_mobile,),
            prefix,
            plan.mapped_length,
            mobile_prefix,
            (mobile_prefix,),
        )
        plane.commit()
        home = parse_address(plan.behind.format(9))
        mobile = parse_address(plan.behind_mobile.format(9))
        other.set(Translation(home, mobile, (mobile,), b_home, HOST, b_mobile, (b_mobile,)))
        other.commit()
        client, server = behind.bound(DGRAM, plan.behind.format(9)), net.b.bound(DGRAM, port=PORT)
        client.sendto(b"held", server.getsockname()[:2])
        assert plane.events(1) == [("out", home, b_home, None)]
        plane.release(0, routed)
        assert server.recvfrom(100) == (b"held", client.getsockname())
        server.sendto(b"held too", client.getsockname())
        assert plane.events(2)[1] == ("in", b_mobile, mobile, None)
        plane.release(1, routed)
        assert client.recvfrom(100) == (b"held too", server.getsockname())
        plane.set(routed)
        plane.commit()
        with Wire(net.router, "to-a") as wire:
            echo(client, server)
            echo(client, server, b"fragment" * 1000)
            out, back, *_ = wire.packets(4)
        assert (out.source, out.destination) == (plan.behind_mobile.format(9), net.b.mobiles[0])
        assert (back.source, back.destination) == (net.b.mobiles[0], plan.behind_mobile.format(9))
        assert len(plane.events(0)) == 2
        client.connect((net.b.home, PORT + 9))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


# ---- what must go on ---------------------------------------------------------------------------


def counted(host: Host, family: str) -> list[str]:
    """Packets that the rules of the user's table have counted."""
    listed = host.node.run("nft", "list", "table", family, "user")
    return [
        line.split("packets ")[1].split()[0] for line in listed.splitlines() if "packets" in line
    ]


def test_without_the_daemon_ordinary_traffic_goes_on(net: Net, mode: Mode) -> None:
    plane = net.plane(net.b, mode)
    plane.kill()
    client = net.a.bound(STREAM, net.a.mobiles[0])
    listener = net.b.listen("0.0.0.0" if net.plan is IPV4 else "::", PORT)
    client.connect((net.b.mobiles[0], PORT))
    with listener.accept()[0] as server:
        transfer(client, server, 100_000)
        transfer(server, client, 100_000)


def test_without_the_daemon_nothing_for_a_peer_comes_to_this_host_itself(
    net: Net, mode: Mode
) -> None:
    """The default route leads to `lo`, in IPv6 as a local one: all addresses would be its own."""
    net.plane(net.b, mode).kill()
    to_all = net.b.bound(DGRAM, "0.0.0.0" if net.plan is IPV4 else "::", PORT)
    net.b.bound(DGRAM).sendto(b"for a peer", (net.a.home, PORT))
    to_all.settimeout(0.1)
    with pytest.raises(TimeoutError):
        to_all.recv(100)


def test_marks_survive_the_queue(net: Net) -> None:
    plane, other = net.plane(net.a, Mode.QUEUE), net.plane(net.b, Mode.QUEUE)
    for host, one in ((net.a, plane), (net.b, other)):
        one.set(net.translation(host))
        one.commit()
    net.a.node.run("nft", f"add table {net.nft} user")
    out = f"{net.nft} user out"
    net.a.node.run("nft", f"add chain {out} {{ type filter hook postrouting priority 0; }}")
    net.a.node.run("nft", f"add rule {out} meta mark 0x5 udp dport {PORT} counter")
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    client.setsockopt(socket.SOL_SOCKET, 36, 5)
    echo(client, server)
    assert counted(net.a, net.nft) == ["1"]


def test_a_full_queue_stops_nobody_else(net: Net, mode: Mode) -> None:
    plane = net.plane(net.a, mode)
    plane.process.send_signal(signal.SIGSTOP)
    try:
        flood = net.a.bound(DGRAM)
        flood.setsockopt(socket.SOL_SOCKET, _FORCE_SEND_BUFFER, 1 << 26)
        for _ in range(9000):
            flood.sendto(b"waits", (net.b.home, PORT))
        client = net.a.bound(DGRAM, net.a.mobiles[0])
        server = net.b.bound(DGRAM, net.b.mobiles[0], PORT)
        echo(client, server)
    finally:
        plane.process.send_signal(signal.SIGCONT)
    counters = plane.counters()
    until(lambda: plane.counters().held + plane.counters().overflowed == 9000)
    assert counters.overflowed > 0


def test_tables_of_others_are_as_before(net: Net, mode: Mode) -> None:
    run = net.a.node.run
    table = "ip" if net.plan is IPV4 else "ip6"
    program = f"{table}tables"
    with net.others_rules(net.a):
        save = ("sh", "-c", f"nft -s list ruleset; {program}-save | grep -v '^#'")
        before = run(*save)
        assert "DOCKER" in before
        plane, _ = net.planes_know(mode)
        echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT))
        during = run("nft", "list", "ruleset")
        assert f"table {table} mat" in during
        plane.close()
        assert run(*save) == before


def test_after_a_kill_the_kernel_goes_on_and_a_successor_finds_what_stands(net: Net) -> None:
    plane, _ = net.planes_know(Mode.MAPS)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    echo(client, server)
    plane.kill()
    echo(client, server)
    successor = Plane(net.a.node, Mode.MAPS)
    net.planes.append(successor)
    assert successor.standing() == [net.translation(net.a)]
    echo(client, server)
    tables = net.a.node.run("nft", "-a", "list", "tables")
    successor.own(net.a.home, HOST, net.a.mobiles[:1])
    successor.commit()
    # Anew, they would translate nothing for a moment.
    assert net.a.node.run("nft", "-a", "list", "tables") == tables
    echo(client, server)
    assert successor.used() == [parse_address(net.b.home)]
    successor.own(net.a.home, HOST, (net.a.mobiles[1],))
    successor.set(net.translation(net.a, 1, 0))
    successor.commit()
    assert successor.standing() == []
    net.planes[1].set(net.translation(net.b, 0, 1))
    net.planes[1].commit()
    echo(client, server)
    assert net.a.node.run("nft", "list", "ruleset").count(" hook ") == 2
    successor.close()
    left = net.a.node.run("nft", "list", "ruleset")
    assert "mat" not in left


def test_a_successor_that_closes_at_once_removes_everything(net: Net, mode: Mode) -> None:
    plane, _ = net.planes_know(mode)
    plane.kill()
    Plane(net.a.node, mode).close()
    left = net.a.node.run("nft", "list", "ruleset")
    assert "mat" not in left


def test_a_successor_of_the_other_mode_takes_the_maps_down(net: Net) -> None:
    plane, _ = net.planes_know(Mode.MAPS)
    plane.close(keep=True)
    successor = Plane(net.a.node, Mode.QUEUE)
    net.planes.append(successor)
    assert successor.standing() == []
    successor.own(net.a.home, HOST, net.a.mobiles[:1])
    successor.set(net.translation(net.a))
    successor.commit()
    assert net.b.mobiles[0] not in net.a.node.run("nft", "list", "table", net.nft, "mat")
    echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT))
    assert successor.counters().translated == 2


def test_peers_are_used_whose_packets_pass(net: Net, mode: Mode) -> None:
    plane, other = net.planes_know(mode)
    quiet = net.translation(net.a)
    quiet.home = parse_address("10.99.0.1" if net.plan is IPV4 else "fd99::1")
    quiet.mobile = parse_address("192.0.2.99" if net.plan is IPV4 else "2001:db8:99::1")
    quiet.accepted = (quiet.mobile,)
    plane.set(quiet)
    plane.commit()
    assert plane.used() == []
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    client.sendto(b"out", server.getsockname()[:2])
    server.recv(100)
    assert plane.used() == [parse_address(net.b.home)]
    assert other.used() == [parse_address(net.a.home)]
    assert plane.used() == other.used() == []


# ---- refusals and errors -----------------------------------------------------------------------


def test_what_cannot_be_translated_is_dropped_and_counted(net: Net, mode: Mode) -> None:
    plane, other = net.planes_know(mode)
    # Next header, length in words less two, reserved, index, sequence number, no check value.
    header = bytes((59, 1)) + bytes(10)
    raw = net.a.bound(socket.SOCK_RAW, protocol=51)
    raw.sendto(header, (net.b.home, 0))
    until(lambda: plane.counters().refused == {Refusal.AUTHENTICATION_HEADER: 1})
    out = net.a.bound(socket.SOCK_RAW, net.a.mobiles[0], protocol=51)
    out.sendto(header, (net.b.mobiles[0], 0))
    until(lambda: other.counters().refused == {Refusal.AUTHENTICATION_HEADER: 1})


def test_messages_of_a_link_pass_as_they_came(net: Net, mode: Mode) -> None:
    plane, _ = net.planes_know(mode)
    kind = 10 if net.plan is IPV4 else 133
    protocol = socket.IPPROTO_ICMP if net.plan is IPV4 else socket.IPPROTO_ICMPV6
    raw = net.a.bound(socket.SOCK_RAW, protocol=protocol)
    with Wire(net.router, "to-a") as wire:
        raw.sendto(bytes((kind, 0)) + bytes(6), (net.b.home, 0))
        echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT))
        assert len(wire.packets(2)) == 2
    counters = plane.counters()
    assert counters.translated + counters.mapped == 2
    # The rules leave them alone; one that comes to the queue all the same does not end there.
    icmp = "icmp" if net.plan is IPV4 else "icmpv6"
    rule = ("-A", "OUTPUT", "-p", icmp, f"--{icmp}-type", str(kind), "-j", "NFQUEUE")
    net.a.node.run(net.iptables, "-t", "mangle", *rule, "--queue-num", str(QUEUE))
    raw.sendto(bytes((kind, 0)) + bytes(6), (net.b.home, 0))
    until(lambda: plane.counters().passed == 1)
    assert not plane.counters().refused


def test_a_queue_that_is_taken_is_said_to_be(net: Net, mode: Mode) -> None:
    net.plane(net.a, mode)
    with pytest.raises(DataplaneError, match="another program reads it; end that, or choose"):
        net.plane(net.a, mode)


@pytest.mark.parametrize(
    ("hindrance", "message"),
    [
        ("os.seteuid(65534)", "that takes root, or CAP_NET_ADMIN"),
        ("sys.modules['nftables'] = None", "pip install"),
    ],
)
def test_what_is_missing_is_named_with_how_to_mend_it(
    net: Net, hindrance: str, message: str
) -> None:
    script = f"""
import asyncio, os, subprocess, sys
import nftables
from mat.address import parse_address
from mat_real.dataplane import DataplaneError
from mat_real.dataplane.plane import NetfilterDataplane
from mat_real.namespaces import NodeRef
NodeRef.parse({net.a.node.text!r}).enter()
{hindrance}
async def run():
    plane = NetfilterDataplane(None)
    plane.own(parse_address({net.a.home!r}), 128, ())
    plane.commit()
try:
    asyncio.run(run())
except DataplaneError as error:
    print(error)
"""
    paths = ":".join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": paths, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert message in done.stdout


@pytest.mark.parametrize("flush", ["flush ruleset", "flush table {} mat"])
@pytest.mark.parametrize("by", ["commit", "used"])
def test_after_others_flushed_tables_they_are_made_anew(
    net: Net, mode: Mode, by: str, flush: str
) -> None:
    if by == "commit" and "table" in flush:
        pytest.skip("what was flushed is known from `used` only")
    plane, _ = net.planes_know(mode)
    client, server = net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT)
    echo(client, server)
    net.a.node.run("nft", flush.format(net.nft))
    assert plane.counters().mapped >= 0
    if by == "used":
        plane.used()
    else:
        plane.own(net.a.home, HOST, net.a.mobiles)
        plane.commit()
    echo(client, server)
    plane.clear(net.b.home)
    plane.commit()
    client.sendto(b"who?", server.getsockname()[:2])
    assert len(plane.events(1)) == 1


def test_tables_of_another_version_are_replaced(net: Net) -> None:
    family = net.nft
    net.a.node.run("nft", f"add table {family} mat")
    net.a.node.run("nft", f"add map {family} mat home {{ type mark : mark; }}")
    net.planes_know(Mode.MAPS)
    echo(net.a.bound(DGRAM), net.b.bound(DGRAM, port=PORT))
