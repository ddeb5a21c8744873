"""Sliding windows: the exact median and median absolute deviation (MAD), mean and σ, in the unit of the values."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["CONSISTENT", "median", "median_and_mad", "slide", "trailing_moments"]

CONSISTENT = 1.4826
"""MAD times this estimates the standard deviation of normal values."""

_AT_ONCE = 65_536  # values of windows that are copied at a time: they should stay in the cache


def median_and_mad(ordered: Sequence[float]) -> tuple[float, float]:
    """Median and MAD of an ascending sequence, in O(log n) instead of a sort.

    The k values nearest to the median are neighbours in the ordered window, so bisection finds where they begin.

    >>> median_and_mad([1.0, 2.0, 4.0, 9.0])
    (3.0, 1.5)
    """
    n = len(ordered)
    middle = median(ordered)
    k = (n + 1) // 2
    low, high = 0, n - k
    while low < high:
        start = (low + high) // 2
        if middle - ordered[start] > ordered[start + k] - middle:
            low = start + 1
        else:
            high = start
    kth = max(abs(middle - ordered[low]), abs(ordered[low + k - 1] - middle))
    if n % 2:
        return middle, kth
    outside = [middle - ordered[low - 1]] if low else []
    outside += [ordered[low + k] - middle] if low + k < n else []
    return middle, (kth + min(outside)) / 2


def median(ordered: Sequence[float]) -> float:
    """Median of an ascending sequence.

    >>> median([1.0, 2.0, 4.0, 9.0])
    3.0
    """
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def slide(window: list[float], ordered: list[float], value: float, size: int) -> None:
    """Append `value` to the window (in order of arrival) and its sorted twin; drop the oldest beyond `size`.

    >>> window, ordered = [5.0, 1.0], [1.0, 5.0]
    >>> slide(window, ordered, 3.0, size=2)
    >>> window, ordered
    ([1.0, 3.0], [1.0, 3.0])
    """
    window.append(value)
    insort(ordered, value)
    if len(window) > size:
        del ordered[bisect_left(ordered, window.pop(0))]


def trailing_moments(
    history: Sequence[float], values: np.ndarray, size: int, minimum: int
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Mean and population standard deviation of the last `size` values strictly before each value.

    Each window is summed anew, so the result doesn't depend on where a block begins and a huge value leaves no residue.

    Args:
        history: the values before these, at least the last `size` of them where there were so many.
        values: f64[n], finite.
        size: the window.
        minimum: NaN where fewer values precede.

    Returns:
        means f64[n], deviations f64[n], and the history for the next call.

    >>> means, deviations, _ = trailing_moments([1.0, 3.0], np.array([9.0, 0.0]), size=2, minimum=2)
    >>> means.tolist(), deviations.tolist()
    ([2.0, 6.0], [1.0, 3.0])
    """
    joined = np.concatenate([np.array(history, float), values])
    means, deviations = np.full(len(values), np.nan), np.full(len(values), np.nan)
    growing = min(len(values), max(0, size - len(history)))
    for i in range(max(0, minimum - len(history)), growing):
        window = joined[: len(history) + i]
        mean = window.sum() / len(window)
        means[i], deviations[i] = mean, np.sqrt(np.square(window - mean).sum() / len(window))
    at_once = max(1, _AT_ONCE // size)
    for start in range(growing, len(values), at_once):
        rows = slice(start, min(start + at_once, len(values)))
        first = len(history) + start - size
        # A copy: numpy adds along contiguous rows in one order, whether there is one of them or a thousand.
        windows = sliding_window_view(joined[first : first + size + rows.stop - start - 1], size).copy()
        means[rows] = windows.sum(axis=1) / size
        deviations[rows] = np.sqrt(np.square(windows - means[rows, None]).sum(axis=1) / size)
    return means, deviations, joined[-size:].tolist()
