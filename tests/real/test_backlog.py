"""The backlog of a worker: first in first out, each request once."""

from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mat.address import parse_address
from mat_real.datagrams import DatagramSocket, bind
from mat_real.ims.backlog import Backlog, Waiting


@pytest.fixture(scope="module")
def source() -> Generator[DatagramSocket]:
    made = DatagramSocket(bind(parse_address("127.0.0.1"), 0))
    yield made
    made.close()


def waiting(
    source: DatagramSocket, sender: int, sequence: int, rest: bytes = b"", since: float = 0.0
) -> Waiting:
    datagram = bytes((3, 0, 0x80, 7)) + sequence.to_bytes(4, "big") + rest
    return Waiting(source, datagram, sender.to_bytes(2, "big").ljust(64, b"\0"), since)


def test_a_repetition_takes_the_place_of_what_it_repeats(source: DatagramSocket) -> None:
    backlog = Backlog()
    first, second = waiting(source, 1, 1, b"old", 1.0), waiting(source, 1, 2, since=1.0)
    again = waiting(source, 1, 1, b"new", 3.0)
    assert backlog.add([first, second]) == 0
    assert backlog.add([again]) == 1
    assert len(backlog) == 2
    # The newest content, in the oldest place, counted from when it first came.
    assert backlog.take(9) == [again._replace(since=1.0), second]


def test_another_senders_request_of_the_same_sequence_is_another(source: DatagramSocket) -> None:
    backlog = Backlog()
    one, other = waiting(source, 1, 7), waiting(source, 2, 7)
    assert backlog.add([one, other]) == 0
    assert backlog.take(9) == [one, other]


def test_the_same_request_to_another_socket_is_another(source: DatagramSocket) -> None:
    backlog, elsewhere = Backlog(), DatagramSocket(bind(parse_address("127.0.0.1"), 0))
    try:
        one, other = waiting(source, 1, 7), waiting(elsewhere, 1, 7)
        assert backlog.add([one, other]) == 0
        assert backlog.take(9) == [one, other]
    finally:
        elsewhere.close()


def test_what_was_taken_is_not_a_repetition_when_it_comes_again(source: DatagramSocket) -> None:
    backlog = Backlog()
    one = waiting(source, 1, 7)
    backlog.add([one])
    assert backlog.take(1) == [one]
    assert backlog.add([one]) == 0
    assert backlog.take(1) == [one]


@given(
    st.lists(st.one_of(st.integers(1, 5), st.tuples(st.integers(0, 3), st.integers(0, 5)))),
)
def test_every_request_comes_out_once_and_in_order(
    source: DatagramSocket, steps: list[int | tuple[int, int]]
) -> None:
    backlog, expected = Backlog(), list[tuple[int, int]]()
    for step in steps:
        if isinstance(step, int):
            taken = [(one.peer[1], one.datagram[7]) for one in backlog.take(step)]
            assert taken == expected[:step]
            expected = expected[step:]
        else:
            repeats = backlog.add([waiting(source, *step)])
            assert repeats == (step in expected)
            expected += [step] if step not in expected else []
        assert len(backlog) == len(expected)
