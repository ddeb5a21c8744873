"""A run's rows put into at most a few hundred columns: minimum, maximum and mean of each, relative to a layer's normal.

A column is `width` rows (a power of two), aligned to row 0, so that new rows change the last column and add others
but never move an earlier one: a live picture does not flicker. A zoomed window is cut finer than the rest. Gradient
norms are shown as relative values for the layer, as in the paper (Sec. 4.2, Fig. 4): divided by the median of the 256
rows before.
"""

from __future__ import annotations

__all__ = [
    "SCALES",
    "Columns",
    "Grid",
    "Reduced",
    "baseline",
    "columns_of",
    "grid",
    "inside",
    "median_rows",
    "width_for",
]

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..traces.reader import Trace

BASELINE_ROWS = 256
_Normal = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
YOUNG_COLUMNS = 16  # the baseline of the first columns is taken from these, so it moves until they are there
SCALES = ("ratio", "z", "norm")  # of the map of all layers: multiple of normal, robust z, the norm itself
SPREAD_FLOOR = 0.05  # log units; the detector's own, so that a very quiet layer does not light up


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


def inside(rows: int, columns: int, window: slice) -> Grid:
    """Only the columns in the row range `window`, a quarter of it wider on both sides so that a small pan shows more.

    They begin and end where coarse columns of `grid(rows, columns)` do, so that they can take those columns' place.

    >>> inside(1000, 10, slice(400, 600)).pieces
    ((256, 768, 64),)
    """
    width, extra = width_for(rows, columns), max(0, window.stop - window.start) // 4
    low = min(rows, max(0, (window.start - extra) // width * width))
    high = max(low, min(rows, -(-(window.stop + extra) // width) * width))
    return Grid(_pieces((low, high, width_for(high - low, columns * 3 // 2))), width)


def _pieces(*pieces: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    return tuple(piece for piece in pieces if piece[0] < piece[1])


@dataclass(frozen=True)
class Reduced:
    """Minimum, maximum, mean: f[..., n], NaN where a column holds no number (the maximum may be inf)."""

    low: NDArray[np.floating]
    high: NDArray[np.floating]
    mean: NDArray[np.floating]

    def __getitem__(self, row: int) -> Reduced:
        return Reduced(self.low[row], self.high[row], self.mean[row])

    def __truediv__(self, divisor: NDArray[np.floating]) -> Reduced:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Reduced(self.low / divisor, self.high / divisor, self.mean / divisor)


@dataclass(frozen=True)
class Columns:
    """`steps` f64[n]: each column's middle; `first`, `last` i64[n] steps; `ratio` f[L, n]; `scalars` f64[n] each.

    `heat` f[L, n] is what the map of all layers shows, on the scale asked for: of each column the highest value.
    """

    steps: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    ratio: Reduced
    heat: NDArray[np.floating]
    scalars: dict[str, Reduced] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.steps)


def columns_of(
    trace: Trace, cut: Grid, *, series: str = "grad_norm", scale: str = "ratio", scalars: Sequence[str] = ()
) -> Columns:
    """The columns of `cut`: the layer series `series` as multiples of each layer's normal, and the `scalars` it has."""
    starts = cut.starts
    if len(starts):
        steps = trace.steps
        stop = cut.pieces[-1][1]
        first, last = steps[starts], steps[np.append(starts[1:], stop) - 1]
    else:
        first = last = np.empty(0, np.int64)
    if series in trace.series:
        values = _read(trace, series, cut)
        normal, usual, spread = _normal(trace, series, cut, scale)
        ratio = values / normal
        heat = ratio.high if scale == "ratio" else values.high
        if scale == "z":
            with np.errstate(divide="ignore", invalid="ignore"):
                heat = (np.log(heat) - usual) / spread
    else:
        heat = np.full((len(trace.layers), len(starts)), np.nan)
        ratio = Reduced(heat, heat, heat)
    known = [name for name in scalars if name in trace.scalars]
    curves = _read(trace, known, cut) if known else None
    each = {name: curves[row] for row, name in enumerate(known)} if curves is not None else {}
    return Columns((first + last) / 2, first, last, ratio, heat, each)


def _read(trace: Trace, name: str | Sequence[str], cut: Grid) -> Reduced:
    parts = [
        trace.overview(name, start=start, stop=stop, columns=max(1, -(-(stop - start) // width)))
        for start, stop, width in cut.pieces or ((0, 0, 1),)
    ]

    def join(field: str) -> NDArray[np.floating]:
        return np.concatenate([getattr(part, field) for part in parts], axis=-1)

    return Reduced(join("min"), join("max"), join("mean"))


# What is normal over a whole run, by the trace as it was at one commit: every zoom into it asks the same.
_of_whole_runs: WeakKeyDictionary[Trace, dict[tuple[str, int, str], _Normal]] = WeakKeyDictionary()


def _normal(trace: Trace, series: str, cut: Grid, scale: str) -> _Normal:
    """Each column's baseline, f64[L, n], and for the z scale also the usual log maximum and its spread.

    They are those of the coarse column in which a column starts.
    """
    starts, width = cut.starts, cut.width
    if not len(starts):
        none = np.empty((len(trace.layers), 0))
        return none, none, none
    whole = _of_whole_runs.setdefault(trace, {})
    key = series, width, scale
    if key not in whole and (cut.pieces[0][0], cut.pieces[-1][1]) == (0, len(trace)):
        whole[key] = _coarse(trace, series, width, scale, 0, len(trace))
    if key in whole:
        at, found = 0, whole[key]
    else:
        reach, hop = _reach(width)
        back = 2 * reach if scale == "z" else reach  # a spread looks back over medians that look back
        at = max(0, int(starts[0]) // width - back) // hop * hop
        at = at if at >= YOUNG_COLUMNS else 0
        found = _coarse(trace, series, width, scale, at, cut.pieces[-1][1])
    picked = starts // width - at
    normal, usual, spread = (part[:, picked] for part in found)
    return normal, usual, spread


def _coarse(trace: Trace, series: str, width: int, scale: str, at: int, stop: int) -> _Normal:
    """The same for every coarse column from number `at` up to row `stop`."""
    values = _read(trace, series, Grid(((at * width, stop, width),), width))
    normal = baseline(values.mean, width, at=at)
    if scale != "z":
        return normal, normal, normal
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(values.high)
    usual = baseline(log, width, at=at)
    spread = 1.4826 * baseline(np.abs(log - usual), width, at=at)
    return normal, usual, np.maximum(spread, SPREAD_FLOOR)


def baseline(mean: NDArray[np.floating], width: int, *, at: int = 0) -> NDArray[np.float64]:
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
    layers, count = mean.shape
    begins = np.arange(0, count, hop)
    young = at + begins < YOUNG_COLUMNS
    result = np.empty((layers, len(begins)))
    result[:, young] = median_rows(mean[:, :YOUNG_COLUMNS])[:, None]
    if not young.all():
        padded = np.concatenate([np.full((layers, reach), np.nan), mean], axis=1)
        before = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=1)[:, begins[~young]]
        result[:, ~young] = median_rows(before)
    return np.repeat(result, hop, axis=1)[:, :count]


def _reach(width: int) -> tuple[int, int]:
    """How many columns a baseline looks back, and how many columns share one."""
    return max(8, BASELINE_ROWS // width), max(1, 16 // width)


def median_rows(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The median of the finite values along the last axis; NaN, without numpy's warning, where there are none.

    >>> median_rows(np.array([[1.0, np.nan, 4.0], [np.nan] * 3])).tolist()
    [2.5, nan]
    """
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan).astype(np.float64), axis=-1)  # NaN sorts last
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    below = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=-1)
    above = np.take_along_axis(ordered, np.maximum(count, 1) // 2, axis=-1)
    return np.where(count % 2 == 1, below, (below + above) / 2)[..., 0]
