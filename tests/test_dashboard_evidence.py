"""The precursor view: lags and mean curves against slow twins, its panels for any run, "not testable" said in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.dashboard.evidence import AFTER, BEFORE, Evidence, Evidences, around, lags
from foreshock.dashboard.follow import Follower
from foreshock.dashboard.panels import panels_in
from foreshock.dashboard.views.precursors import facts, verdict

PLANTED = tuple(synthetic.Planted(at, 6.0, dip=0.12) for at in range(400, 2400, 250))


def evidence(folder: Path, made: synthetic.Made, layer: str = "") -> Evidence:
    return Evidences().of(Follower("a", synthetic.write_run(folder / "a", made)).snapshot(), layer)


def test_planted_precursors_are_found(tmp_path: Path) -> None:
    found = evidence(tmp_path, synthetic.make(2500, 3, planted=PLANTED), "patch_embed")
    assert verdict(found).startswith("Spikes precede dips: ")
    assert "What precedes need not cause" in facts(found)
    assert found.lags is not None
    assert found.lags.seen[:3].sum() >= 6
    assert found.knn is not None
    low = int(np.nanargmin(found.knn.seen))
    assert 0 < found.knn.at[low] < 40
    assert found.knn.seen[low] < found.knn.low[low]
    drawn = {name: panel.draw(found) for name, panel in panels_in("precursors").items()}
    assert "below the band of chance" in drawn["precursor_knn"].words
    assert [row[0] for row in drawn["precursor_rates"].tables[0].rows] == ["8", "16", "32", "64", "128"]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (synthetic.make(1500, 2), "at least 5 are needed"),
        (synthetic.make(1500, 2, planted=()), "Not testable: 0 dips"),
        (synthetic.without(synthetic.make(1500, 2), "knn_accuracy", "knn_queries"), "Not testable: 0 dips"),
        (synthetic.make(1500, 2, frozen=synthetic.layer_names(2)), "Not testable"),
    ],
)
def test_too_little_is_not_testable_and_drawn_all_the_same(tmp_path: Path, made: synthetic.Made, why: str) -> None:
    for layer in ("", "norm", "nothing"):
        found = evidence(tmp_path, made, layer)
        assert why in verdict(found)
        for panel in panels_in("precursors").values():
            drawn = panel.draw(found)
            assert drawn.words or drawn.figure["layout"]["annotations"]
            json.dumps(drawn.figure, allow_nan=False)
        shutil.rmtree(tmp_path / "a")


def test_a_report_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Follower("a", synthetic.write_run(tmp_path / "a", synthetic.make(1500, 2))).snapshot()
    kept = Evidences()
    first = kept.of(snapshot, "patch_embed").report
    monkeypatch.setattr("foreshock.dashboard.evidence.precursors", None)
    assert kept.of(snapshot, "norm").report is first


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_lags_are_those_of_the_slow_twin(seed: int, spikes: int, dips: int) -> None:
    rng = np.random.default_rng(seed)
    onsets, by = np.sort(rng.integers(0, 600, spikes)), np.sort(rng.integers(0, 600, dips))
    slow = np.zeros(16)
    for onset in onsets:
        later = [at - onset for at in by if at > onset]
        if later and min(later) <= 128:
            slow[(min(later) - 1) // 8] += 1
    np.testing.assert_array_equal(lags(onsets, by, by[None]).seen, slow)


def test_the_mean_curve_is_that_of_the_slow_twin() -> None:
    rng = np.random.default_rng(3)
    steps = np.arange(100, 1500, 2)
    values = np.where(rng.random(len(steps)) < 0.4, rng.random(len(steps)), np.nan)
    onsets = np.array([150, 420, 900, 1490])
    width = 8
    starts = np.arange(-BEFORE // width * width, AFTER + 1, width)[:-1]

    def mean(low: int, high: int) -> float:
        inside = values[(steps >= low) & (steps < high)]
        inside = inside[np.isfinite(inside)]
        return float(inside.mean()) if len(inside) else float("nan")

    curves = [
        [mean(onset + start, onset + start + width) - mean(onset - BEFORE, onset) for start in starts]
        for onset in onsets
    ]
    found = around(steps, values, onsets, onsets[None], width)
    np.testing.assert_allclose(found.seen, np.nanmean(curves, axis=0))
    np.testing.assert_allclose(found.low, found.seen)
