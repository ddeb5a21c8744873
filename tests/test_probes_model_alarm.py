"""Model-level events: m of n layers, no more false ones than were allowed, correlated layers included."""

import math

import numpy as np
import pytest

from foreshock.probes import Spike, find_spikes, layers_needed, model_events
from foreshock.probes.model_alarm import _tail
from foreshock.traces import TraceWriter, open_trace


def noise(layers, steps, common=0.0, sd=0.3, seed=0):
    """Heavy-tailed log-normal noise, partly the same in all layers."""
    rng = np.random.default_rng(seed)
    y = math.sqrt(common) * rng.standard_t(5, (1, steps)) + math.sqrt(1 - common) * rng.standard_t(5, (layers, steps))
    return np.exp(sd * y)


def spike(layer, start, end=None):
    return Spike(layer, start, start, start, end or start, 3.0, 9.0, 1.0, "spike")


class TestGrouping:
    def test_layers_within_the_window_are_one_event(self):
        spikes = [spike("a", 100, 105), spike("b", 104, 130), spike("c", 112), spike("a", 300), spike("b", 340)]
        (event,) = model_events(spikes, needed=2, within=8)
        assert (event.alarm, event.start, event.end, event.layers) == (104, 100, 130, ("a", "b"))
        (event,) = model_events(spikes, needed=2, within=16)
        assert event.layers == ("a", "b", "c")
        assert event.spikes == tuple(spikes[:3])
        assert model_events(spikes, needed=3, within=16)[0].alarm == 112
        assert model_events(spikes, needed=4, within=16) == []

    def test_one_layer_twice_is_one_layer(self):
        assert model_events([spike("a", 100), spike("a", 112), spike("b", 200)], needed=2) == []

    def test_a_travelling_event_is_one(self):
        spikes = [spike(str(i), 100 + 10 * i) for i in range(8)]
        (event,) = model_events(spikes, needed=2, within=16)
        assert len(event.layers) == 8

    def test_order_of_the_spikes_is_no_matter_and_warm_up_does_not_count(self):
        spikes = [spike("b", 104), spike("a", 100)]
        assert model_events(spikes, needed=2) == model_events(spikes[::-1], needed=2)
        early = [Spike("a", 5, 5, 5, 5, 3.0, 9.0, 1.0, "spike", warmup=True), spike("b", 6)]
        assert model_events(early, needed=2) == []


class TestCalibration:
    @pytest.mark.parametrize("common", [0.0, 0.5, 0.9])
    def test_held_out_noise_keeps_the_promise(self, common):
        false = steps = 0
        for seed in range(3):
            x, half = noise(16, 8000, common, seed=seed), 4000
            falls = find_spikes(1 / x[:, :half], lift=0.0)
            needed = layers_needed(falls, layers=16, steps=half, false_alarms=5)
            false += sum(event.alarm >= half for event in model_events(x, needed=needed))
            steps += half
        allowed = 5 * steps / 10_000
        assert false <= allowed + 2 * math.sqrt(allowed)

    def test_correlated_layers_need_more_of_them(self):
        alone, together = (
            layers_needed(find_spikes(noise(16, 6000, common), z=4.0), layers=16, steps=6000) for common in (0.0, 0.7)
        )
        assert 2 <= alone < together

    def test_more_layers_and_stricter_promises_need_more(self):
        falls = find_spikes(noise(16, 6000), z=4.0, detector="robust_z")
        needed = [layers_needed(falls, layers=16, steps=6000, false_alarms=f) for f in (0.01, 1, 100)]
        assert needed == sorted(needed, reverse=True)
        assert needed[0] > needed[2]

    def test_noise_that_is_everywhere_lets_nothing_through(self):
        everywhere = [spike(str(layer), step) for step in range(0, 2000, 20) for layer in range(4)]
        assert layers_needed(everywhere, layers=4, steps=2000) == 5

    def test_without_noise_two_layers_will_do_and_one_of_one(self):
        assert layers_needed([], layers=12, steps=10_000, unseen=0) == 2
        assert layers_needed([], layers=12, steps=10_000) == 3  # one window of noise in three layers may yet come
        assert layers_needed([], layers=1, steps=10_000, false_alarms=3) == 1

    def test_the_tail_is_scipys(self):
        from scipy.stats import betabinom, binom

        counts = np.array([0] * 60 + [1] * 25 + [2] * 10 + [6] * 5, float)
        mean = (counts.sum() + 0.5) / len(counts)
        p, layers = mean / 10, 10
        rho = (np.square(counts - mean).mean() / (layers * p * (1 - p)) - 1) / (layers - 1)
        expected = betabinom(layers, p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho).sf(3)
        assert _tail(counts, 4, layers) == pytest.approx(expected)
        regular = np.array([1.0] * 50)
        assert _tail(regular, 4, layers) == pytest.approx(binom(layers, 1.01 / 10).sf(3), rel=0.01)


class TestSources:
    def test_a_trace(self, tmp_path):
        x = noise(8, 4000, sd=0.1).astype(np.float32)
        x[2:7, 3000:3004] *= 6
        x[:, 400] *= 9
        x[0, 2000] *= 9
        with TraceWriter(tmp_path / "run", layers=list("abcdefgh"), meta={"warmup_steps": 1000}) as writer:
            writer.extend(np.arange(0, 8000, 2), {"grad_norm": x})
        trace = open_trace(tmp_path / "run")
        (event,) = model_events(trace)
        assert (event.alarm, event.start, event.layers) == (6000, 6000, tuple("cdefg"))
        (same,) = model_events(find_spikes(trace), layers=trace.layers)
        assert same.spikes == event.spikes
        assert model_events(trace, layer="c", needed=2) == []

    def test_zeros_and_what_is_not_finite_are_no_falls(self):
        x = noise(4, 2000, sd=0.1)
        x[:, ::50] = 0
        x[:, 1000] = np.inf
        (event,) = model_events(x)
        assert (event.start, len(event.layers)) == (1000, 4)

    def test_other_detectors_and_series(self):
        x = noise(6, 3000, sd=0.1)
        x[:, 2000:2003] *= 9
        for name in ("robust_z", "olmo_core", "lightning", "find_peaks"):
            assert 2000 in {event.start for event in model_events(x, detector=name)}, name

    def test_no_spikes_no_events(self):
        assert model_events([]) == model_events(np.ones((3, 500))) == []

    @pytest.mark.parametrize("given", [{"false_alarms": 0}, {"false_alarms": math.nan}, {"within": 0}, {"needed": 0}])
    def test_errors(self, given):
        with pytest.raises(ValueError, match=f"{next(iter(given))}=.* must be"):
            model_events(np.ones((3, 500)), **given)
