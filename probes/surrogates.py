"""What chance alone would give: dips shifted inside blocks, runs permuted against each other, and max-T over all tests.

Spikes and dips both follow the learning rate and come in bursts, so they meet more often than uniform chance even when
neither causes the other. The surrogates here keep the slow changes of both rates and the order inside each, and
break the alignment on the scale of the lag only: false positives stay near the nominal level as long as the rates
change little within a block (`benchmarks/precedence.py` measures how little).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

__all__ = ["BLOCK_PER_LAG", "MaxT", "block_shifts", "max_t", "permutations"]

BLOCK_PER_LAG = 10
"""A block is this many lags long: a dip that is moved lands within the lag of its old place one time in ten."""

OTHERS = 2.0
"""Factor on the p-value of "any layer at all", where a primary layer is asked about: it has a third of the error."""


def block_shifts(by: np.ndarray, first: int, last: int, block: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Shift dips circularly inside blocks of `block` steps, `count` times.

    Each surrogate lays its own grid of blocks over the run, with a uniformly random phase; in each block all dips move
    by one common uniform offset, round the block's end. What the shift of the whole record is for coincidence detection
    with a constant rate ("time slides", arXiv 2512.17372), this is for a rate that changes from block to block.

    Args:
        by: i64[D], the dips' steps, in first to last.
        first: first step of the run.
        last: last step, included.
        block: block length in steps; the pieces at both ends of the run are shorter.
        count: number of surrogates N.
        rng: the source of chance.

    Returns:
        i64[N, D], the dips' new steps, in the order given. Move an onset interval along with its `by`.

    >>> block_shifts(np.array([5, 7]), 0, 9, 100, 3, np.random.default_rng(0)).shape
    (3, 2)
    """
    length = last - first + 1
    phase = rng.integers(0, block, (count, 1))
    index = (by - first + phase) // block
    start = np.maximum(index * block - phase, 0)
    size = np.minimum((index + 1) * block - phase, length) - start
    turn = np.take_along_axis(rng.random((count, length // block + 2)), index, axis=1)
    return first + start + (by - first - start + (turn * size).astype(np.int64)) % size


@dataclass(frozen=True)
class MaxT:
    """K tests on one set of surrogates.

    Attributes:
        expected: f64[K], the surrogates' mean count: what chance gives.
        z: f64[K], (count - mean) / max(sd, 1), mean and sd over the surrogates and the data together. One dip more or
            less is the least that can happen, so the unit is never below one dip: otherwise a layer with two spikes,
            one of which meets a dip by luck, would outshine everything.
        p_single: f64[K], (1 + #{z* >= z}) / (N + 1) of this test alone.
        p: f64[K], (1 + #{max of all K z* >= z}) / (N + 1): corrected for having looked at all K (single-step max-T,
            Westfall and Young 1993), whatever their dependence. With primary tests, see `max_t`.
    """

    expected: np.ndarray
    z: np.ndarray
    p_single: np.ndarray
    p: np.ndarray


def max_t(counts: np.ndarray, surrogates: np.ndarray, primary: np.ndarray | None = None) -> MaxT:
    """Compare K counts with N surrogates of all of them, larger is more extreme.

    With `primary` tests two questions are asked at once: whether one of these stands out among the primary tests, and
    whether any of all K stands out among all. The smaller of the two p-values, the second doubled, is the statistic,
    and its own distribution over the surrogates gives the p-value (min-P, Westfall and Young 1993): the error rate over
    all K stays what it was, and of it the primary tests have two thirds to themselves.

    Args:
        counts: [K], the data.
        surrogates: [N, K], drawn jointly: row n is one world.
        primary: bool[K], the tests that the question was about before the data were seen.

    Raises:
        ValueError: no surrogates, or shapes that don't fit.

    >>> max_t(np.array([9, 1]), np.tile([[1, 1], [0, 2], [1, 0]], (33, 1))).p
    array([0.01, 1.  ])
    """
    if surrogates.ndim != 2 or not len(surrogates) or surrogates.shape[1:] != counts.shape:
        raise ValueError(
            f"surrogates has shape {surrogates.shape} for {counts.shape} counts; give at least one row each"
        )
    table = np.concatenate([counts[None], surrogates]).astype(float)
    # The data take part in the scale, so that all N + 1 rows are treated alike: that makes the p-value exact.
    z = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1.0)
    reached = z >= z[0] - 1e-9
    tops = z.max(axis=1, initial=-math.inf)
    p = _share_above(tops, z[0])
    if primary is not None and primary.any() and not primary.all():
        first = z[:, primary].max(axis=1)
        p = np.where(primary, np.minimum(OTHERS * p, _share_above(first, z[0])), OTHERS * p)
        smallest = np.minimum(OTHERS * _share_above(tops, tops), _share_above(first, first))
        p = np.searchsorted(np.sort(smallest), p + 1e-9) / len(table)
    return MaxT(surrogates.mean(axis=0), z[0], reached.mean(axis=0), p)


def _share_above(drawn: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each value the share of `drawn` that reaches it, up to rounding."""
    return (len(drawn) - np.searchsorted(np.sort(drawn), values - 1e-9)) / len(drawn)


def permutations(sessions: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ways to pair the spikes of run i with the dips of run [n, i]: i64[N, sessions].

    All but the true pairing where those are at most `count`, else `count` random ones.

    >>> len(permutations(5, 999, np.random.default_rng(0))), len(permutations(8, 999, np.random.default_rng(0)))
    (119, 999)
    """
    if math.factorial(sessions) <= count + 1:
        return np.array(list(itertools.permutations(range(sessions)))[1:], np.int64).reshape(-1, sessions)
    return rng.permuted(np.tile(np.arange(sessions), (count, 1)), axis=1)
