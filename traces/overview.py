"""The min/max/mean pyramid over 16, 256 and 4,096 rows: built while writing, read at any zoom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .schema import LEVELS

__all__ = ["Overview", "Pyramid", "overview_cells", "summarise"]


_AT_ONCE = 16_384  # cells


@dataclass(frozen=True)
class Overview:
    """Cells that cover a range of rows without a gap; `min`, `max`, `mean` ignore NaN and are NaN where all is NaN.

    first, last: i64[n] steps of each cell, both included; rows: i64[n] rows in each cell; min, max, mean, count:
    [L, n] for a layer series, [n] for a scalar or one layer. `count` is the number of values that are not NaN, so
    `count < rows` marks a cell in which something was not measured or was NaN.
    """

    first: np.ndarray
    last: np.ndarray
    rows: np.ndarray
    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    count: np.ndarray


def _as_cells(values: np.ndarray) -> np.ndarray:
    """Turn rows into cells of one row each: [R, n] -> [4, R, n]."""
    return np.stack([values, values, values, ~np.isnan(values)]).astype(values.dtype, copy=False)


def _merge(cells: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Merge neighbouring cells [4, R, n], or rows [R, n], into cells beginning at `starts`: [4, R, len(starts)]."""
    height, length = cells.shape[-2:]
    if len(starts) == length:
        return cells if cells.ndim == 3 else _as_cells(cells)
    merged = np.empty((4, height, len(starts)), cells.dtype)
    rows = max(1, _AT_ONCE // max(1, length))  # a few rows at a time stay in the cache: half the time or less
    for first in range(0, height, rows):
        part = cells[..., first : first + rows, :]
        low, high, mean, count = part if cells.ndim == 3 else (part, part, part, ~np.isnan(part))
        merged[:, first : first + rows] = _merge_rows(low, high, mean, count, starts)
    return merged


def _merge_rows(
    low: np.ndarray, high: np.ndarray, mean: np.ndarray, count: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    weight = np.nan_to_num(count.astype(np.float64))
    with np.errstate(invalid="ignore"):  # Inf - Inf is NaN, and that is the mean
        total = np.add.reduceat(np.where(weight > 0, mean * weight, 0.0), starts, axis=-1)
        number = np.add.reduceat(weight, starts, axis=-1)
        average = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    lowest = np.fmin.reduceat(low, starts, axis=-1)
    highest = np.fmax.reduceat(high, starts, axis=-1)
    with np.errstate(over="ignore"):
        return np.stack([lowest, highest, average, number]).astype(mean.dtype)


def summarise(values: np.ndarray, width: int) -> np.ndarray:
    """Reduce rows to cells of `width` rows, the last one perhaps shorter: [R, n] -> [4, R, ceil(n / width)].

    The four statistics are min, max, mean and count of the values that are not NaN.

    >>> summarise(np.array([[1.0, 5.0, np.nan, 3.0]]), 2)[:, 0].tolist()
    [[1.0, 3.0], [5.0, 3.0], [3.0, 3.0], [2.0, 1.0]]
    """
    return _merge(values, np.arange(0, values.shape[-1], width))


class Pyramid:
    """Builds the pyramid of `height` series as rows arrive: whole cells only, each level out of the one below it.

    >>> pyramid = Pyramid(1)
    >>> done = pyramid.push(np.arange(40.0)[None])
    >>> done[16][1].tolist()
    [[15.0, 31.0]]
    """

    def __init__(self, height: int, dtype: str = "float64") -> None:
        # What waits at each level for the cell above it to become whole: cells of 1, 16 and 256 rows.
        self._waiting = [np.empty((4, height, 0), dtype) for _ in LEVELS]

    def widen(self, height: int) -> None:
        """Take more series from now on; they count as NaN in the rows before."""
        for index, cells in enumerate(self._waiting):
            extra = np.full((4, height - cells.shape[1], cells.shape[2]), np.nan, cells.dtype)
            extra[3] = 0
            self._waiting[index] = np.concatenate([cells, extra], axis=1)

    def restore(self, rows: np.ndarray, *cells: np.ndarray) -> None:
        """Continue after a restart with what waits: `rows: [R, <16]`, then the cells [4, R, <16] of 16, 256 rows."""
        self._waiting = [_as_cells(rows), *cells]

    def push(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        """Take `rows: [R, n]` and return the cells that became whole, by level: [4, R, m]."""
        fresh, below, done = _as_cells(rows), 1, {}
        for index, level in enumerate(LEVELS):
            waiting = np.concatenate([self._waiting[index], fresh], axis=-1)
            ratio = level // below
            whole = waiting.shape[-1] // ratio
            self._waiting[index] = waiting[..., whole * ratio :].copy()
            if whole == 0:
                break
            fresh = _merge(waiting[..., : whole * ratio], np.arange(0, whole * ratio, ratio))
            done[level], below = fresh, level
        return done


def _pieces(start: int, stop: int, level: int) -> Iterator[tuple[int, int, int]]:
    """Cover the rows [start, stop) with whole cells of `level` and finer ones at the two ends.

    >>> list(_pieces(10, 300, 256)), list(_pieces(10, 50, 16))
    ([(1, 10, 16), (16, 1, 18), (1, 288, 300)], [(1, 10, 16), (16, 1, 3), (1, 48, 50)])
    """
    if stop <= start:
        return
    if level == 1:
        yield 1, start, stop
        return
    finer = max((width for width in LEVELS if width < level), default=1)
    first, last = -(-start // level), stop // level
    if first >= last:
        yield from _pieces(start, stop, finer)
        return
    yield from _pieces(start, first * level, finer)
    yield level, first, last
    yield from _pieces(last * level, stop, finer)


def _width(start: int, stop: int, columns: int) -> int:
    """Rows a cell: the smallest power of two with which [start, stop) makes at most `columns` cells.

    Cells begin at multiples of the width, so they stay where they are while a run grows.
    """
    width = 1
    while (stop - 1) // width - start // width + 1 > columns:
        width *= 2
    return width


def overview_cells(
    start: int,
    stop: int,
    columns: int,
    rows: Callable[[int, int], np.ndarray],
    cells: Callable[[int, int, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row of each cell, i64[n], and its statistics, [4, R, n], over the rows [start, stop).

    `rows(a, b)` reads raw rows [R, b - a], `cells(level, a, b)` cells a to b of one level, [4, R, b - a]. At most
    `16 * columns` cells of one level are read, and fewer than 16 of each finer level at both ends.
    """
    if stop <= start:
        return np.empty(0, np.int64), _as_cells(rows(start, start))
    width = _width(start, stop, columns)
    level = max((size for size in LEVELS if size <= width), default=1)
    where, parts = [], []
    for size, a, b in _pieces(start, stop, level):
        where.append(np.arange(a, b) * size)
        read = rows(a, b) if size == 1 else cells(size, a, b)
        parts.append(_as_cells(read) if size == 1 and level > 1 else read)
    at = np.concatenate(where)
    starts = np.flatnonzero(np.diff(at // width, prepend=-1))
    return at[starts], _merge(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1), starts)
