"""`compare`: ratios and differences over seeds, with intervals that cover what they should."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from foreshock.cli.__main__ import main
from foreshock.probes import compare
from foreshock.probes.compare import final_accuracy
from foreshock.probes.mean_difference import mean_difference
from foreshock.probes.quantiles import beta_cdf, beta_quantile, t_quantile
from foreshock.probes.rate_ratio import clopper_pearson, permuted_seeds, rate_ratio
from foreshock.traces import Trace, TraceWriter, open_trace

LAYERS = ("patch_embed", "blocks.00", "norm")
positive = st.floats(0.3, 300)


@given(positive, positive, st.floats(0.001, 0.999))
def test_beta_is_scipys(a: float, b: float, p: float) -> None:
    assert beta_cdf(p, a, b) == pytest.approx(stats.beta.cdf(p, a, b), abs=1e-9)
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), abs=1e-8)


@given(st.floats(0.5001, 0.9999), st.floats(1, 1000))
def test_students_t_is_scipys(p: float, degrees: float) -> None:
    assert t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-6, abs=1e-9)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_exact_interval_and_p_are_the_binomials(a: int, b: int) -> None:
    found = rate_ratio([a], [3000], [b], [1000])
    if not a + b:
        assert (found.exact_low, found.exact_high, found.exact_p) == (0, math.inf, 1)
        return
    test = stats.binomtest(a, a + b, 0.75)
    interval = test.proportion_ci(method="exact")
    assert clopper_pearson(a, a + b) == pytest.approx((interval.low, interval.high), abs=1e-9)
    twice = 2 * min(stats.binom.sf(a - 1, a + b, 0.75), stats.binom.cdf(a, a + b, 0.75))
    assert found.exact_p == pytest.approx(min(1, twice), abs=1e-9)
    assert found.exact_low <= (found.ratio if b else math.inf) <= found.exact_high
    assert (found.low, found.high) == (found.exact_low, found.exact_high)  # one seed a side: no scatter to judge by


@given(st.lists(st.integers(0, 12), min_size=6, max_size=8))
def test_permuted_seeds_are_scipys_permutation_test(counts: list[int]) -> None:
    values = np.array(counts, float)
    ours, least = permuted_seeds(values, np.ones(len(values)), 3, 9999, np.random.default_rng(0))
    twin = stats.permutation_test(
        (values[:3], values[3:]), lambda a, b: abs(a.mean() - b.mean()), alternative="greater", n_resamples=9999
    )
    assert ours == pytest.approx(twin.pvalue)
    assert ours >= least - 1e-12


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_welchs_interval_is_scipys(a: list[float], b: list[float]) -> None:
    found = mean_difference(a, b)
    if min(np.var(a), np.var(b)) < 1e-6:  # there scipy loses its digits; it must not fail
        assert found.low <= found.difference <= found.high
        return
    twin = stats.ttest_ind(a, b, equal_var=False)
    interval = twin.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(twin.pvalue, abs=1e-9)


@pytest.mark.parametrize("scatter", [0.0, 0.3])
def test_the_interval_covers_the_true_ratio_however_the_seeds_scatter(scatter: float) -> None:
    rng = np.random.default_rng(0)

    def draw(mean: float) -> np.ndarray:
        return rng.poisson(rng.gamma(1 / scatter, scatter * mean, 5) if scatter else np.full(5, mean))

    found = [rate_ratio(draw(8), [1000] * 5, draw(20), [1000] * 5, permutations=200) for _ in range(150)]
    assert np.mean([one.low <= 0.4 <= one.high for one in found]) >= 0.92  # .95 less 2.4 standard errors
    exact = np.mean([one.exact_low <= 0.4 <= one.exact_high for one in found])
    assert exact < 0.85 if scatter else exact >= 0.92
    same = [rate_ratio(draw(20), [1000] * 5, draw(20), [1000] * 5, permutations=200) for _ in range(150)]
    assert np.mean([one.p <= 0.05 for one in same]) <= 0.08


def test_three_seeds_a_side_cannot_reach_five_percent_by_permutation_and_that_is_told() -> None:
    found = rate_ratio([1, 0, 1], [1000] * 3, [20, 22, 19], [1000] * 3)
    assert (found.seeds_p, found.seeds_least) == (0.1, 0.1)
    assert found.p == found.dispersed_p < 0.001
    assert rate_ratio([1], [10], [2], [10]).seeds_p is None


def make_run(
    path: Path, *, spikes: int, seed: int, level: float = 0.6, freeze: bool = False, rows: int = 4000
) -> Trace:
    """`spikes` events in all layers, each with a dip 10 steps later."""
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(0, 0.1, (3, rows))).astype(np.float32)
    accuracy = level + rng.normal(0, 0.002, rows)
    for at in np.linspace(600, rows - 200, spikes, dtype=int):
        norms[:, at : at + 3] *= 6
        accuracy[at + 10 : at + 30] -= 0.1
    if freeze:
        norms[0] = np.nan
    with TraceWriter(path, layers=LAYERS, meta={"warmup_steps": 200}) as writer:
        writer.extend(np.arange(rows), {"grad_norm": norms, "knn_accuracy": accuracy})
    return open_trace(path)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trace], list[Trace]]:
    folder = tmp_path_factory.mktemp("sides")
    frozen = [make_run(folder / f"a{k}", spikes=1 + k % 2, seed=k, level=0.62, freeze=True) for k in range(4)]
    return frozen, [make_run(folder / f"b{k}", spikes=9 + k, seed=9 + k) for k in range(4)]


def test_a_cure_is_seen_in_events_dips_and_accuracy(sides: tuple[list[Trace], list[Trace]]) -> None:
    found = compare(*sides)
    assert found.spikes.by_seed == ((1, 2, 1, 2), (9, 10, 11, 12))  # all layers of one event count once
    assert found.dips is not None
    assert found.dips.by_seed == found.spikes.by_seed
    assert found.spikes.steps == (4 * 3800, 4 * 3800)  # the warm-up doesn't count
    assert found.spikes.ratio == pytest.approx(6 / 42)
    assert found.spikes.low < 6 / 42 < found.spikes.high < 0.5
    assert found.spikes.p <= 0.03
    assert found.accuracy is not None
    assert found.accuracy.difference == pytest.approx(0.02, abs=0.004)
    assert "spike events rarer: 0.14 times as many" in found.verdict
    assert found.layers == ("blocks.00", "norm")
    assert any("patch_embed" in note for note in found.notes)


def test_the_report_is_strict_json_a_table_and_html(sides: tuple[list[Trace], list[Trace]]) -> None:
    found = compare(sides[0][:1], sides[1][:1])
    told = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert told["accuracy"]["low"] is None
    assert any("fewer than 3 seeds" in note for note in found.notes)
    assert [row["quantity"] for row in found.table()] == ["spike events", "dips", "final accuracy"]
    assert "<th>effect</th>" in found._repr_html_()
    assert found.to_json() == compare(sides[0][:1], sides[1][:1]).to_json()


def test_the_figure_draws_the_intervals_and_the_seeds(sides: tuple[list[Trace], list[Trace]]) -> None:
    found = compare(*sides)
    assert found.dips is not None
    assert found.accuracy is not None
    drawn = {trace.name: trace for trace in found.figure().data}
    for name, rates in (("spike events", found.spikes), ("dips", found.dips)):
        bars, (middle,) = drawn[name].error_x, drawn[name].x
        assert middle - bars.arrayminus[0] == pytest.approx(max(rates.low, 0.001))
        assert middle + bars.array[0] == pytest.approx(min(rates.high, 1000))
    assert [list(drawn[name].y) for name in "ab"] == [[100 * x for x in side] for side in found.accuracy.by_seed]


def test_runs_that_cannot_be_compared_are_refused(sides: tuple[list[Trace], list[Trace]]) -> None:
    with pytest.raises(ValueError, match="0 runs"):
        compare([], sides[1])
    with pytest.raises(ValueError, match="not every run measured patch_embed"):
        compare(*sides, layers=["patch_embed"])
    with pytest.raises(ValueError, match="no evaluation"):
        final_accuracy(np.array([np.nan]))


@pytest.mark.parametrize("counts", [([], [1]), ([-1], [1]), ([1, 2], [1])])
def test_counts_that_cannot_be_are_refused(counts: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="give"):
        rate_ratio(counts[0], [100], counts[1], [100])


def test_the_command(sides: tuple[list[Trace], list[Trace]], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [[str(run.path) for run in side] for side in sides]
    assert main(["compare", *paths[0], "--versus", *paths[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spikes"]["events"] == [6, 42]
    assert main(["compare", *paths[0], "--versus", *paths[1]]) == 0
    assert "spike events rarer" in capsys.readouterr().out
    assert main(["compare", *paths[0]]) == 2
    assert "--versus" in capsys.readouterr().err
