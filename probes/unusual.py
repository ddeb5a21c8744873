"""How unusual each value of a signal is, in robust standard deviations of its recent past, on a grid of all steps."""

from __future__ import annotations

import numpy as np

__all__ = ["crossings", "peaks", "sliding_max", "unusual"]

_WINDOW = 256  # values before, which tell what is usual, ...
_LEAST = 64  # ... of which so many are needed
_EVERY = 8  # the usual is told anew after so many values
_FLOOR = 0.05  # least scatter of logs, as in the spike detector
_CONSISTENT = 1.4826  # the MAD of normal noise times this is its standard deviation
_INFINITE = 1e9  # stands for the score of an infinite value


def unusual(values: np.ndarray, steps: np.ndarray, first: int, last: int) -> np.ndarray:
    """Score a signal: |y - m| / s with y the logarithm of a positive signal, else the value itself.

    m is the median and s 1.4826 times the MAD of the up to 256 measured values before, never of a value to come; s of
    logs is at least .05. Rises and falls count alike.

    Args:
        values: f[T], NaN where not measured.
        steps: i64[T].
        first: first step of the grid.
        last: last step of the grid, included.

    Returns:
        f64[last - first + 1], -inf where nothing was measured or fewer than 64 values came before.

    >>> x = np.exp(np.random.default_rng(0).normal(0, 0.1, 200)); x[150] = 3
    >>> unusual(x, np.arange(200), 0, 199).argmax()
    np.int64(150)
    """
    scores = np.full(last - first + 1, -np.inf)
    measured = ~np.isnan(values)
    finite = np.isfinite(values)
    if finite.sum() <= _LEAST:
        return scores
    kept, at = np.asarray(values, float)[measured], steps[measured]
    logs = bool((kept > 0).all())
    y = np.log(kept) if logs else kept
    good = np.isfinite(y)
    y = np.where(good, y, np.interp(np.arange(len(y)), np.flatnonzero(good), y[good]))
    middle, scatter = _usual(y)
    floor = _FLOOR if logs else 1e-3 * np.abs(middle) + 1e-12
    told = np.where(good, np.abs(y - middle) / np.maximum(scatter, floor), _INFINITE)
    inside = (at >= first) & (at <= last) & (np.arange(len(y)) >= _LEAST)
    scores[at[inside] - first] = told[inside]
    return scores


def sliding_max(values: np.ndarray, width: int) -> np.ndarray:
    """The largest of the `width` values before each place, not counting the place itself: f64[n + 1]; -inf before all.

    >>> sliding_max(np.array([1.0, 3, 2, 0]), 2).tolist()
    [-inf, 1.0, 3.0, 3.0, 2.0]
    """
    reached, span, width = np.asarray(values, float), 1, min(width, max(len(values), 1))
    while 2 * span <= width:  # the largest of 1, 2, 4, … values up to each place
        reached = np.maximum(reached, _later(reached, span))
        span *= 2
    reached = np.maximum(reached, _later(reached, width - span))
    return np.append(-np.inf, reached)


def peaks(scores: np.ndarray, apart: int) -> np.ndarray:
    """The places i64[k] that no other place within `apart` exceeds; of equals the first.

    >>> peaks(np.array([0, 5, 4, 0, 0, 0, 6.0]), 3).tolist()
    [1, 6]
    """
    before = sliding_max(scores, apart)[:-1]
    after = sliding_max(scores[::-1], apart)[:-1][::-1]
    return np.flatnonzero((scores > before) & (scores >= after) & (scores > 0))


def crossings(scores: np.ndarray, threshold: float, apart: int) -> np.ndarray:
    """The places i64[k] at which an alarm begins: above the threshold, and not so in the `apart` places before.

    >>> crossings(np.array([0, 5, 4, 0, 5, 0, 0, 0, 6.0]), 3.0, 3).tolist()
    [1, 8]
    """
    above = scores > threshold
    recent = sliding_max(above.astype(float), apart)[:-1] > 0
    return np.flatnonzero(above & ~recent)


def _later(values: np.ndarray, by: int) -> np.ndarray:
    moved = np.full(len(values), -np.inf)
    moved[by:] = values[: len(values) - by]
    return moved


def _usual(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and robust standard deviation of the values before each one, f64[n] each."""
    starts = np.arange(_LEAST, len(y), _EVERY)
    middle, scatter = np.zeros(len(starts)), np.ones(len(starts))
    early = starts < _WINDOW
    for k, start in enumerate(starts[early]):
        middle[k] = np.median(y[:start])
        scatter[k] = np.median(np.abs(y[:start] - middle[k]))
    windows = np.lib.stride_tricks.sliding_window_view(y, _WINDOW) if len(y) > _WINDOW else np.empty((0, _WINDOW))
    for k in range(int(early.sum()), len(starts), 1024):
        block = windows[starts[k : k + 1024] - _WINDOW]
        middle[k : k + 1024] = np.median(block, axis=1)
        scatter[k : k + 1024] = np.median(np.abs(block - middle[k : k + 1024, None]), axis=1)
    of = np.clip((np.arange(len(y)) - _LEAST) // _EVERY, 0, len(starts) - 1)
    return middle[of], _CONSISTENT * scatter[of]
