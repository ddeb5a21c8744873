"""Beta and Student quantiles in plain Python, for exact intervals of counts and of means."""

from __future__ import annotations

import math

__all__ = ["beta_cdf", "beta_quantile", "t_quantile"]

_TINY = 1e-300


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), a and b > 0 (DLMF 8.17.22).

    For whole numbers it is a binomial tail: I_p(k, n - k + 1) = P(Bin(n, p) >= k).

    >>> round(beta_cdf(0.5, 8, 3), 9), sum(math.comb(10, k) for k in (8, 9, 10)) / 1024
    (0.0546875, 0.0546875)
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror image does fast
        return 1 - beta_cdf(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) * _fraction(x, a, b) / a


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with beta_cdf(x, a, b) = p.

    >>> round(beta_quantile(0.025, 8, 3), 4), round(beta_quantile(0.975, 9, 2), 4)
    (0.4439, 0.9748)
    """
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def t_quantile(p: float, degrees: float) -> float:
    """Return Student's t for a one-sided p from 0.5 to 1.

    >>> round(t_quantile(0.975, 8), 3)
    2.306
    """
    x = beta_quantile(2 * (1 - p), degrees / 2, 0.5)
    return math.sqrt(degrees * (1 / x - 1)) if x > 0 else math.inf


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction by Lentz's method: one factor a term, until a factor is 1."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1000):
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + numerator * d)
        c = _away_from_zero(1 + numerator / c)
        value *= c * d
        if term and abs(c * d - 1) < 1e-15:
            break
    return value - 1


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
