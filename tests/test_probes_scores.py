"""A run's scores, by hand."""

import numpy as np
import pytest

from foreshock.probes import Dip, find_spikes, run_scores, spike_score
from foreshock.traces import TraceWriter, open_trace


def noise(layers, length=4000, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, 0.05, (layers, length)))


def test_rates_shares_and_the_worst_layer():
    x = noise(2)
    for at in (1000, 2000, 3000):
        x[1, at : at + 4] *= 8
    x[0, 2002:2010] *= 8
    scores = run_scores(x, olmo=False)
    assert (scores.steps, scores.layers, scores.worst_layer) == (4000, 2, "1")
    assert scores.spikes_per_10k == pytest.approx(10_000 * 4 / 4000 / 2)
    assert scores.worst_per_10k == pytest.approx(10_000 * 3 / 4000)
    assert scores.share_in_spike == pytest.approx((4 + 10 + 4) / 4000, abs=0.0006)
    assert (scores.dips, scores.dip_mass, scores.olmo2, scores.olmo_core) == (None, None, None, None)


def test_no_spike_no_worst_layer():
    scores = run_scores(noise(1), olmo=False)
    assert (scores.worst_layer, scores.spikes_per_10k, scores.share_in_spike) == (None, 0, 0)
    assert run_scores(np.empty((1, 0))).steps == 0


def test_a_trace_brings_its_dips_and_warm_up(tmp_path):
    x = noise(2).astype(np.float32)
    x[:, [500, 3000]] *= 8
    knn = np.full(4000, 0.6)
    knn[2000:2010] = 0.4
    with TraceWriter(tmp_path / "run", layers=["a", "b"], meta={"warmup_steps": 1000}) as writer:
        writer.extend(np.arange(4000), {"grad_norm": x, "knn_accuracy": knn})
    trace = open_trace(tmp_path / "run")
    scores = run_scores(trace)
    assert (scores.steps, scores.dips) == (3000, 1)
    assert scores.spikes_per_10k == pytest.approx(10_000 / 3000)
    assert scores.dip_mass == pytest.approx(10 * 0.2, rel=0.2)
    assert scores.olmo2 == pytest.approx(2 / 8000)  # the first of the two comes before the window is full
    assert scores.olmo_core == pytest.approx(4 / 8000)
    assert run_scores(trace, spikes=find_spikes(trace), dips=[]).dip_mass == 0
    assert run_scores(trace, dips=[Dip(0, 1, 1, None, 0.1, 7.0, None, None, "unrecovered", 0.5, None)]).dip_mass == 7


def test_spike_score_is_the_share_of_flagged_values_whatever_the_blocks(tmp_path, monkeypatch):
    x = noise(3, 3000, seed=1)
    x[:, 2500:2503] *= 20
    x[2, :1000] = np.nan
    with TraceWriter(tmp_path / "run", layers=["a", "b", "c"]) as writer:
        writer.extend(np.arange(3000), {"grad_norm": x})
    trace = open_trace(tmp_path / "run")
    whole = spike_score(trace, "olmo_core")
    assert 6 / 8000 <= whole <= 9 / 8000
    monkeypatch.setattr("foreshock.probes.series._BLOCK_VALUES", 1)
    assert spike_score(trace, "olmo_core") == whole
    assert spike_score(np.full((1, 100), 0.5), "find_peaks") == 0
    with pytest.raises(ValueError, match="unknown detector 'olmo'"):
        spike_score(x, "olmo")
