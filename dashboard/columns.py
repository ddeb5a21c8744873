"""A run's rows put into at most a few hundred columns: minimum, maximum and mean of each, relative to a layer's normal.

A column is `width` rows (a power of two), aligned to row 0, so that new rows change the last column and add others
but never move an earlier one: a live picture does not flicker. A zoomed window is cut finer than the rest. Gradient
norms are shown as relative values for the layer, as in the paper (Sec. 4.2, Fig. 4): divided by the median of the 256
rows before.
"""

from __future__ import annotations

__all__ = ["SCALARS", "Columns", "Grid", "Reduced", "baseline", "columns_of", "grid", "median_rows", "width_for"]

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..traces.reader import Trace

BASELINE_ROWS = 256
YOUNG_COLUMNS = 16  # the baseline of the first columns is taken from these, so it moves until they are there
SCALARS = ("loss", "chance_loss", "knn_accuracy", "knn_queries")  # the ones that some panel draws


def width_for(rows: int, columns: int) -> int:
    """The smallest power of two that cuts `rows` rows into at most `columns` columns.

    >>> width_for(1500, 1000), width_for(10, 1000)
    (2, 1)
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}, it must be at least 1: give the number of pixels there are")
    return 1 << max(0, -(-rows // columns) - 1).bit_length()


@dataclass(frozen=True)
class Grid:
    """Row ranges `(start, stop, rows a column)` that follow each other; `width` is that of the coarse ones."""

    pieces: tuple[tuple[int, int, int], ...]
    width: int

    @property
    def starts(self) -> NDArray[np.int64]:
        """The row at which each column begins, i64[n]."""
        parts = [np.arange(start, stop, width, dtype=np.int64) for start, stop, width in self.pieces]
        return np.concatenate([np.empty(0, np.int64), *parts])


def grid(rows: int, columns: int, window: slice | None = None, *, since: int = 0) -> Grid:
    """Columns over `rows` rows, finer inside the row range `window`; or only those from row `since` on.

    >>> grid(100, 10, slice(40, 60)).pieces
    ((0, 32, 16), (32, 64, 4), (64, 100, 16))
    """
    width = width_for(rows, columns)
    if window is None or since:
        return Grid(_pieces((since // width * width, rows, width)), width)
    low = min(rows, max(0, window.start // width * width))
    high = max(low, min(rows, -(-window.stop // width) * width))
    return Grid(_pieces((0, low, width), (low, high, width_for(high - low, columns)), (high, rows, width)), width)


def _pieces(*pieces: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    return tuple(piece for piece in pieces if piece[0] < piece[1])


@dataclass(frozen=True)
class Reduced:
    """Minimum, maximum, mean: f64[..., n], NaN where a column holds no number (the maximum may be inf)."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]

    def __truediv__(self, divisor: NDArray[np.float64]) -> Reduced:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Reduced(self.low / divisor, self.high / divisor, self.mean / divisor)


@dataclass(frozen=True)
class Columns:
    """`steps` f64[n]: each column's middle; `first`, `last` i64[n] steps; `ratio` f64[L, n]; `scalars` f64[n] each."""

    steps: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    ratio: Reduced
    scalars: dict[str, Reduced] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)


def columns_of(trace: Trace, cut: Grid, *, series: str = "grad_norm") -> Columns:
    """The columns of `cut`: the layer series `series` as multiples of each layer's normal, and the `SCALARS` it has."""
    starts = cut.starts
    if len(starts):
        steps = trace.steps
        stop = cut.pieces[-1][1]
        first, last = steps[starts], steps[np.append(starts[1:], stop) - 1]
    else:
        first = last = np.empty(0, np.int64)
    layered = series in trace.series
    ratio = _read(trace, series, cut) / _normal(trace, series, cut) if layered else _nothing(len(trace.layers), starts)
    scalars = {name: _read(trace, name, cut) for name in SCALARS if name in trace.scalars}
    return Columns((first + last) / 2, first, last, ratio, scalars)


def _nothing(layers: int, starts: NDArray[np.int64]) -> Reduced:
    empty = np.full((layers, len(starts)), np.nan)
    return Reduced(empty, empty, empty)


def _read(trace: Trace, name: str, cut: Grid) -> Reduced:
    height = (len(trace.layers),) if name in trace.series else ()
    parts = [
        trace.overview(name, start=start, stop=stop, columns=-(-(stop - start) // width))
        for start, stop, width in cut.pieces
    ]
    empty = np.empty((*height, 0))

    def join(field: str) -> NDArray[np.float64]:
        return np.concatenate([empty, *(getattr(part, field) for part in parts)], axis=-1)

    return Reduced(join("min"), join("max"), join("mean"))


def _normal(trace: Trace, series: str, cut: Grid) -> NDArray[np.float64]:
    """Each column's baseline, f64[L, n]: that of the coarse column in which it starts."""
    starts, width = cut.starts, cut.width
    if not len(starts):
        return np.empty((len(trace.layers), 0))
    reach, hop = _reach(width)
    at = max(0, int(starts[0]) // width - reach) // hop * hop
    at = at if at >= YOUNG_COLUMNS else 0
    coarse = Grid(((at * width, cut.pieces[-1][1], width),), width)
    return baseline(_read(trace, series, coarse).mean, width, at=at)[:, starts // width - at]


def baseline(mean: NDArray[np.float64], width: int, *, at: int = 0) -> NDArray[np.float64]:
    """A layer's normal at each column: the median of the 256 rows' columns before it. `mean`, result: f64[L, n].

    Only earlier columns count (the first 16 share a median), and it moves every 16 rows, so that the result for a
    column does not change when columns are added. `at` is the column number of `mean[:, 0]`: a tail that begins
    early enough (see `_reach`) gives the same numbers as the whole.

    >>> baseline(np.array([[1.0] * 20 + [9.0] * 2]), 1)[0, -1].item()
    1.0
    """
    reach, hop = _reach(width)
    assert at % hop == 0, "a tail starts at a hop"
    assert at == 0 or at >= YOUNG_COLUMNS, "a tail starts past the young columns"
    result = np.empty(mean.shape)
    for begin in range(0, mean.shape[-1], hop):
        young = at + begin < YOUNG_COLUMNS
        before = mean[:, :YOUNG_COLUMNS] if young else mean[:, max(0, begin - reach) : begin]
        result[:, begin : begin + hop] = median_rows(before)[:, None]
    return result


def _reach(width: int) -> tuple[int, int]:
    """How many columns a baseline looks back, and how many columns share one."""
    return max(8, BASELINE_ROWS // width), max(1, 16 // width)


def median_rows(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The median of each row's finite values, f64[L]; NaN, without numpy's warning, where a row has none.

    >>> median_rows(np.array([[1.0, np.nan, 4.0], [np.nan] * 3])).tolist()
    [2.5, nan]
    """
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan).astype(np.float64), axis=-1)  # NaN sorts last
    count = np.isfinite(ordered).sum(axis=-1)
    if not ordered.shape[-1]:
        return np.full(len(ordered), np.nan)
    rows = np.arange(len(ordered))
    below, above = ordered[rows, np.maximum(count - 1, 0) // 2], ordered[rows, np.maximum(count, 1) // 2]
    return np.where(count % 2 == 1, below, (below + above) / 2)
