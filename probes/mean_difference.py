"""The difference between two sides' means over seeds, with Welch's interval, in the unit of the values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .quantiles import beta_cdf, t_quantile
from .rate_ratio import LEAST_SEEDS, permuted_seeds

__all__ = ["MeanDifference", "mean_difference"]


@dataclass(frozen=True)
class MeanDifference:
    """One value a seed.

    Attributes:
        by_seed: the values of side a, and of side b.
        difference: mean of a less mean of b.
        low: lower end of Welch's interval, which lets the sides scatter differently (Welch 1947); -inf with fewer than
            2 seeds on a side.
        high: upper end.
        p: two-sided p of Welch's test; None likewise.
        seeds_p: two-sided p by permuting the seeds; None below 3 seeds a side.
        seeds_least: the smallest p that so few seeds can reach; None likewise.
    """

    by_seed: tuple[tuple[float, ...], tuple[float, ...]]
    difference: float
    low: float
    high: float
    p: float | None
    seeds_p: float | None
    seeds_least: float | None


def mean_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = 0.95,
    permutations: int = 9999,
    rng: np.random.Generator | None = None,
) -> MeanDifference:
    """Compare two sides of at least one seed each.

    >>> found = mean_difference([0.71, 0.70, 0.72], [0.68, 0.69, 0.66])
    >>> f"{found.difference:.3f} [{found.low:.3f}, {found.high:.3f}]"
    '0.033 [0.002, 0.065]'
    """
    sides = np.asarray(a, float), np.asarray(b, float)
    low, high, p = _welch(*sides, confidence)
    seeds_p = least = None
    if min(map(len, sides)) >= LEAST_SEEDS:
        values = np.concatenate(sides)
        random = rng or np.random.default_rng(0)
        seeds_p, least = permuted_seeds(values, np.ones(len(values)), len(sides[0]), permutations, random)
    told = tuple(sides[0].tolist()), tuple(sides[1].tolist())
    return MeanDifference(told, float(sides[0].mean() - sides[1].mean()), low, high, p, seeds_p, least)


def _welch(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[float, float, float | None]:
    if min(len(a), len(b)) < 2:
        return -math.inf, math.inf, None
    difference = float(a.mean() - b.mean())
    square_a, square_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    square = square_a + square_b
    if not square:  # seeds that agree to the last digit: any difference is certain
        return difference, difference, float(not difference)
    degrees = 1 / ((square_a / square) ** 2 / (len(a) - 1) + (square_b / square) ** 2 / (len(b) - 1))
    reach = t_quantile(0.5 + confidence / 2, degrees) * math.sqrt(square)
    p = beta_cdf(degrees / (degrees + difference**2 / square), degrees / 2, 0.5)
    return difference - reach, difference + reach, p
