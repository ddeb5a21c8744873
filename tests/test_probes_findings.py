"""Divergence, collapse and plateau: what is one, and what looks like one and is none."""

import math

import numpy as np
import pytest

from foreshock.probes import findings
from foreshock.probes.findings import find_collapse, find_divergence, find_feature_collapse, find_plateau
from foreshock.traces import TraceWriter, open_trace


def curve(*levels: float, length: int = 1000, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """A noisy curve through these levels, evenly spaced."""
    at = np.linspace(0, len(levels) - 1, length)
    return np.interp(at, range(len(levels)), levels) + noise * np.random.default_rng(seed).normal(size=length)


class TestDivergence:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_not_finite_to_the_end(self, value):
        loss = curve(7, 3)
        loss[900:] = value
        found = find_divergence(loss, np.arange(0, 5000, 5))
        assert (found.kind, found.step, found.evidence["steps"]) == ("divergence", 4500, 100)
        loss[950:] = 3.0
        assert find_divergence(loss) is None

    def test_from_the_first_step_on(self):
        assert find_divergence(np.full(9, math.nan)).step == 0
        assert find_divergence(np.full(9, math.nan), every_step=False) is None

    def test_in_a_trace_a_rare_loss_that_was_not_measured_last_has_not_diverged(self):
        loss = np.full(1000, math.nan)
        loss[::10] = curve(7, 3, length=100)
        assert find_divergence(loss, every_step=False) is None
        loss = curve(7, 3)
        loss[900:] = math.nan
        assert find_divergence(loss, every_step=False).step == 900

    def test_rising_for_good(self):
        found = find_divergence(curve(7, 4, 3, 3, 6))
        assert 850 <= found.step <= 900  # half of the rise from 3 to 6, which begins at 750
        assert found.evidence["lowest"] == pytest.approx(3, abs=0.1)
        assert found.evidence["final"] == pytest.approx(6, abs=0.2)

    @pytest.mark.parametrize("seed", range(20))
    def test_what_has_not_diverged(self, seed):
        assert find_divergence(curve(7, 4, 3, 2.9, 2.8, seed=seed)) is None
        assert find_divergence(curve(7, 3, 3, 3, 3, noise=0.3, seed=seed)) is None
        assert find_divergence(curve(7, 3, 6, 3, 3, seed=seed)) is None, "it came back"
        spiky = curve(7, 3, 3, 3, seed=seed)
        spiky[np.random.default_rng(seed).random(1000) < 0.02] *= 3
        spiky[-3:] = 9
        assert find_divergence(spiky) is None, "a spike at the end is a spike"

    def test_too_short_to_tell(self):
        assert find_divergence(np.r_[np.full(20, 1.0), np.full(20, 9.0)]) is None


class TestCollapse:
    def test_to_chance_and_stays(self):
        found = find_collapse(curve(0.1, 0.5, 0.6, 0.1, 0.1, noise=0.004), chance=0.1)
        assert (found.kind, found.series) == ("collapse", "knn_accuracy")
        assert 730 <= found.step <= 770
        assert found.evidence["reached"] == pytest.approx(0.6, abs=0.02)

    def test_a_dip_to_chance_is_none(self):
        assert find_collapse(curve(0.1, 0.6, 0.1, 0.6, noise=0.004), chance=0.1) is None
        assert find_collapse(curve(0.1, 0.6, 0.6, 0.3, noise=0.004), chance=0.1) is None

    def test_never_above_chance(self):
        assert "never left" in find_collapse(np.full(200, 0.1), chance=0.1).text

    def test_few_queries_widen_what_is_chance(self):
        low = np.full(200, 0.13)
        assert find_collapse(low, chance=0.1) is None
        assert find_collapse(low, chance=0.1, queries=256) is not None

    def test_chance_must_be_a_fraction(self):
        with pytest.raises(ValueError, match=r"chance is 10; give the accuracy of guessing"):
            find_collapse(np.full(200, 0.1), chance=10)

    def test_features(self):
        assert find_feature_collapse(np.r_[np.full(300, 0.9), np.full(100, 0.02)]).step == 300
        assert find_feature_collapse(np.r_[np.full(100, 0.02), np.full(300, 0.9)]) is None
        assert find_feature_collapse(np.full(300, 0.9)) is None


class TestPlateau:
    def test_no_progress(self):
        found = find_plateau(curve(7, 3, 3, 3, noise=0.02))
        assert 310 <= found.step <= 400
        assert found.evidence["share"] > 0.6
        assert find_plateau(curve(0.1, 0.6, 0.6, 0.6, noise=0.005), rising=True) is not None

    @pytest.mark.parametrize("seed", range(10))
    def test_slow_progress_is_progress(self, seed):
        assert find_plateau(curve(7, 4, 3, 2.5, 2.2, seed=seed)) is None
        assert find_plateau(curve(0.1, 0.4, 0.5, 0.6, noise=0.01, seed=seed), rising=True) is None

    def test_a_flat_curve_has_nothing_to_stop(self):
        assert find_plateau(np.full(500, 3.0)) is None


def test_a_trace_tells_all_of_it(tmp_path):
    knn = np.full(1000, math.nan)
    knn[::5] = curve(0.1, 0.5, 0.5, 0.1, 0.1, 0.1, length=200, noise=0.003)
    spread = np.r_[np.full(700, 0.9), np.full(300, 0.01)]
    with TraceWriter(tmp_path / "run", layers=["norm"], meta={"knn": {"classes": 10}}) as writer:
        rows = {
            "loss": curve(7, 3, 3, 3),
            "knn_accuracy": knn,
            "knn_queries": np.full(1000, 2048.0),
            "feature_std": spread,
        }
        writer.extend(np.arange(1000), rows)
    found = findings(open_trace(tmp_path / "run"))
    assert [(one.kind, one.series) for one in found] == [
        ("plateau", "loss"),
        ("collapse", "knn_accuracy"),
        ("collapse", "feature_std"),
    ]
    assert found[2].step == 700
    assert [one.step for one in found] == sorted(one.step for one in found)


def test_an_empty_trace_tells_nothing(tmp_path):
    TraceWriter(tmp_path / "run", layers=["norm"]).close()
    assert findings(open_trace(tmp_path / "run")) == []


def test_one_series_only():
    with pytest.raises(ValueError, match=r"shape \(2, 60\); give one series"):
        find_plateau(np.ones((2, 60)))
