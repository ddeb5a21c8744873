"""Peers' rules, each against its rule written out step by step."""

import math

import numpy as np
import pytest

from foreshock.probes import find_spikes
from foreshock.probes.detectors import detector


def series(seed: int, length: int = 1500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(0, 0.25, length))
    for start in rng.integers(20, length - 20, 12):
        x[start : start + rng.integers(1, 9)] *= rng.uniform(2, 20)
    x[rng.random(length) < 0.005] = np.nan
    x[rng.random(length) < 0.005] = 0.0
    return x


def olmo2(x):
    for t in range(len(x)):
        past = x[:t][-1000:]
        yield len(past) == 1000 and abs(x[t] - np.mean(past)) >= 7 * np.std(past)


def olmo_core(x):
    for t in range(len(x)):
        past = x[:t][-128:]
        yield len(past) + 1 >= 64 and x[t] > np.mean(past) + 6 * np.std(past)


def lightning(x):
    kept = []
    for value in x:
        spike = bool(kept) and abs(value - np.mean(kept[-10:])) >= 2 * np.mean(kept[-10:]) and value > kept[-1]
        if not spike:
            kept.append(value)
        yield spike


def llm_foundry(x):
    outlier = [t >= 100 and x[t] >= 2 * np.mean(x[t - 100 : t]) for t in range(len(x))]
    for t in range(len(x)):
        yield t >= 4 and all(outlier[t - 4 : t + 1])


def zclip(x):
    mean, var = np.mean(x[:25]), np.var(x[:25])
    yield from [False] * 25
    for value in x[25:]:
        z = (value - mean) / (math.sqrt(var) + 1e-6)
        yield z > 2.5
        taken = mean + 2.5**2 * math.sqrt(var) / z if z > 2.5 else value
        mean = 0.97 * mean + 0.03 * taken
        var = 0.97 * var + 0.03 * (taken - mean) ** 2


def rms(x):
    return (value >= 2.3 for value in x)


def cusum(x):
    s, past = 0.0, []
    for value in x:
        fire = False
        if value > 0:
            base = np.array(past[-200:])
            if len(base) >= 64:
                m = np.median(base)
                z = (math.log(value) - m) / max(1.4826 * np.median(np.abs(base - m)), 0.05)
                s = max(0.0, s + z - 1)
                fire = s >= 6
                s = 0.0 if fire else s
            past.append(math.log(value))
        yield fire


@pytest.mark.parametrize(
    "twin", [olmo2, olmo_core, lightning, llm_foundry, zclip, rms, cusum], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("seed", [1, 2])
def test_rule_is_its_definition(twin, seed):
    x = series(seed)
    found = detector(twin.__name__)
    scores, _ = found.detect(x, None, found.configure({}))
    finite = np.isfinite(x)
    expected = np.array(list(twin(x[finite])))
    assert expected.any()
    np.testing.assert_array_equal(scores.flags[finite] == 1, expected)


@pytest.mark.parametrize("seed", range(20))
def test_find_peaks_is_scipys(seed):
    from scipy.signal import find_peaks

    rng = np.random.default_rng(seed)
    window, ratio = int(rng.integers(9, 90)), float(rng.uniform(1.1, 4))
    x = (
        np.exp(rng.normal(0, 0.5, int(rng.integers(1, 600)))).round(1 if seed % 2 else 9) + 0.1
    )  # with plateaus, without
    y = np.log(x)
    expected, told = find_peaks(y, prominence=math.log(ratio), wlen=window, plateau_size=(None, window // 2 // 2))
    found = detector("find_peaks")
    settings = found.configure({"window": window, "ratio": ratio})
    assert found.finish is not None
    first, state = found.detect(x, None, settings)
    rest, _ = found.finish(state, settings)
    flags, score = np.r_[first.flags, rest.flags], np.r_[first.score, rest.score]
    assert np.flatnonzero(flags).tolist() == expected.tolist()
    np.testing.assert_allclose(score[expected], told["prominences"])


def test_find_peaks_flags_the_peak_only_and_finds_the_rise_before_it():
    x = np.full(300, 0.5)
    x[100:109] = 0.5 * np.array([1.2, 2, 4, 8, 16, 8, 4, 2, 1.2])
    (spike,) = find_spikes(x, detector="find_peaks")
    assert (spike.start, spike.peak, spike.end) == (104, 104, 104)
    assert spike.onset == 102  # half of 16-fold is 4-fold
    assert spike.ratio == pytest.approx(16)
    x[295] = 9.0  # the end of the series comes before its window does
    assert [s.peak for s in find_spikes(x, detector="find_peaks")] == [104, 295]


def test_olmo2_sees_drops_and_olmo_core_does_not():
    x = np.tile([9.5, 10.5], 600)
    x[1100] = 0.5
    (drop,) = find_spikes(x, detector="olmo2")
    assert (drop.onset, drop.ratio) == (1100, 0.05)
    assert drop.area < 0
    assert find_spikes(x, detector="olmo_core") == []


def test_llm_foundry_window_grows_with_the_run():
    found = detector("llm_foundry")
    assert found.configure({}).full == 100
    assert found.configure({"total_steps": 4000}).full == 200


def test_every_peer_finds_a_big_burst():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(0, 0.05, 1300))
    x[1200:1208] *= 10
    for name in ("cusum", "lightning", "llm_foundry", "olmo2", "olmo_core", "rms", "zclip", "robust", "robust_z"):
        spikes = [s for s in find_spikes(x, detector=name) if 1200 <= s.start <= 1210]
        assert len(spikes) == 1, name
