"""Which spikes came before which dip."""

import pytest

from foreshock.probes import Dip, Precedence, Spike, preceding


def spike(onset, layer="patch_embed"):
    return Spike(layer, start=onset, onset=onset, peak=onset, end=onset, ratio=5.0, z=9.0, area=1.6, kind="spike")


def dip(after, by):
    return Dip(after, by, by, by + 9, depth=0.1, area=0.4, t50=5, t90=9, kind="dip", base=0.6, staleness=None)


def test_pairs_sorted_with_lags():
    early, late, other = spike(90), spike(99), spike(95, "blocks.00")
    first, second = dip(99, 100), dip(150, 160)
    assert preceding([late, other, early], [second, first], within=16) == [
        Precedence(early, first, 10),
        Precedence(other, first, 5),
        Precedence(late, first, 1),
    ]


def test_window_is_strictly_before_and_meets_any_point_of_the_interval():
    fall = dip(100, 110)  # began at one of 101 … 110
    hits = [onset for onset in range(80, 120) if preceding([spike(onset)], [fall], within=8)]
    twin = [onset for onset in range(80, 120) if any(1 <= point - onset <= 8 for point in range(101, 111))]
    assert hits == twin == list(range(93, 110))


def test_nothing_pairs_with_nothing():
    assert preceding([], [dip(1, 2)]) == preceding([spike(1)], []) == []


def test_one_spike_may_precede_two_dips():
    assert [pair.lag for pair in preceding([spike(10)], [dip(12, 13), dip(20, 21)])] == [3, 11]


@pytest.mark.parametrize("within", [0, -3, True])
def test_window_must_be_positive(within):
    with pytest.raises(ValueError, match="at least 1"):
        preceding([], [], within=within)
