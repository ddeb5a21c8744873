"""Whether onsets rise with depth: ranks within events against simulated chance, and slopes in steps a layer."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

__all__ = ["Trend", "midranks", "sign_flips", "slopes", "trend"]


@dataclass(frozen=True)
class Trend:
    """E events against depth.

    Attributes:
        correlation: f64[E], Spearman's rank correlation; NaN where all onsets are equal.
        slopes: f64[E], least-squares slopes less what chance gives, in steps a layer.
        bias: f64[E], the slopes that chance gives: the means over the simulated data.
        page_l: Page's L.
        p_layers: one-sided p-values (onsets rise with depth, onsets fall) of Page's L against the simulated data.
        p_events: the same by flipping the signs of the events' correlations, less those of chance.
    """

    correlation: np.ndarray
    slopes: np.ndarray
    bias: np.ndarray
    page_l: float
    p_layers: tuple[float, float]
    p_events: tuple[float, float]


def trend(times: np.ndarray, chance: np.ndarray, rng: np.random.Generator) -> Trend:
    """Test for a trend over depth.

    Args:
        times: f[E, L] onsets, NaN where a layer is missing; each event has at least 2.
        chance: f[N, E, L], onsets of simulated data in which there is none.
        rng: the source of chance for the flips.

    >>> times = np.array([[3.0, 5.0, 7.0]] * 6)
    >>> trend(times, np.random.default_rng(1).random((99, 6, 3)), np.random.default_rng(0)).p_layers[0]
    0.01
    """
    ranks, depths = midranks(times), midranks(np.where(np.isnan(times), np.nan, np.arange(times.shape[1])))
    drawn = np.where(np.isnan(times), np.nan, chance)
    drawn_ranks = midranks(drawn)
    drawn_depths = midranks(np.where(np.isnan(drawn), np.nan, np.arange(times.shape[1])))
    own, by_chance = _products(ranks, depths), _products(drawn_ranks, drawn_depths)
    correlation = _correlations(ranks, depths)
    # An event of ties speaks for neither side.
    unbiased = np.nan_to_num(correlation) - np.nan_to_num(_correlations(drawn_ranks, drawn_depths)).mean(axis=0)
    bias = slopes(drawn).mean(axis=0)
    return Trend(
        correlation=correlation,
        slopes=slopes(times) - bias,
        bias=bias,
        page_l=float(np.nansum(ranks * depths)),
        p_layers=_both(float(own.sum()), by_chance.sum(axis=-1)),
        p_events=sign_flips(unbiased, len(chance), rng),
    )


def midranks(values: np.ndarray) -> np.ndarray:
    """Rank f[..., n] along the last axis from 1; equal values share the mean of their ranks, NaN stays NaN.

    >>> midranks(np.array([10, 30, np.nan, 10]))
    array([1.5, 3. , nan, 1.5])
    """
    others, own = values[..., None, :], values[..., :, None]
    ranks = ((others < own).sum(axis=-1) + (others <= own).sum(axis=-1) + 1) / 2
    return np.where(np.isnan(values), np.nan, ranks)


def slopes(times: np.ndarray) -> np.ndarray:
    """Least-squares slope of f[..., L] onsets on depth, in steps a layer; 0 where fewer than two are known.

    Least squares and not the median of pairwise slopes: onsets are whole steps, and pairs that tie pull the median
    towards 0.

    >>> slopes(np.array([10.0, 12.0, np.nan, 16.0]))
    array(2.)
    """
    depth = _centred(np.where(np.isnan(times), np.nan, np.arange(times.shape[-1])))
    square = (depth * depth).sum(axis=-1)
    return np.asarray((depth * np.nan_to_num(times)).sum(axis=-1) / np.where(square > 0, square, 1))


def sign_flips(values: np.ndarray, count: int, rng: np.random.Generator) -> tuple[float, float]:
    """One-sided p-values (the sum is large, the sum is small) if each of [n] values could as well have the other sign.

    All 2ⁿ flips where those are at most `count`, else `count` random ones and the data (Fisher 1935).

    >>> sign_flips(np.ones(6), 99, np.random.default_rng(0))
    (0.015625, 1.0)
    """
    if 2 ** len(values) <= count:
        drawn = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values)))) @ values
        return float((drawn >= values.sum() - 1e-9).mean()), float((drawn <= values.sum() + 1e-9).mean())
    return _both(float(values.sum()), rng.choice((-1.0, 1.0), (count, len(values))) @ values)


def _products(ranks: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """f[..., E]. Centred, so that a missing layer doesn't shift the sum."""
    return (_centred(ranks) * _centred(depths)).sum(axis=-1)


def _correlations(ranks: np.ndarray, depths: np.ndarray) -> np.ndarray:
    square = (_centred(ranks) ** 2).sum(axis=-1) * (_centred(depths) ** 2).sum(axis=-1)
    return np.where(square > 0, _products(ranks, depths) / np.sqrt(np.where(square > 0, square, 1)), np.nan)


def _centred(values: np.ndarray) -> np.ndarray:
    """Distances to the mean of the known values; 0 where unknown."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=-1, keepdims=True)
    return np.where(known, values - total / np.maximum(known.sum(axis=-1, keepdims=True), 1), 0)


def _both(own: float, drawn: np.ndarray) -> tuple[float, float]:
    n = len(drawn) + 1
    return (1 + int((drawn >= own - 1e-9).sum())) / n, (1 + int((drawn <= own + 1e-9).sum())) / n
