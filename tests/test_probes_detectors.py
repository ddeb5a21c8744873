"""The laws that every detector obeys, and the default one against a slow twin."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreshock.probes.detectors import CALM, FLAGGED, LEVEL_SHIFT, NONFINITE, detector, known, robust
from foreshock.probes.rolling import median_and_mad, slide

PEERS = ("cusum", "find_peaks", "lightning", "llm_foundry", "olmo2", "olmo_core", "rms", "robust_z", "zclip")


def noisy(length: int, seed: int = 0) -> np.ndarray:
    """A log-normal series with spikes, a burst, zeros and non-finite values."""
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(-1, 0.2, length))
    x[rng.random(length) < 0.02] *= 6
    x[length // 2 : length // 2 + 12] *= 20
    x[rng.random(length) < 0.01] = 0
    x[rng.random(length) < 0.01] = rng.choice([np.nan, np.inf, -np.inf])
    return x


def run(name: str, x: np.ndarray, cuts=(), **thresholds):
    found = detector(name)
    settings = found.configure(thresholds)
    state, parts = None, []
    for block in np.split(x, sorted(cuts)):
        scores, state = found.detect(block, state, settings)
        parts.append(scores)
    if found.finish is not None:
        scores, state = found.finish(state, settings)
        parts.append(scores)
    return [np.concatenate(column) for column in zip(*parts, strict=True)], state


def test_registry_is_the_folder():
    assert set(PEERS) | {"robust"} == set(known())
    with pytest.raises(ValueError, match=r"unknown detector 'robst'; known are .*\brobust\b"):
        detector("robst")


@pytest.mark.parametrize("name", known())
class TestLaws:
    def test_any_chunking_is_the_same_to_the_last_bit(self, name):
        x = noisy(1300)
        whole, end = run(name, x)
        for cuts in (range(1, 1300), [0, 0, 64, 650, 651], [1300]):
            parts, state = run(name, x, cuts)
            assert state == end
            for a, b in zip(whole, parts, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_state_is_json_and_is_not_changed(self, name):
        found = detector(name)
        settings = found.configure({})
        x = noisy(600)
        _, state = found.detect(x[:400], None, settings)
        assert state is not None
        before = copy.deepcopy(state)
        direct, _ = found.detect(x[400:], state, settings)
        assert state == before
        again, _ = found.detect(x[400:], json.loads(json.dumps(state, allow_nan=False)), settings)
        for a, b in zip(direct, again, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_non_finite_values_are_flagged_and_kept_out_of_the_baseline(self, name):
        x = noisy(1200)
        (flags, score, _), _ = run(name, x)
        broken = ~np.isfinite(x)
        np.testing.assert_array_equal(flags == NONFINITE, broken)
        assert np.all(score[broken] == np.inf)
        assert not np.isnan(score[flags > 0]).any()
        (_, _, baseline), _ = run(name, np.r_[np.full(1100, 0.5), np.nan, np.inf, 0.5])
        assert baseline[-1] == pytest.approx(1.0 if name == "rms" else 0.5)

    def test_what_comes_later_changes_no_verdict(self, name):
        x = noisy(1300)
        y = x.copy()
        y[700:] *= 100
        found = detector(name)
        told = len(found.detect(x[:700], None, found.configure({}))[0].flags)
        assert told == 700 or (found.finish is not None and told > 640)
        for a, b in zip(run(name, x)[0], run(name, y)[0], strict=True):
            np.testing.assert_array_equal(a[:told], b[:told])

    def test_constant_and_empty_series_are_calm(self, name):
        for x in (np.full(1200, 0.3), np.zeros(1200), np.empty(0)):
            (flags, score, baseline), _ = run(name, x)
            assert len(flags) == len(score) == len(baseline) == len(x)
            assert not flags.any()

    def test_thresholds_validate_themselves(self, name):
        found = detector(name)
        with pytest.raises(ValueError, match=r"unknown threshold 'sensitivity' .* allowed are .*merge"):
            found.configure({"sensitivity": 1})
        for field in found.Thresholds.__dataclass_fields__:
            with pytest.raises(ValueError, match=f"{field}=-1"):
                found.configure({field: -1})
            with pytest.raises(ValueError, match=f"{field}=nan"):
                found.configure({field: math.nan})
        with pytest.raises(ValueError, match=r"merge=2.5 must be a whole number"):
            found.configure({"merge": 2.5})


def robust_twin(x, ratio=2.0, z=4.5, close=2.0, window=256, minimum=64, rebaseline=128, merge=10, floor=0.05):
    """The definition, read aloud: everything looked up anew at every step."""
    flags, scores = [], []
    past = []  # logarithms of the unflagged, finite, positive values
    event, is_open = [], False  # logarithms of this event's flagged values
    for t, value in enumerate(x):
        base = past[-window:]
        score, flag = math.nan, CALM
        if len(base) >= minimum:
            m = np.median(base)
            s = max(1.4826 * np.median(np.abs(base - m)), floor)
        if not np.isfinite(value):
            score, flag, is_open = math.inf, NONFINITE, True
        elif value == 0:
            score, is_open = -math.inf, False
        else:
            y = math.log(value)
            if len(base) >= minimum:
                score = (y - m) / s
                is_open = score >= close if is_open else score >= z and value / math.exp(m) >= ratio
            else:
                is_open = False
            if is_open:
                flag = FLAGGED
                event.append(y)
            else:
                past.append(y)
        if len(event) == rebaseline:
            flag, is_open = LEVEL_SHIFT, False
            past, event = list(event), []
        flags.append(flag)
        scores.append(score)
        if t >= merge - 1 and not any(flags[-merge:]):
            event = []
    return np.array(flags), np.array(scores)


def multiscale_twin(x, ratio=2.0, z=4.5, close=2.0, window=256, minimum=64, rebaseline=128, merge=10, floor=0.05,
                    lift=5.0, false_alarms=0.5, sure=40.0):  # fmt: skip
    """The default's definition, read aloud; the plain rule's twin with the three statistics in place of one."""
    flags, scores, past, event, is_open, judged = [], [], [], [], False, []
    spread, share, excess, bar = {3: 1.6, 8: 1.8}, 0.0062, 0.0020, z
    for t, value in enumerate(x):
        base = past[-window:]
        score, flag = math.nan, CALM
        if not np.isfinite(value):
            score, flag, is_open = math.inf, NONFINITE, True
        elif value == 0:
            score, is_open = -math.inf, False
        elif len(base) < minimum:
            is_open = False
        else:
            m = np.median(base)
            score = (math.log(value) - m) / max(1.4826 * np.median(np.abs(base - m)), floor)
            judged.append(float(np.clip(score, -5, 5)))
            rate = max(1 / 4000, 1 / (500 + len(judged)))
            stands_out = score >= bar or (score >= z and value / math.exp(m) >= sure)
            for k, least in ((3, 0.95 * z), (8, 0.8 * z)):
                total = sum(judged[-k:])
                stands_out |= total >= least * math.sqrt(k * spread[k])
                if total < -1e-9:
                    spread[k] += rate * (1.03 * min(total**2 / k, 9 * spread[k]) - spread[k])
            depth = -score - 2.5
            share = share * (1 - rate) + rate * (depth > 0)
            excess = excess * (1 - rate) + rate * min(max(depth, 0), 4)
            if depth > 0 or len(judged) % 64 == 0:
                beyond = max(1, min(share, 0.03) / (false_alarms / 10_000))
                bar = np.clip(2.5 + excess / share * (7 / 8) * (beyond ** (1 / 8) - 1) * 8, z, z + lift)
            is_open = bool(score >= close and (is_open or (stands_out and value / math.exp(m) >= ratio)))
        if flag == CALM and is_open:
            flag = FLAGGED
            event.append(math.log(value))
        elif flag == CALM and value > 0:
            past.append(math.log(value))
        if len(event) == rebaseline:
            flag, is_open = LEVEL_SHIFT, False
            past, event = list(event), []
        flags.append(flag)
        scores.append(score)
        if t >= merge - 1 and not any(flags[-merge:]):
            event = []
    return np.array(flags), np.array(scores)


def test_a_step_of_many_times_the_baseline_is_never_taken_for_noise():
    """The run's lower tail is so heavy that its mirror image would reach z = 7 (a gradient that often nears 0)."""
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(0, 0.5, 600))
    x[rng.choice(500, 40, replace=False)] *= 1e-3
    x[550] = 60.0
    x[580] = 15.0
    flags = {name: np.flatnonzero(run(name, x)[0][0]).tolist() for name in ("robust", "robust_z")}
    assert flags["robust"] == [550]
    assert flags["robust_z"] == [550, 580]


TWINS = {"robust": multiscale_twin, "robust_z": robust_twin}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("seed", range(4))
def test_robust_is_its_definition(seed, name):
    x = noisy(1000, seed)
    x[700:] *= 8  # a level shift
    (flags, score, _), _ = run(name, x)
    expected_flags, expected_score = TWINS[name](x)
    np.testing.assert_array_equal(flags, expected_flags)
    np.testing.assert_allclose(score, expected_score, rtol=1e-9)
    assert LEVEL_SHIFT in flags


@pytest.mark.parametrize("name", TWINS)
def test_robust_with_other_thresholds_is_its_definition(name):
    x = noisy(800, 9)
    settings = {"ratio": 1.3, "z": 3.0, "close": 1.0, "window": 40, "minimum": 11, "rebaseline": 12, "merge": 3}
    (flags, score, _), _ = run(name, x, **settings)
    expected_flags, expected_score = TWINS[name](x, **settings)
    np.testing.assert_array_equal(flags, expected_flags)
    np.testing.assert_allclose(score, expected_score, rtol=1e-9)


def test_robust_by_hand():
    x = np.ones(64)
    assert not run("robust_z", np.r_[x[:63], 100.0])[0][0].any(), "63 values are no baseline"
    (flags, score, baseline), _ = run("robust_z", np.r_[x, 1.99, 2.0, 1.11, 1.10])
    assert flags[64:].tolist() == [0, 1, 1, 0], "2-fold opens, z = ln 1.11 / .05 = 2.09 goes on, 1.91 closes"
    assert score[65] == pytest.approx(math.log(2) / 0.05)
    assert baseline[65] == pytest.approx(1.0)


def test_robust_rejects_a_window_that_contradicts_itself():
    for wrong in ({"window": 32}, {"minimum": 300}, {"close": 5.0}, {"rebaseline": 32}, {"ratio": 0.5}):
        with pytest.raises(ValueError, match="threshold"):
            robust.Thresholds(**wrong)


def test_false_alarms_do_not_depend_on_the_noise_level():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal(20_000)
    for sd in (0.05, 0.2, 0.4):
        for name in ("robust", "robust_z"):
            (flags, _, _), _ = run(name, np.exp(sd * noise))
            assert np.count_nonzero(flags) <= 5


def test_a_heavy_lower_tail_lifts_the_threshold_and_a_heavy_upper_one_does_not():
    rng = np.random.default_rng(3)
    y = rng.normal(0, 0.2, 12_000)
    wild = rng.random(len(y)) < 0.02
    depth = rng.exponential(0.8, len(y)) + 0.5
    _, calm = run("robust", np.exp(y))
    _, falls = run("robust", np.exp(np.where(wild, -depth, y)))
    _, rises = run("robust", np.exp(np.where(wild, depth, y)))
    assert calm["threshold"] < 5 < falls["threshold"]
    assert rises["threshold"] == pytest.approx(calm["threshold"], abs=0.3)


def test_a_rise_too_small_for_one_step_shows_in_the_means():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(0, 0.35, 3000))
    x[2000:2010] = np.exp(1.1 + 0.1 * rng.standard_normal(10))  # 3-fold, about 3 standard deviations
    assert not run("robust_z", x)[0][0][1990:2020].any()
    assert run("robust", x)[0][0][1990:2020].any()


@given(st.lists(st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40))
def test_median_and_mad_are_exact(values):
    middle, mad = median_and_mad(sorted(values))
    assert middle == np.median(values)
    assert mad == np.median(np.abs(np.array(values) - middle))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.2, 0.3, 7.0]) | st.floats(0, 1), max_size=60), st.integers(1, 12))
def test_slide_keeps_window_and_order(values, size):
    window, ordered = [], []
    for i, value in enumerate(values):
        slide(window, ordered, value, size)
        assert window == values[max(0, i + 1 - size) : i + 1]
        assert ordered == sorted(window)
