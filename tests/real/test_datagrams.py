"""Datagrams in batches: what is read and written is what went over the wire, in both families."""

import socket
import time
from collections.abc import Generator

import pytest

from mat.address import UNSPECIFIED, parse_address
from mat.messages import Endpoint
from mat_real.datagrams import SLOT, DatagramSocket, Peer, bind

FAMILIES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
LOOPBACKS = list(FAMILIES)


@pytest.fixture
def server() -> Generator[DatagramSocket]:
    made = DatagramSocket(bind(UNSPECIFIED, 0), batch=4)
    yield made
    made.close()


@pytest.fixture(params=LOOPBACKS)
def client(request: pytest.FixtureRequest, server: DatagramSocket) -> Generator[socket.socket]:
    """A socket that is connected: it takes datagrams from where it sends to, and no others."""
    with socket.socket(FAMILIES[request.param], socket.SOCK_DGRAM) as made:
        made.connect((request.param, server.local.port))
        made.settimeout(5)
        yield made


def read(server: DatagramSocket, count: int) -> list[tuple[bytes, Peer]]:
    """The next datagrams, however many calls they take."""
    end, found = time.monotonic() + 5, list[tuple[bytes, Peer]]()
    while len(found) < count:
        assert time.monotonic() < end
        found += server.receive()
    assert server.receive() == []
    return found


def test_batches_keep_every_datagram_apart(server: DatagramSocket, client: socket.socket) -> None:
    sent = [bytes([n]) * n for n in range(10)]
    for one in sent:
        client.send(one)
    found = read(server, 10)
    assert [datagram for datagram, _ in found] == sent
    for datagram, peer in found:
        server.reply(peer, b"re " + datagram)
    server.flush()
    assert [client.recv(100) for _ in sent] == [b"re " + one for one in sent]


def test_source_and_own_address_are_known(server: DatagramSocket, client: socket.socket) -> None:
    client.send(b"hello")
    ((_, peer),) = read(server, 1)
    host, port, *_ = client.getsockname()
    home = parse_address(client.getpeername()[0])
    assert server.endpoint(peer) == Endpoint(parse_address(host), port, home)


def test_answers_leave_from_the_address_that_was_asked(server: DatagramSocket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.connect(("127.0.0.77", server.local.port))
        other.settimeout(5)
        other.send(b"hello")
        ((_, peer),) = read(server, 1)
        server.reply(peer, b"replied")
        server.send(server.endpoint(peer), b"sent")
        size = 7
        place = server.place()
        server.outgoing[place : place + size] = b"written"
        server.replied(peer, size)
        server.flush()
        assert [other.recv(100) for _ in range(3)] == [b"replied", b"sent", b"written"]


def test_a_named_source_is_used(server: DatagramSocket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(5)
        there = Endpoint(parse_address("127.0.0.1"), other.getsockname()[1])
        server.send(there, b"from 9", parse_address("127.0.0.9"))
        server.send(there, b"from any")
        server.flush()
        assert other.recvfrom(100)[1][0] == "127.0.0.9"
        assert other.recvfrom(100)[1][0] == "127.0.0.1"


def test_an_answer_after_a_sending_has_the_right_addresses(
    server: DatagramSocket, client: socket.socket
) -> None:
    """Slots are used again: what one leaves behind must not show in the next."""
    for turn in range(9):
        client.send(b"%d" % turn)
        ((datagram, peer),) = read(server, 1)
        if turn % 2:
            server.send(server.endpoint(peer), datagram)
        else:
            server.reply(peer, datagram)
        server.flush()
        assert client.recv(100) == datagram


def test_a_long_datagram_is_cut_to_a_slot(server: DatagramSocket, client: socket.socket) -> None:
    client.send(bytes(SLOT + 500))
    client.send(b"after it")
    (long, _), (after, _) = read(server, 2)
    assert len(long) == SLOT
    assert after == b"after it"


def test_what_the_kernel_refuses_is_counted_and_the_rest_arrives(
    server: DatagramSocket, client: socket.socket
) -> None:
    client.send(b"hello")
    ((_, peer),) = read(server, 1)
    server.reply(peer, b"first")
    # No address of this host: the kernel takes no datagram from there.
    server.send(server.endpoint(peer), b"refused", parse_address("192.0.2.1"))
    server.reply(peer, b"last")
    server.flush()
    assert [client.recv(100), client.recv(100)] == [b"first", b"last"]
    assert server.undelivered == 1


def test_an_address_in_use_is_an_error_unless_shared() -> None:
    first = bind(parse_address("127.0.0.1"), 0, reuse_port=True)
    port = first.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bind(parse_address("127.0.0.1"), port)
    bind(parse_address("127.0.0.1"), port, reuse_port=True).close()
    first.close()
