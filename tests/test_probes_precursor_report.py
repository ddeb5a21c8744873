"""`precursors`: it sees what was planted, stays calm when nothing was, and says when it cannot tell."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from foreshock.probes import Dip, Spike, precursors

STEPS = 20_000


def spike(at: int, layer: str = "patch_embed") -> Spike:
    return Spike(layer, at, at, at, at + 1, ratio=5.0, z=8.0, area=1.0, kind="spike")


def dip(at: int) -> Dip:
    times = {"onset_after": at - 1, "onset_by": at, "nadir": at + 1, "end": at + 9, "t50": 4, "t90": 8}
    return Dip(**times, depth=0.1, area=0.5, kind="dip", base=0.6, staleness=None)


def world(seed: int, caused: int) -> tuple[list[Spike], list[Dip]]:
    """40 spikes and 12 dips in 20,000 steps; `caused` of the dips come 5 steps after a spike."""
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.choice(np.arange(500, STEPS - 500), 40, replace=False))
    after = [int(at) + 5 for at in onsets[:caused]]
    alone = rng.choice(np.arange(500, STEPS - 500), 12 - caused, replace=False)
    return [spike(int(at)) for at in onsets], [dip(at) for at in sorted({*after, *map(int, alone)})]


def test_dips_that_spikes_caused_are_seen() -> None:
    report = precursors(*world(1, caused=6), STEPS)
    assert report.p is not None
    assert report.p < 0.01
    assert any(row.precursor.hits >= 6 for row in report.rows)


def test_independent_worlds_are_seldom_called_causal() -> None:
    p = [precursors(*world(seed, caused=0), STEPS, surrogates=199).p for seed in range(60)]
    assert sum(value is not None and value <= 0.05 for value in p) <= 8  # 3 expected; more than 8 has p < .01


def test_too_few_dips_are_not_testable() -> None:
    spikes, dips = world(2, caused=4)
    report = precursors(spikes, dips[:4], STEPS)
    assert not report.testable
    assert report.p is None
    assert "not testable" in report.verdict


def test_the_intervals_are_wilsons() -> None:
    row = precursors(*world(3, caused=6), STEPS).table()[0]
    interval = binomtest(row["precursor_hits"], row["precursor_trials"]).proportion_ci(method="wilson")
    assert (row["precursor_low"], row["precursor_high"]) == pytest.approx((interval.low, interval.high))


def test_five_runs_are_permuted_against_each_other_too() -> None:
    spikes, dips = zip(*(world(seed, caused=6) for seed in range(5)), strict=True)
    report = precursors(list(spikes), list(dips), [STEPS] * 5)
    tested = [row for row in report.rows if row.p is not None]
    assert all(row.p_session is not None for row in tested)
    assert all(row.p >= max(row.p_block, row.p_session) - 1e-12 for row in tested)
    assert report.p < 0.05


def test_the_same_seed_gives_the_same_report_and_its_json_is_strict() -> None:
    first, second = (precursors(*world(4, caused=3), STEPS, seed=7).to_json() for _ in range(2))
    assert first == second
    json.loads(first, parse_constant=lambda name: pytest.fail(name))
