"""The kernels under `precursors`, each against a slow and obvious twin or scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreshock.probes.coincidence import coincidences, rate, wilson
from foreshock.probes.lead_time import bootstrap_median, lead_time
from foreshock.probes.molchan import alarm_shares, molchan
from foreshock.probes.precursor_controls import layer_contrast, shuffled_labels
from foreshock.probes.sessions import Session, common_range, session, sessions
from foreshock.probes.surrogates import block_shifts, permutations

steps = st.lists(st.integers(0, 200), max_size=12).map(sorted)
intervals = st.lists(st.tuples(st.integers(5, 190), st.integers(1, 12)), max_size=8)


def arrays(onsets: list[int], dips: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    after = np.array([a for a, _ in dips], np.int64)
    return np.array(onsets, np.int64), after, after + np.array([w for _, w in dips], np.int64)


@given(steps, intervals, st.integers(1, 40), st.booleans())
def test_a_coincidence_is_any_point_of_the_interval_in_the_window(
    onsets: list[int], dips: list[tuple[int, int]], lag: int, reverse: bool
) -> None:
    def meet(s: int, a: int, b: int) -> bool:
        return any(1 <= (s - p if reverse else p - s) <= lag for p in range(a + 1, b + 1))

    at, after, by = arrays(onsets, dips)
    pairs = [[meet(s, a, b) for s in onsets] for a, b in zip(after.tolist(), by.tolist(), strict=True)]
    dips_hit, spikes_hit = coincidences(at, after, by, lag, reverse=reverse)
    assert dips_hit == sum(any(row) for row in pairs)
    assert spikes_hit == sum(any(column) for column in zip(*pairs, strict=True))


@given(steps, steps, st.integers(1, 40))
def test_rates_are_those_of_event_analysis(onsets: list[int], dips: list[int], lag: int) -> None:
    """Its window is 0 <= dip - tau - spike <= delta: with tau 1 and delta L - 1 it is ours, for dips of one step."""
    oracle = pytest.importorskip("EventAnalysis.src.ECALoop").ECA_business_logic.py_func
    spikes, by = np.array(onsets, np.int64), np.array(dips, np.int64)
    precursor, trigger = oracle(by, spikes, lag - 1, 1)
    ours = coincidences(spikes, by - 1, by, lag)
    assert ours == (round(precursor * len(dips)), round(trigger * len(onsets)))


@given(steps, intervals, st.integers(1, 40))
def test_surrogates_on_leading_axes_are_counted_one_by_one(
    onsets: list[int], dips: list[tuple[int, int]], lag: int
) -> None:
    at, after, by = arrays(onsets, dips)
    moved = np.stack([by, by + 3, np.flip(by)]) if len(by) else by[None].repeat(3, 0)
    width = by - after
    together = coincidences(at, moved - width, moved, lag)
    alone = [coincidences(at, row - width, row, lag) for row in moved]
    assert [list(map(int, pair)) for pair in zip(*together, strict=True)] == [list(map(int, pair)) for pair in alone]


@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(hits: int, missed: int, confidence: float) -> None:
    if not hits + missed:
        assert all(map(math.isnan, wilson(hits, 0)))
        return
    interval = stats.binomtest(hits, hits + missed).proportion_ci(confidence, method="wilson")
    assert wilson(hits, hits + missed, confidence) == pytest.approx((interval.low, interval.high), abs=1e-12)
    told = rate(hits, hits + missed)
    assert told.low <= told.value <= told.high


@pytest.mark.parametrize(("hits", "trials", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_shares_are_refused(hits: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="give"):
        wilson(hits, trials, confidence)


@given(st.sets(st.integers(0, 59), min_size=1, max_size=8), st.integers(1, 59), st.integers(1, 5))
def test_an_alarm_share_is_the_share_of_places_that_cost_no_more(spikes: set[int], by: int, width: int) -> None:
    def cost(t: int) -> float:
        """The shortest alarm that catches a dip at t; at least 1, infinite before the first spike."""
        return min((max(t - s - width + 1, 1) for s in spikes if s < t), default=math.inf)

    costs = [cost(t) for t in range(60)]
    own = cost(by)
    cheaper = np.mean([c < own for c in costs])
    twin = (cheaper + np.mean([c <= own for c in costs])) / 2
    found = alarm_shares(np.array(sorted(spikes)), np.array([by - width]), np.array([by]), 0, 59)
    assert found[0] == pytest.approx(twin)


def test_a_molchan_curve_ends_in_its_corners_and_its_area_is_the_skill() -> None:
    curve = molchan([0.5, 0.1, 0.3], chance=0.5)
    assert (curve.alarm[0], curve.missed[0], curve.alarm[-1], curve.missed[-1]) == (0, 1, 1, 0)
    area = sum(m * (b - a) for a, b, m in zip(curve.alarm, curve.alarm[1:], curve.missed, strict=False))
    assert curve.skill == pytest.approx(1 - area)


@given(steps.filter(len), st.integers(20, 90), st.integers(0, 99))
def test_a_block_shift_moves_dips_of_one_block_together_round_its_end(at: list[int], block: int, seed: int) -> None:
    by = np.array(at)
    moved = block_shifts(by, 0, 200, block, 5, np.random.default_rng(seed))
    assert ((moved >= 0) & (moved <= 200)).all()
    assert (np.abs(moved - by) < block).all()
    for row in moved:
        # Two dips of one block keep their distance, up to its length: some grid of blocks explains the surrogate.
        assert any(explains(by, row, block, phase) for phase in range(block))


def explains(by: np.ndarray, moved: np.ndarray, block: int, phase: int) -> bool:
    index = (by + phase) // block
    for k in set(index.tolist()):
        start, end = max(k * block - phase, 0), min((k + 1) * block - phase, 201)
        turns = set(((moved - by)[index == k] % (end - start)).tolist())
        inside = (moved[index == k] >= start).all() and (moved[index == k] < end).all()
        if len(turns) > 1 or not inside:
            return False
    return True


def test_block_shifts_are_uniform_over_the_block() -> None:
    moved = block_shifts(np.array([5000]), 0, 9999, 100, 4000, np.random.default_rng(0))[:, 0]
    assert stats.kstest(moved, lambda x: np.clip(triangle((x - 5000) / 100), 0, 1)).pvalue > 0.001


def triangle(u: np.ndarray) -> np.ndarray:
    """The distribution of a shift: uniform phase and uniform offset make a triangle over (-1, 1)."""
    return np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)


@pytest.mark.parametrize("runs", [2, 3, 5, 7])
def test_permutations_are_all_but_the_true_one_or_random(runs: int) -> None:
    found = permutations(runs, 999, np.random.default_rng(0))
    assert (np.sort(found, axis=1) == np.arange(runs)).all()
    if math.factorial(runs) <= 1000:
        assert len({tuple(row) for row in found.tolist()}) == len(found) == math.factorial(runs) - 1
        assert not (found == np.arange(runs)).all(axis=1).any()
    else:
        assert len(found) == 999


def test_the_bootstrap_of_a_median_is_near_scipys() -> None:
    values = np.random.default_rng(1).normal(20, 5, 25)
    ours = bootstrap_median(values, np.random.default_rng(0))
    twin = stats.bootstrap((values,), np.median, method="percentile", rng=np.random.default_rng(2)).confidence_interval
    assert ours == pytest.approx((twin.low, twin.high), abs=0.7)
    assert bootstrap_median(values[:1], np.random.default_rng(0)) == (-math.inf, math.inf)
    assert lead_time([], [], 8.0, np.random.default_rng(0)).events == 0


def made(**onsets: list[int]) -> Session:
    by = np.array([100, 200, 300, 400])
    return Session(0, 499, {name: np.array(at) for name, at in onsets.items()}, by - 1, by)


def test_two_layers_are_compared_dip_by_dip() -> None:
    run = made(first=[95, 195, 295], middle=[195, 450])
    found = layer_contrast([run], "first", "middle", 8)
    assert (found.rate.hits, found.control_rate.hits) == (3, 1)
    assert (found.only_layer, found.only_control) == (2, 0)
    assert found.p == stats.binomtest(2, 2).pvalue


def test_shuffled_labels_count_by_hand() -> None:
    run = Session(0, 99, {"a": np.array([10])}, np.array([11]), np.array([12]))
    found = shuffled_labels([run], "a", 8, 4000, np.random.default_rng(0))
    assert found.rate == pytest.approx(0.5, abs=0.03)  # of two events the earlier must be the spike
    assert found.p == pytest.approx(0.5, abs=0.03)


def test_sessions_leave_out_the_warm_up_and_meet_in_common_steps() -> None:
    with pytest.raises(ValueError, match="the first beyond the warm-up"):
        session([], [], 100, ["a"], 200)
    with pytest.raises(ValueError, match="give one of each"):
        sessions([[], []], [[]], [100, 100], None, None)
    assert common_range([made(a=[1]), made(a=[1]).between(0, 9)])[0].steps == 10
    apart = [made(a=[]).between(0, 9), made(a=[]).between(20, 29)]
    assert common_range(apart) == []
