"""`onset_order`: no lag where layers rise together, however high they rise; the true lag where they don't."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import page_trend_test, permutation_test, rankdata, spearmanr

from foreshock.probes import Spike, onset_order
from foreshock.probes.rank_tests import midranks, sign_flips, slopes, trend
from foreshock.probes.rises import events_of, half_rises, rises

LAYERS, EVENTS, GAP = 12, 12, 300
AT = 200 + GAP * np.arange(EVENTS)


def world(seed: int, lag: float = 0.0, first: float = 12.0, last: float = 4.0, sd: float = 0.2) -> np.ndarray:
    """Norms f[L, T]: each event rises in 8 steps, by `first` in the first layer to `last` in the last, `lag` later."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_t(5, (LAYERS, GAP * EVENTS + 200)) * np.sqrt(3 / 5)
    for t in range(1, noise.shape[1]):
        noise[:, t] = 0.55 * noise[:, t - 1] + np.sqrt(1 - 0.55**2) * noise[:, t]
    depth = np.arange(LAYERS)[:, None] / (LAYERS - 1)
    log_norm = sd * noise
    for at in AT:
        since = np.arange(noise.shape[1]) - at - lag * depth
        shape = np.where(since <= 0, 0, np.where(since < 8, since / 8, np.exp(-(np.maximum(since, 8) - 8) / 12)))
        log_norm += np.log(first + (last - first) * depth) * shape
    return np.exp(log_norm)


def test_the_amplitude_trap_is_one_and_does_not_catch_us() -> None:
    orders = [onset_order(world(seed), AT, surrogates=99, seed=seed) for seed in range(40)]
    over = world(0) > 2.0  # the trap: a threshold at twice the calm level
    crossed = [[int(row[at - 20 :].argmax()) for row in over] for at in AT]
    assert np.mean([row[-1] - row[0] for row in crossed]) > 1.0
    assert abs(np.mean([order.first_to_last for order in orders])) <= 0.5
    assert sum(order.p <= 0.05 for order in orders) <= 6  # 2 expected; more than 6 has p < .01
    assert sum(order.p_reverse <= 0.05 for order in orders) <= 6


@pytest.mark.parametrize(("first", "last"), [(12.0, 4.0), (4.0, 12.0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_true_lag_of_six_is_found(seed: int, first: float, last: float) -> None:
    order = onset_order(world(seed, 6.0, first, last, sd=0.11), AT, surrogates=199)
    assert order.first_to_last == pytest.approx(6, abs=1)
    assert order.low <= order.steps_per_layer <= order.high
    assert order.p is not None
    assert order.p <= 0.01
    assert order.verdict.startswith("earlier layers rise first")
    assert max(order.first, key=order.first.get) in order.layers[:3]
    counted = {name: sum(name in who for who in order.leaders) for name in order.layers}
    assert all(counted[name] >= len(order.onsets) * share - 1e-9 for name, share in order.first.items())
    assert sum(row["first"] for row in order.table()) == sum(map(len, order.leaders)) >= len(order.onsets)


def test_the_other_direction_is_told_as_such() -> None:
    order = onset_order(world(0, sd=0.11, lag=6.0)[::-1], AT, surrogates=199)
    assert order.first_to_last == pytest.approx(-6, abs=1)
    assert order.verdict.startswith("later layers rise first")


def test_a_lag_much_longer_than_the_rise_is_found() -> None:
    x = np.exp(np.random.default_rng(0).normal(0, 0.1, (8, 3000)))
    for at in range(300, 3000, 300):
        for depth in range(8):
            x[depth, at + 5 * depth : at + 5 * depth + 3] *= 8 - depth / 2
    order = onset_order(x, range(300, 3000, 300), within=64, surrogates=199)
    assert order.steps_per_layer == pytest.approx(5, abs=0.1)
    assert order.p is not None
    assert order.p <= 0.05


def test_spikes_are_found_when_none_are_given_and_the_same_seed_gives_the_same_json() -> None:
    first, second = (onset_order(world(1, 6.0, sd=0.11), surrogates=99).to_json() for _ in range(2))
    assert first == second
    told = json.loads(first, parse_constant=lambda name: pytest.fail(name))
    assert len(told["onsets"]) == EVENTS
    assert told["verdict"]


def test_few_events_are_described_but_not_tested() -> None:
    order = onset_order(world(0, 6.0, sd=0.11), AT[:4])
    assert not order.testable
    assert order.p is None
    assert order.first_to_last == pytest.approx(6, abs=1.5)
    assert "not testable: 4 events" in order.verdict
    nothing = onset_order(world(0), [])
    assert nothing.verdict.startswith("not testable: 0 events")
    json.loads(nothing.to_json())
    assert "not testable" in nothing._repr_html_()
    nothing.figure()


def test_frozen_and_silent_layers_are_left_out_and_gaps_bridged() -> None:
    x = world(2, 6.0, sd=0.11)
    x[3] = np.nan
    x[5] = np.exp(np.random.default_rng(9).normal(0, 0.1, x.shape[1]))
    x[:, AT[2] + 3] = np.nan
    order = onset_order(x, AT, surrogates=199)
    assert order.layers == tuple(str(k) for k in range(LAYERS) if k not in (3, 5))
    assert order.steps_per_layer * (LAYERS - 1) == pytest.approx(6, abs=1.5)


def test_the_report_tells_of_ties_and_shows_itself() -> None:
    x = np.full((4, 3000), 0.5)
    for at in range(500, 3000, 500):
        x[:, at : at + 4] = 5.0
    order = onset_order(x, range(500, 3000, 500))
    assert order.ties == 1
    assert set(order.first.values()) == {0.25}
    assert set(order.correlation) == {None}
    assert order.p == 1
    assert len(order.table()) == 5 * 4
    assert "<th>3</th>" in order._repr_html_()
    assert len(order.figure().data) == 5 + 2


@pytest.mark.parametrize(
    ("options", "says"), [({"within": 0}, "within"), ({"surrogates": 3}, "surrogates"), ({"alpha": 2}, "alpha")]
)
def test_bad_options_are_named(options: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        onset_order(np.ones((3, 100)), [50], **options)


onsets_in_events = st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=2, max_size=6)


@given(onsets_in_events)
def test_ranks_page_l_and_correlations_are_scipys(rows: list[list[int]]) -> None:
    times = np.array(rows, float)
    assert midranks(times) == pytest.approx(rankdata(times, axis=1))
    found = trend(times, times[None].repeat(9, 0), np.random.default_rng(0))
    assert found.page_l == pytest.approx(page_trend_test(rankdata(times, axis=1), ranked=True).statistic)
    for row, r in zip(times, found.correlation, strict=True):
        if len(set(row)) > 1:
            assert r == pytest.approx(spearmanr(range(5), row).statistic)
        else:
            assert np.isnan(r)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_sign_flips_are_scipys_permutation_test(values: list[int]) -> None:
    array = np.array(values, float)
    ours = sign_flips(array, 256, np.random.default_rng(0))
    for p, side in zip(ours, ("greater", "less"), strict=True):
        twin = permutation_test((array,), np.sum, permutation_type="samples", alternative=side, n_resamples=np.inf)
        assert p == pytest.approx(twin.pvalue)


@given(st.lists(st.one_of(st.none(), st.integers(0, 50)), min_size=3, max_size=8))
def test_slopes_are_least_squares(row: list[int | None]) -> None:
    known = [(depth, at) for depth, at in enumerate(row) if at is not None]
    ours = slopes(np.array([np.nan if at is None else at for at in row]))
    assert ours == pytest.approx(np.polyfit(*zip(*known, strict=True), 1)[0] if len(known) > 1 else 0, abs=1e-6)


@given(st.lists(st.floats(-1, 3), min_size=4, max_size=40))
def test_half_rises_count_what_lies_below_half_before_the_peak(heights: list[float]) -> None:
    top = max(heights)
    twin = sum(height < top / 2 for height in heights[: heights.index(top)])
    found = half_rises(np.array(heights), np.array(0.05))
    assert found == twin if top >= np.log(1.5) else np.isnan(found)


def test_events_join_spikes_of_all_layers_and_reach_to_the_last_peak() -> None:
    def spike(layer: str, onset: int, peak: int) -> Spike:
        return Spike(layer, onset, onset, peak, peak, ratio=5.0, z=9.0, area=2.0, kind="spike")

    found = events_of([spike("b", 130, 135), spike("a", 100, 150), spike("a", 190, 190)], within=32)
    assert found == [(100, 150), (190, 190)]


def test_an_event_too_near_the_beginning_is_left_out() -> None:
    x = np.full((3, 400), 0.5)
    x[:, 50:54] = x[:, 300:304] = 5.0
    assert [list(event.onsets) for event in rises(x, np.arange(400), [(50, 50), (300, 300)], 32)] == [[300.0] * 3]
