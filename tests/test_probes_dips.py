"""Dips: what is one, what is told of it, and that a live stream finds the same ones."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.probes import Dip, DipFinder, find_dips
from foreshock.probes.falls import Thresholds, judge

SMALL = {"window": 5, "minimum": 2, "patience": 6}  # so that short curves show everything


def flat(length=120, level=0.6):
    return np.full(length, level)


def noisy(curve, queries, seed=0):
    """The curve as evaluations with so many queries would measure it."""
    rng = np.random.default_rng(seed)
    return rng.binomial(queries, np.clip(curve, 0, 1)) / queries


def only(dips) -> Dip:
    assert len(dips) == 1
    return dips[0]


class TestDip:
    def test_every_field_by_hand(self):
        accuracy = flat(60)
        accuracy[30:36] = 0.5, 0.4, 0.45, 0.52, 0.57, 0.59
        dip = only(find_dips(accuracy, steps=10 * np.arange(60), queries=10_000, staleness=31))
        assert (dip.onset_after, dip.onset_by, dip.nadir, dip.end) == (290, 300, 310, 330)
        assert (dip.t50, dip.t90, dip.kind, dip.staleness) == (20, 40, "dip", 31)
        assert dip.base == pytest.approx(0.6)
        assert dip.depth == pytest.approx(0.2)
        assert dip.area == pytest.approx(10 * (0.1 + 0.2 + 0.15 + 0.08))

    def test_opening_is_four_standard_errors_or_one_point(self):
        se = np.sqrt(0.6 * 0.4 / 1000)
        for depth, found in ((3.99 * se, 0), (4.01 * se, 1)):
            accuracy = flat()
            accuracy[60] -= depth
            assert len(find_dips(accuracy, queries=1000)) == found
        for depth, found in ((0.0099, 0), (0.0101, 1)):
            accuracy = flat()
            accuracy[60] -= depth
            assert len(find_dips(accuracy)) == len(find_dips(accuracy, queries=10**9)) == found

    def test_scatter_widens_the_threshold(self):
        accuracy = flat() + np.random.default_rng(0).uniform(-0.03, 0.03, 120)
        accuracy[60] = 0.53
        assert find_dips(accuracy) == []
        accuracy[60] = 0.4
        assert only(find_dips(accuracy)).onset_by == 60

    def test_the_interval_goes_back_to_the_last_evaluation(self):
        accuracy = np.full(1200, np.nan)
        accuracy[::20] = 0.6
        accuracy[600] = 0.4
        dip = only(find_dips(accuracy))
        assert (dip.onset_after, dip.onset_by, dip.end) == (580, 600, 620)

    def test_a_slow_recovery_is_one_dip(self):
        accuracy = flat(200)
        accuracy[60:160] = np.linspace(0.2, 0.6, 100)
        dip = only(find_dips(accuracy, queries=4000))
        assert (dip.kind, dip.onset_by, dip.nadir) == ("dip", 60, 60)
        assert dip.t50 == pytest.approx(50, abs=1)
        assert dip.t90 == pytest.approx(90, abs=1)

    def test_noise_around_the_half_does_not_split_a_dip(self):
        accuracy = flat(200)
        accuracy[60:100] = np.tile([0.39, 0.41], 20)
        accuracy[60] = 0.2
        dip = only(find_dips(accuracy, queries=4000))
        assert (dip.nadir, dip.end, dip.t50) == (60, 99, 1)

    def test_two_dips(self):
        accuracy = flat(200)
        accuracy[60:63] = accuracy[100:103] = 0.4
        assert [(dip.onset_by, dip.end) for dip in find_dips(accuracy)] == [(60, 63), (100, 103)]

    def test_never_recovered(self):
        accuracy = flat(400)
        accuracy[60:] = 0.12
        accuracy[300:303] = 0.05
        gone, later = find_dips(accuracy, queries=4000)
        assert (gone.kind, gone.onset_by, gone.end, gone.t50) == ("unrecovered", 60, None, None)
        assert gone.area == pytest.approx(100 * 0.48)
        assert (later.kind, later.onset_by, later.base) == ("dip", 300, pytest.approx(0.12)), "told from the new level"

    def test_partial_restart_climbs_anew_from_a_lower_place(self):
        accuracy = flat(400)
        accuracy[60:] = 0.1 + 0.2 * (1 - np.exp(-np.arange(340) / 40))
        dip = only(find_dips(noisy(accuracy, 4000), queries=4000))
        assert (dip.kind, dip.onset_by, dip.end) == ("partial_restart", 60, None)

    def test_under_way_at_the_end(self):
        accuracy = flat()
        accuracy[-2:] = 0.4
        assert (only(find_dips(accuracy)).kind, only(find_dips(accuracy)).end) == ("unrecovered", None)


class TestNoDip:
    def test_too_few_evaluations(self):
        assert find_dips([0.6] * 7 + [0.1]) == []
        assert len(find_dips([0.6] * 8 + [0.1])) == 1

    @pytest.mark.parametrize("queries", [256, 4096])
    @pytest.mark.parametrize("tau", [10, 100, 1000])
    def test_a_climb_is_none(self, tau, queries):
        curve = 0.1 + 0.5 * (1 - np.exp(-np.arange(2000) / tau))
        assert sum(len(find_dips(noisy(curve, queries, seed), queries=queries)) for seed in range(3)) <= 1

    def test_an_accelerating_climb_is_none(self):
        curve = 0.1 + 0.5 / (1 + np.exp(-(np.arange(300) - 150) / 10))
        assert find_dips(noisy(curve, 4096), queries=4096) == []

    def test_a_dip_in_a_climb_is_found_and_told_from_the_lagging_base(self):
        curve = 0.1 + 0.5 * (1 - np.exp(-np.arange(1500) / 300))
        curve[200:208] -= 0.12
        dip = only(find_dips(noisy(curve, 4096), queries=4096))
        assert dip.onset_by == 200
        assert 0.08 < dip.depth < 0.15

    def test_steady_noise_rarely_looks_like_one(self):
        dips = sum(len(find_dips(noisy(flat(5000), 1000, seed), queries=1000)) for seed in range(4))
        assert dips <= 8  # of 20,000 evaluations


class TestPool:
    def test_finds_a_dip_that_single_evaluations_cannot(self):
        curve = flat(800)
        curve[400:416] -= 0.06
        accuracy = noisy(curve, 256, seed=1)
        assert find_dips(accuracy, queries=256) == []
        dip = only(find_dips(accuracy, queries=256, pool=8))
        assert dip.onset_after <= 399 < dip.onset_by
        assert (dip.onset_after, dip.onset_by) == (392, 407), "from the first of the last good pool"

    def test_weighs_by_queries(self):
        accuracy = flat(41)
        accuracy[40:] = 0.5
        state = {"good": 7, "window": [0.6] * 8, "residuals": [], "dip": None}
        _, state = judge(state, [[8, 0.5, 100], [9, 0.6, 300]], Thresholds(pool=2, errors=0, sigmas=0))
        assert state["dip"]["rows"] == [[9, pytest.approx(0.575)]]


class TestTrace:
    class Fake:
        layers = ("patch_embed",)
        steps = np.arange(5000, 5120)
        scalars = ("knn_accuracy", "knn_queries")

        def __init__(self, accuracy, queries, meta):
            self.data = {"knn_accuracy": accuracy, "knn_queries": queries, "loss_accuracy": accuracy}
            self.meta = meta

        def __getitem__(self, name):
            return self.data[name]

    def test_brings_steps_queries_and_staleness(self):
        accuracy = flat()
        accuracy[60] = 0.55
        meta = {"knn": {"queue": 128_000}, "batch_size": 4096}
        assert find_dips(self.Fake(accuracy, flat(level=512.0), meta)) == [], "within 4 errors at 512 queries"
        dip = only(find_dips(self.Fake(accuracy, flat(level=8192.0), meta)))
        assert (dip.onset_by, dip.staleness) == (5060, 32)
        assert only(find_dips(self.Fake(accuracy, flat(level=np.nan), {}))).staleness is None
        assert len(find_dips(self.Fake(accuracy, flat(level=512.0), meta), queries=8192)) == 1
        assert len(find_dips(self.Fake(accuracy, flat(level=512.0), meta), series="loss_accuracy")) == 1


ACCURACIES = st.one_of(st.sampled_from([0.6, 0.6, 0.6, 0.55, 0.3, 0.45, 0.5, 0.0, 1.0, float("nan")]), st.floats(0, 1))


@settings(deadline=None, max_examples=200)
@given(st.lists(ACCURACIES, max_size=60), st.sampled_from([None, 100, 5000]), st.integers(1, 3))
def test_a_stream_finds_identical_dips(accuracies, queries, pool):
    whole = find_dips(accuracies, queries=queries, pool=pool, **SMALL)
    finder, dips = DipFinder(pool=pool, **SMALL), []
    for step, accuracy in enumerate(accuracies):
        dips += finder.update(step, accuracy, queries)
        state = json.loads(json.dumps(finder.state_dict(), allow_nan=False))
        finder = DipFinder(pool=pool, **SMALL)
        finder.load_state_dict(state)
    assert dips + finder.close() == whole
    assert finder.close() == []


@settings(deadline=None, max_examples=200)
@given(st.lists(ACCURACIES, max_size=60))
def test_a_dip_is_in_order(accuracies):
    dips = find_dips(accuracies, **SMALL)
    for dip in dips:
        assert dip.onset_after < dip.onset_by <= dip.nadir
        assert dip.depth >= 0.01 - 1e-9
        assert dip.depth == dip.base - accuracies[dip.nadir]
        assert (dip.end is None) == (dip.kind != "dip")
        if dip.end is not None:
            assert dip.nadir < dip.end
            assert accuracies[dip.end] >= dip.base - dip.depth / 2 - 1e-9
        if dip.t90 is not None:
            assert dip.t50 is not None
            assert dip.t50 <= dip.t90
    for before, after in itertools.pairwise(dips):
        assert before.onset_by < after.onset_by
        assert before.end is None or before.end <= after.onset_after


def test_open_events_tell_of_a_dip_at_once():
    finder = DipFinder()
    for step in range(40):
        finder.update(step, 0.6)
    assert finder.open_events() == []
    finder.update(40, 0.4)
    dip = only(finder.open_events())
    assert (dip.onset_by, dip.kind, dip.end) == (40, "unrecovered", None)


def test_finder_errors_change_nothing():
    finder = DipFinder()
    finder.update(3, 0.6)
    before = finder.state_dict()
    for arguments, message in [
        ((3, 0.6), "step 3 is not beyond step 3"),
        ((4, 60.0), "accuracy at step 4 is 60; give"),
        ((4, float("inf")), "accuracy at step 4 is inf"),
        ((4, 0.5, 0), "queries is 0 at step 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            finder.update(*arguments)
        assert finder.state_dict() == before
    with pytest.raises(ValueError, match="thresholds"):
        DipFinder(points=0.02).load_state_dict(before)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.ones((2, 9)), {}, "2 curves are given"),
        (np.ones((2, 9, 9)), {}, r"shape \(2, 9, 9\)"),
        ([61.0, 62.0], {}, "accuracy at step 0 is 61"),
        ([0.5, 0.5], {"queries": [1, 2, 3]}, "one for each of the 2 values"),
        ([0.5], {"window": -1}, "window=-1"),
        ([0.5], {"points": 1.5}, "points=1.5 must be a number above 0, at most 1"),
        ([0.5], {"sigma": 3}, "unknown threshold 'sigma'; allowed are sigmas, errors, points"),
        ([0.5, 0.5], {"steps": [2, 2]}, "step 2 follows step 2"),
    ],
)
def test_errors(source, options, message):
    with pytest.raises(ValueError, match=message):
        find_dips(source, **options)
