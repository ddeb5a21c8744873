"""The pyramid: exact minimum and maximum at any zoom, however the rows arrived."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.errors import UnknownSeriesError
from foreshock.traces.overview import Pyramid, overview_cells, summarise
from foreshock.traces.schema import LEVELS

NAN = np.nan


def slow_cells(values: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
    """The obvious twin: every cell by itself, [4, R, n]."""
    out = np.full((4, len(values), len(edges)), NAN)
    for row, series in enumerate(values):
        for column, (a, b) in enumerate(edges):
            kept = [float(v) for v in series[a:b] if not np.isnan(v)]
            out[3, row, column] = len(kept)
            if kept:
                with np.errstate(invalid="ignore"):
                    out[:3, row, column] = min(kept), max(kept), np.sum(kept) / len(kept)
    return out


def some_values(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    values = np.exp(rng.normal(size=(rows, length)))
    values[rng.random(values.shape) < 0.2] = NAN
    values[rng.random(values.shape) < 0.01] = np.inf
    if length > 40:
        values[0, : length // 2] = NAN  # whole cells without a value
    return values


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 20))
def test_summarise_is_the_slow_loop(seed, length, width):
    values = some_values(np.random.default_rng(seed), 3, length)
    edges = [(a, min(a + width, length)) for a in range(0, length, width)]
    np.testing.assert_allclose(summarise(values, width), slow_cells(values, edges), rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 900), max_size=12))
def test_a_pyramid_is_the_same_however_the_rows_arrive(seed, sizes):
    values = some_values(np.random.default_rng(seed), 2, sum(sizes))
    pyramid, parts = Pyramid(2), {level: [np.empty((4, 2, 0))] for level in LEVELS}
    for block in np.split(values, np.cumsum(sizes), axis=1):
        for level, cells in pyramid.push(block).items():
            parts[level].append(cells)
    for level in LEVELS:
        edges = [(a * level, (a + 1) * level) for a in range(sum(sizes) // level)]
        built = np.concatenate(parts[level], axis=-1)
        np.testing.assert_allclose(built, slow_cells(values, edges), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40_000), st.integers(1, 300), st.data())
def test_cells_cover_the_range_exactly_and_reading_is_bounded(seed, length, columns, data):
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    values = some_values(np.random.default_rng(seed), 2, length)
    built = Pyramid(2).push(values)
    read = {1: 0, **dict.fromkeys(LEVELS, 0)}

    def rows(a, b):
        read[1] += b - a
        return values[:, a:b]

    def cells(level, a, b):
        read[level] += b - a
        return built[level][..., a:b]

    first, got = overview_cells(start, stop, columns, rows, cells)
    assert 1 <= len(first) <= columns
    assert first[0] == start
    assert sum(read.values()) <= 16 * columns + 2 * 15 * len(LEVELS)
    edges = list(zip(first, [*first[1:], stop], strict=True))
    expected = slow_cells(values, edges)
    np.testing.assert_array_equal(got[:2], expected[:2])
    np.testing.assert_array_equal(got[3], expected[3])
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-9)


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory):
    """20,000 steps, every third number, of 4 layers; single-step spikes are planted; kNN is rarely measured."""
    path = tmp_path_factory.mktemp("traces") / "long"
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(size=(4, 20_000))).astype(np.float32)
    norms[2, rng.choice(20_000, 20, replace=False)] = 1e4
    knn = np.full(20_000, NAN)
    knn[::100] = np.linspace(0.1, 0.6, 200)
    with TraceWriter(path, layers=list("abcd")) as writer:
        for part in np.array_split(np.arange(20_000), 37):
            scalars = {"knn_accuracy": knn[part], "loss": np.sin(part)}
            writer.extend(part * 3, {"grad_norm": norms[:, part], **scalars})
    return open_trace(path), norms, knn


@pytest.mark.parametrize("columns", [1, 7, 100, 1500, 30_000])
def test_every_planted_spike_is_in_the_picture_at_every_zoom(long_trace, columns):
    trace, norms, _ = long_trace
    cells = trace.overview("grad_norm", columns=columns)
    assert len(cells.first) <= columns
    where = np.searchsorted(cells.first, np.flatnonzero(norms[2] == 1e4) * 3, side="right") - 1
    assert (cells.max[2, where] == 1e4).all()
    np.testing.assert_array_equal(cells.first[1:], cells.last[:-1] + 3)
    assert (cells.first[0], cells.last[-1]) == (0, 19_999 * 3)
    assert cells.rows.sum() == 20_000


@pytest.mark.parametrize(("start", "stop"), [(0, 20_000), (700, 760), (123, 9_999)])
def test_several_scalars_are_those_of_each(long_trace, start, stop):
    trace, _, _ = long_trace
    both = trace.overview(["loss", "knn_accuracy"], start=start, stop=stop, columns=50)
    for row, name in enumerate(["loss", "knn_accuracy"]):
        alone = trace.overview(name, start=start, stop=stop, columns=50)
        for statistic in ("min", "max", "mean", "count"):
            np.testing.assert_array_equal(getattr(both, statistic)[row], getattr(alone, statistic))
    for wrong in ([], ["loss", "grad_norm"], ["nothing"]):
        with pytest.raises(UnknownSeriesError, match="loss"):
            trace.overview(wrong)


def test_a_range_and_one_layer(long_trace):
    trace, norms, _ = long_trace
    cells = trace.overview("grad_norm", start=1234, stop=9876, columns=50, layer="c")
    whole = trace.overview("grad_norm", start=1234, stop=9876, columns=50)
    np.testing.assert_array_equal(cells.max, whole.max[2])
    assert cells.max.max() == norms[2, 1234:9876].max()
    assert cells.first[0] == 1234 * 3
    assert cells.last[-1] == 9875 * 3


def test_few_rows_are_shown_as_they_are(long_trace):
    trace, norms, _ = long_trace
    cells = trace.overview("grad_norm", start=100, stop=160)
    for values in (cells.min, cells.max, cells.mean):
        np.testing.assert_array_equal(values, norms[:, 100:160])
    assert set(cells.rows) == {1}


def test_the_mean_of_a_scalar_weighs_only_what_was_measured(long_trace):
    trace, _, knn = long_trace
    cells = trace.overview("knn_accuracy", columns=1)
    assert cells.count.tolist() == [200]
    assert cells.mean[0] == pytest.approx(np.nanmean(knn))
    assert cells.min[0] == pytest.approx(0.1)
    sparse = trace.overview("knn_accuracy", columns=1500)
    assert np.isnan(sparse.max[sparse.count == 0]).all()
    assert (sparse.count == 0).any()


def test_an_empty_range_has_no_cells(long_trace):
    trace, _, _ = long_trace
    cells = trace.overview("grad_norm", start=50, stop=50)
    assert cells.max.shape == (4, 0)
    assert len(cells.first) == len(cells.last) == 0


def test_cells_stay_where_they_are_while_a_run_grows(long_trace):
    trace, _, _ = long_trace
    before = trace.overview("grad_norm", stop=17_000, columns=1500)
    after = trace.overview("grad_norm", stop=19_000, columns=1500)
    np.testing.assert_array_equal(after.first[: len(before.first)], before.first)


def test_no_columns_is_an_error(long_trace):
    with pytest.raises(ValueError, match="columns is 0"):
        long_trace[0].overview("grad_norm", columns=0)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 255, 256, 300, 4095, 4096, 4400, 5000])
def test_after_a_truncating_resume_the_pyramid_is_that_of_an_uninterrupted_run(tmp_path, cut):
    values = some_values(np.random.default_rng(3), 3, 9000).astype(np.float32)
    steps = np.arange(9000)
    with TraceWriter(tmp_path / "cut", layers=list("abc")) as writer:
        writer.extend(steps[:5000], {"grad_norm": values[:, :5000] + 1, "loss": np.ones(5000)})
        writer.extend(steps[5000:5100], {"grad_norm": values[:, :100]})
    # The part before the cut must be the same in both runs
    with TraceWriter(tmp_path / "cut", layers=list("abc"), resume_at=0) as writer:
        writer.extend(steps[:5000], {"grad_norm": values[:, :5000], "loss": values[0, :5000]})
    with TraceWriter(tmp_path / "cut", layers=list("abc"), resume_at=cut) as writer:
        writer.extend(steps[cut:], {"grad_norm": values[:, cut:], "loss": values[0, cut:]})
    with TraceWriter(tmp_path / "whole", layers=list("abc")) as writer:
        writer.extend(steps, {"grad_norm": values, "loss": values[0]})
    cut_trace, whole = open_trace(tmp_path / "cut"), open_trace(tmp_path / "whole")
    for name in ("grad_norm", "loss"):
        np.testing.assert_array_equal(cut_trace[name], whole[name])
        for level in LEVELS:
            path = f"overview/{level}/{name if name == 'grad_norm' else 'scalars'}"
            count = 9000 // level
            a, b = (t._snapshot.read(path, 0, count) for t in (cut_trace, whole))
            np.testing.assert_array_equal(a, b)
