"""Whether events are rarer on one side than on the other: ratio of rates a step, exact, and with seeds as the unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from .quantiles import beta_cdf, beta_quantile, t_quantile

__all__ = ["LEAST_SEEDS", "RateRatio", "clopper_pearson", "permuted_seeds", "rate_ratio"]

LEAST_SEEDS = 3  # a side, for anything that uses the scatter between seeds


@dataclass(frozen=True)
class RateRatio:
    """Events of two sides.

    Attributes:
        events: of a and of b, summed over seeds.
        steps: of a and of b.
        by_seed: the events of each seed of a, and of each seed of b.
        ratio: rate of a over rate of b; NaN if neither has events, inf if only a has.
        exact_low: lower end of the interval that takes every event for independent: given the total n, the events of a
            are binomial, and Clopper and Pearson's exact interval of that share becomes one of the ratio (Przyborowski
            and Wilenski 1940).
        exact_high: upper end.
        exact_p: two-sided p of "the rates are the same" by the same, twice the smaller tail.
        dispersion: Pearson's chi-square of the seeds within their sides over its degrees of freedom: 1 for independent
            events, larger where seeds differ or events come in bursts. NaN with fewer than 3 seeds a side.
        low: the exact interval with the counts divided by what the scatter of the seeds demands: the dispersion times
            (t / z)², Student's quantile over the normal one; never narrower than the exact one, and equal to it with
            fewer than 3 seeds a side.
        high: upper end.
        dispersed_p: the exact p with the divided counts.
        seeds_p: two-sided p by permuting whole seeds between the sides, on the difference of rates. None below 3
            seeds a side.
        seeds_least: the smallest p that so few seeds can reach; None likewise.
        p: the larger of `dispersed_p` and, where `seeds_least` is 0.05 or less, `seeds_p`.
    """

    events: tuple[int, int]
    steps: tuple[int, int]
    by_seed: tuple[tuple[int, ...], tuple[int, ...]]
    ratio: float
    exact_low: float
    exact_high: float
    exact_p: float
    dispersion: float
    low: float
    high: float
    dispersed_p: float
    seeds_p: float | None
    seeds_least: float | None
    p: float


def rate_ratio(
    counts_a: Sequence[int],
    steps_a: Sequence[int],
    counts_b: Sequence[int],
    steps_b: Sequence[int],
    *,
    confidence: float = 0.95,
    permutations: int = 9999,
    rng: np.random.Generator | None = None,
) -> RateRatio:
    """Compare two sides.

    Args:
        counts_a: events of each seed of side a.
        steps_a: steps of each seed of side a, above 0.
        counts_b: events of each seed of side b.
        steps_b: steps of each seed of side b.
        confidence: of the intervals.
        permutations: all ways to deal the seeds if they are no more than this, else so many random ones.
        rng: the source of chance for those (default: seeded with 0).

    Raises:
        ValueError: a side without seeds, lists of different length, negative counts, no steps.

    >>> found = rate_ratio([1, 2, 1, 0], [1000] * 4, [6, 4, 7, 5], [1000] * 4)
    >>> f"{found.ratio:.2f} [{found.low:.2f}, {found.high:.2f}], p = {found.p:.3f}"
    '0.18 [0.05, 0.54], p = 0.029'
    """
    a, time_a, b, time_b = (np.asarray(side, float) for side in (counts_a, steps_a, counts_b, steps_b))
    _check(a, time_a, b, time_b, confidence)
    rate_a, rate_b = a.sum() / time_a.sum(), b.sum() / time_b.sum()
    dispersion, degrees = _dispersion(a, time_a, b, time_b)
    inflation = 1.0
    if degrees:
        wide = t_quantile(0.5 + confidence / 2, degrees) / NormalDist().inv_cdf(0.5 + confidence / 2)
        inflation = max(1.0, dispersion * wide**2)
    sums = float(a.sum()), float(b.sum()), float(time_a.sum()), float(time_b.sum())
    exact_low, exact_high, exact_p = _exact(*sums, confidence)
    low, high, dispersed_p = _exact(sums[0] / inflation, sums[1] / inflation, *sums[2:], confidence)
    seeds_p = least = None
    if min(len(a), len(b)) >= LEAST_SEEDS:
        values, weights = np.concatenate([a, b]), np.concatenate([time_a, time_b])
        seeds_p, least = permuted_seeds(values, weights, len(a), permutations, rng or np.random.default_rng(0))
    return RateRatio(
        events=(int(a.sum()), int(b.sum())),
        steps=(int(time_a.sum()), int(time_b.sum())),
        by_seed=(tuple(a.astype(int).tolist()), tuple(b.astype(int).tolist())),
        ratio=float(rate_a / rate_b) if rate_b else math.inf if rate_a else math.nan,
        exact_low=exact_low,
        exact_high=exact_high,
        exact_p=exact_p,
        dispersion=dispersion,
        low=low,
        high=high,
        dispersed_p=dispersed_p,
        seeds_p=seeds_p,
        seeds_least=least,
        p=dispersed_p if seeds_p is None or least is None or least > 0.05 else max(dispersed_p, seeds_p),
    )


def clopper_pearson(hits: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a binomial share (Clopper and Pearson 1934); counts may be fractions.

    >>> low, high = clopper_pearson(0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.308)
    """
    tail = (1 - confidence) / 2
    low = beta_quantile(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    high = beta_quantile(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return low, high


def permuted_seeds(
    values: np.ndarray, weights: np.ndarray, side_a: int, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Two-sided p of a difference between weighted means by dealing the seeds to the sides anew.

    Exact if seeds are exchangeable, however their counts scatter (Fisher 1935).

    Args:
        values: f[n], the first `side_a` of them of side a.
        weights: f[n]; a side's mean is sum(values) / sum(weights).
        side_a: number of seeds of side a.
        permutations: all C(n, side_a) ways if they are no more than this, else so many random ones and the data.
        rng: the source of chance.

    Returns:
        p, and the smallest p that the design can reach.

    >>> permuted_seeds(np.array([9.0, 8, 7, 1, 2, 3]), np.ones(6), 3, 9999, np.random.default_rng(0))
    (0.1, 0.1)
    """
    n = len(values)
    ways = math.comb(n, side_a)
    if ways <= permutations:
        chosen = np.array(list(itertools.combinations(range(n), side_a)))
        least = (1 + (2 * side_a == n)) / ways  # with sides of one size the mirror image is as extreme
    else:
        random = rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)[:, :side_a]
        chosen, least = np.concatenate([np.arange(side_a)[None], random]), 1 / (permutations + 1)
    in_a = np.zeros((len(chosen), n))
    np.put_along_axis(in_a, chosen, 1.0, axis=1)
    apart = np.abs(in_a @ values / (in_a @ weights) - (1 - in_a) @ values / ((1 - in_a) @ weights))
    return float((apart >= apart[0] * (1 - 1e-12)).mean()), least


def _check(a: np.ndarray, time_a: np.ndarray, b: np.ndarray, time_b: np.ndarray, confidence: float) -> None:
    if not len(a) or not len(b) or a.shape != time_a.shape or b.shape != time_b.shape:
        raise ValueError(
            f"{len(a)} and {len(b)} seeds have {len(time_a)} and {len(time_b)} numbers of steps; give each side at "
            f"least one seed, and each seed its steps"
        )
    if (np.concatenate([a, b]) < 0).any() or (np.concatenate([time_a, time_b]) <= 0).any():
        raise ValueError("a seed has fewer than 0 events or no steps; give counts of 0 or more over 1 step or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; give a share between 0 and 1, such as 0.95")


def _exact(a: float, b: float, time_a: float, time_b: float, confidence: float) -> tuple[float, float, float]:
    """Interval and two-sided p of the ratio, given the total number of events; without events anything goes."""
    n, ratio_of_times = a + b, time_b / time_a
    if not n:
        return 0.0, math.inf, 1.0
    low, high = (
        share / (1 - share) * ratio_of_times if share < 1 else math.inf for share in clopper_pearson(a, n, confidence)
    )
    same = time_a / (time_a + time_b)
    at_least = beta_cdf(same, a, b + 1) if a else 1.0
    at_most = 1 - beta_cdf(same, a + 1, b) if b else 1.0
    return low, high, min(1.0, 2 * min(at_least, at_most))


def _dispersion(a: np.ndarray, time_a: np.ndarray, b: np.ndarray, time_b: np.ndarray) -> tuple[float, int]:
    """Chi-square over its degrees of freedom, and those; NaN and 0 where there are too few seeds or no events."""
    if min(len(a), len(b)) < LEAST_SEEDS or not a.sum() + b.sum():
        return math.nan, 0
    square, degrees = 0.0, 0
    for counts, steps in ((a, time_a), (b, time_b)):
        expected = counts.sum() * steps / steps.sum()
        if counts.sum():
            square += float(((counts - expected) ** 2 / expected).sum())
            degrees += len(counts) - 1
    return square / degrees, degrees
