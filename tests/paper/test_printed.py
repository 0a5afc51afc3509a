"""What ping and iperf print, read: files here are what the programs have printed."""

from pathlib import Path

import pytest

from mat_paper import PaperError, ping, udp

PRINTED = Path(__file__).parent / "printed"


def printed(name: str) -> str:
    return (PRINTED / f"{name}.txt").read_text()


def test_a_flood_is_read_in_seconds() -> None:
    assert ping.parse(printed("ping")) == (1000, 1000, 0.000004, 0.000004, 0.000048)


def test_a_flood_that_is_not_answered_is_an_error_with_what_ping_said() -> None:
    with pytest.raises(PaperError, match=r"not answered; it printed: PING [^!]*100% packet loss"):
        ping.parse(printed("ping-silence"))
    with pytest.raises(PaperError, match="it printed: nothing"):
        ping.parse("")


def test_throughput_is_what_arrived_in_the_time_in_which_it_did() -> None:
    heard = udp.parse(printed("iperf"))
    assert (heard.lost, heard.datagrams) == (0, 4255)
    assert heard.arrived == round(4255 * 1470 * 8 / 1.0004)
    assert heard.sent == round(4256 * 1470 * 8 / 1.0004)


def test_what_was_lost_of_an_overload_did_not_arrive() -> None:
    heard = udp.parse(printed("iperf-overload"))
    assert (heard.lost, heard.datagrams) == (115099, 265592)
    # As iperf says itself, in kbit/s.
    assert heard.arrived == pytest.approx(885_562e3, rel=1e-5)
    assert heard.sent == pytest.approx(1_561_643e3, rel=1e-3)


def test_a_server_that_does_not_report_is_an_error_with_what_iperf_said() -> None:
    with pytest.raises(PaperError, match=r"has not reported; the client printed: -+\nClient conn"):
        udp.parse(printed("iperf-silence"))
