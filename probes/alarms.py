"""Which dips a signal warns of when its threshold allows a given number of false alarms, for data and surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .unusual import crossings, peaks, sliding_max

__all__ = ["APART", "Falls", "Heard", "Scored", "calm_steps", "heard"]

APART = 10  # steps within which alarms are one


@dataclass(frozen=True)
class Falls:
    """The dips of one run, or of N surrogates of it, whose steps lie in first to last.

    Attributes:
        first: first step that counts.
        last: last step, included.
        after: i64[..., D], last good evaluations.
        by: i64[..., D], first bad evaluations.
        end: i64[..., D], steps by which the dips were over.
    """

    first: int
    last: int
    after: np.ndarray
    by: np.ndarray
    end: np.ndarray

    def moved(self, by: np.ndarray) -> Falls:
        """The dips with their onsets at `by` i64[N, D]; intervals and lengths stay."""
        return Falls(self.first, self.last, by - (self.by - self.after), by, by + (self.end - self.by))

    def busy(self, steps: np.ndarray, lag: int) -> np.ndarray:
        """bool[..., k], whether each of the steps i64[k] lies in a dip or in the `lag` steps before one."""
        low, high = (self.after + 1 - lag)[..., None], self.end[..., None]
        return np.asarray(((steps >= low) & (steps <= high)).any(axis=-2))


class Scored:
    """One signal in one run: its scores, and what of them the counts need."""

    def __init__(self, scores: np.ndarray, first: int, lag: int, widths: Sequence[int]) -> None:
        self.scores, self.first = scores, first
        places = peaks(scores, APART)
        order = np.argsort(-scores[places], kind="stable")
        self.peaks, self.heights = places[order] + first, scores[places[order]]
        self._highest = {width: sliding_max(scores, lag + width - 1) for width in widths}

    def before(self, falls: Falls) -> np.ndarray:
        """f64[..., D], the highest score in the lag before each dip; -inf if there is none."""
        width = falls.by - falls.after
        found = np.full(falls.by.shape, -np.inf)
        for size, highest in self._highest.items():
            found = np.where(width == size, highest[falls.by - falls.first], found)
        return found


@dataclass(frozen=True)
class Heard:
    """What a signal heard.

    Attributes:
        threshold: f64[...], score above which it gives an alarm.
        warned: bool[..., D], over the dips of all runs.
    """

    threshold: np.ndarray
    warned: np.ndarray


def heard(scored: Sequence[Scored], falls: Sequence[Falls], lag: int, allowed: int) -> Heard:
    """Set the threshold at the highest calm peak that is not allowed, and see which dips have a higher score before.

    Args:
        scored: the signal in each run.
        falls: the dips of each run, all with the same leading axes.
        lag: L.
        allowed: false alarms, over all runs.

    >>> scores = np.zeros(1000); scores[[90, 300, 500, 700]] = 9, 8, 5, 7
    >>> dip = Falls(0, 999, np.array([99]), np.array([100]), np.array([120]))
    >>> found = heard([Scored(scores, 0, 16, [1])], [dip], 16, allowed=1)
    >>> float(found.threshold), found.warned.tolist()
    (7.0, [True])
    """
    before = np.concatenate([signal.before(dips) for signal, dips in zip(scored, falls, strict=True)], axis=-1)
    # A peak beyond these can't be the one: that many higher ones are calm whatever the dips hide.
    most = allowed + 1 + sum(_hidden(dips, lag) for dips in falls)
    heights = np.concatenate([signal.heights[:most] for signal in scored])
    calm = np.concatenate(
        [~dips.busy(signal.peaks[:most], lag) for signal, dips in zip(scored, falls, strict=True)], axis=-1
    )
    order = np.argsort(-heights, kind="stable")
    heights = np.append(heights[order], 0.0)
    over = np.cumsum(calm[..., order], axis=-1) > allowed
    over = np.concatenate([over, np.ones((*over.shape[:-1], 1), bool)], axis=-1)
    threshold = heights[over.argmax(axis=-1)]
    return Heard(threshold, before > threshold[..., None])


def alarms(signal: Scored, threshold: float) -> np.ndarray:
    """The steps i64[k] at which the signal's alarms begin."""
    return crossings(signal.scores, threshold, APART) + signal.first


def calm_steps(falls: Falls, lag: int) -> int:
    """The number of steps neither in a dip nor in the lag before one."""
    return int((~falls.busy(np.arange(falls.first, falls.last + 1), lag)).sum())


def _hidden(dips: Falls, lag: int) -> int:
    """At most so many peaks lie in the busy steps of one data set."""
    span = np.atleast_2d(dips.end - dips.after)[0] + lag
    return int((span // APART + 2).sum())
