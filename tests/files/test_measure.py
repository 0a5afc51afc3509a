"""Interruption and loss, by hand."""

import numpy as np
import pytest

from mat_files.measure import interruption, losses

NAN = float("nan")
SENT = np.arange(0.0, 1.0, 0.1)
"""Ten packets, one every 100 ms; the path takes 50 ms."""


def delivered(*lost: int) -> np.ndarray:
    times = SENT + 0.05
    times[list(lost)] = NAN
    return times


def test_a_flow_that_goes_on_has_neither_interruption_nor_loss() -> None:
    assert interruption(delivered(), 0.3, 0.6, 0.1) == pytest.approx(0, abs=1e-12)
    assert losses(SENT, delivered(), 0.3, 0.6) == 0


def test_interruption_is_the_longest_gap_less_the_spacing() -> None:
    assert interruption(delivered(4, 5, 7), 0.42, 0.62, 0.1) == pytest.approx(0.2)


def test_interruption_counts_from_the_last_delivery_before_to_the_first_after() -> None:
    assert interruption(delivered(4, 5), 0.50, 0.51, 0.1) == pytest.approx(0.2)


def test_a_gap_elsewhere_does_not_count() -> None:
    assert interruption(delivered(1, 2), 0.5, 0.6, 0.1) == pytest.approx(0, abs=1e-12)


def test_without_a_later_delivery_the_interruption_runs_to_the_end() -> None:
    assert interruption(delivered(5, 6, 7, 8, 9), 0.5, 2.0, 0.1) == pytest.approx(2 - 0.45 - 0.1)


def test_without_any_delivery_the_interruption_is_the_whole_handover() -> None:
    assert interruption(delivered(*range(10)), 0.5, 2.0, 0.1) == pytest.approx(1.4)


def test_deliveries_out_of_order_are_put_in_order() -> None:
    assert interruption(delivered()[::-1], 0.3, 0.6, 0.1) == pytest.approx(0, abs=1e-12)


def test_what_was_under_way_when_the_link_went_is_lost_in_the_handover() -> None:
    assert losses(SENT, delivered(3, 4, 5), 0.34, 0.6) == 3


def test_what_was_lost_before_or_after_is_not() -> None:
    assert losses(SENT, delivered(1, 4, 9), 0.38, 0.6) == 1


def test_without_any_delivery_before_everything_up_to_the_end_counts() -> None:
    assert losses(SENT, delivered(*range(10)), 0.2, 0.45) == 5
