"""How often spikes and dips coincide within a lag of L steps: windows, counts, and rates with Wilson intervals.

Event coincidence analysis (Donges et al. 2016, arXiv 1508.03534), with a dip's onset known as an interval only. A dip
that began somewhere in (after, by] is preceded by a spike with onset s if some point p of the interval has
1 <= p - s <= L: the window lies strictly before the dip, and any point of the interval will do. That is
after + 1 - L <= s < by. The mirror image, 1 <= s - p <= L, is a spike that follows a dip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = ["Rate", "coincidences", "rate", "wilson"]


@dataclass(frozen=True)
class Rate:
    """A share of events, with its uncertainty.

    Attributes:
        hits: events that count.
        trials: events there are.
        value: hits / trials; NaN without trials.
        low: lower end of the 95 % Wilson score interval; NaN without trials.
        high: upper end. The interval takes the events for independent; where they come in bursts it is too narrow.
    """

    hits: int
    trials: int
    value: float
    low: float
    high: float


def rate(hits: int, trials: int, confidence: float = 0.95) -> Rate:
    """Return hits / trials with its Wilson interval.

    >>> print(rate(6, 12))
    Rate(hits=6, trials=12, value=0.5, low=0.2537815976337061, high=0.7462184023662939)
    """
    low, high = wilson(hits, trials, confidence)
    return Rate(int(hits), int(trials), hits / trials if trials else math.nan, low, high)


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share (Wilson 1927).

    (p + z²/2n ± z·sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n), z the normal quantile: unlike p ± z·se it stays inside
    [0, 1] and covers what it should for a handful of events.

    Args:
        hits: 0 to `trials`.
        trials: number of events; 0 gives (NaN, NaN).
        confidence: between 0 and 1.

    Raises:
        ValueError: hits outside 0 to trials, or a confidence outside 0 to 1.

    >>> low, high = wilson(0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.278)
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits={hits} of trials={trials}; give at least 0 and at most as many hits as trials")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; give a share between 0 and 1, such as 0.95")
    if not trials:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Rounding must not push an interval that ends at 0 or 1 beyond the share itself.
    return max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale))


def coincidences(
    onsets: np.ndarray, after: np.ndarray, by: np.ndarray, lag: int, *, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Count the dips that have a spike within `lag`, and the spikes that have a dip.

    Args:
        onsets: i64[S], sorted onsets of one layer's spikes.
        after: i64[..., D], last good evaluations; leading axes are independent data sets (surrogates).
        by: i64[..., D], first bad evaluations, each beyond its `after`.
        lag: L, at least 1.
        reverse: count spikes *after* dips instead.

    Returns:
        i64[...] dips with at least one spike (precursor hits), i64[...] spikes with at least one dip (trigger hits).

    >>> coincidences(np.array([90, 99, 500]), np.array([99]), np.array([104]), 8)
    (np.int64(1), np.int64(1))
    """
    if reverse:
        low, high = np.searchsorted(onsets, after + 2), np.searchsorted(onsets, by + lag, side="right")
    else:
        low, high = np.searchsorted(onsets, after + 1 - lag), np.searchsorted(onsets, by)
    return (high > low).sum(axis=-1), _covered(low, high)


def _covered(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The number of integers in the union of the ranges [low, high), over the last axis."""
    if not low.shape[-1]:
        return np.zeros(low.shape[:-1], np.int64)
    order = np.argsort(low, axis=-1)
    low, high = np.take_along_axis(low, order, -1), np.take_along_axis(high, order, -1)
    reached = np.maximum.accumulate(high, axis=-1)
    fresh = low.copy()
    fresh[..., 1:] = np.maximum(low[..., 1:], reached[..., :-1])
    return np.maximum(high - fresh, 0).sum(axis=-1)
