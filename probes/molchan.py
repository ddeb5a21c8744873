"""Molchan curves: which share of dips is missed when alarms cover a given share of the time.

Each spike raises an alarm of A steps. As A grows from 1, more of the run stands under alarm and fewer dips are missed:
the curve runs from (0, 1) to (1, 0), along the diagonal for a guess, below it for a precursor (Molchan 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Molchan", "alarm_shares", "molchan"]


@dataclass(frozen=True)
class Molchan:
    """A curve of missed dips against time under alarm, and its one-number summary.

    Attributes:
        alarm: f[n + 2], tau: share of the time under alarm, rising from 0 to 1.
        missed: f[n + 2], nu: share of dips missed with that much alarm, falling from 1 to 0.
        skill: area skill, 1 - ∫ nu d tau, which is 1 - mean over dips of the tau that just catches the dip (Zechar and
            Jordan 2008). 1: every dip follows its spike at once; 0.5: a guess; below: dips avoid the time after spikes.
        chance: the surrogates' mean skill. It lies above 0.5 where dips and spikes share their busy periods.
    """

    alarm: tuple[float, ...]
    missed: tuple[float, ...]
    skill: float
    chance: float


def alarm_shares(onsets: np.ndarray, after: np.ndarray, by: np.ndarray, first: int, last: int) -> np.ndarray:
    """For each dip, the share of time that must stand under alarm to catch it.

    A dip whose interval (after, by] is w steps wide is caught by alarms of A steps if the last spike before `by` is at
    most A + w - 1 steps back; its tau is the share of *positions* at which such a dip would be caught. So a wide
    interval, which is easier to hit, earns nothing by it. Between two lags that the data can't tell apart the middle
    is taken, so that the mean over all positions is exactly one half. Before the first spike there is never an alarm:
    that time is the last to be covered.

    Args:
        onsets: i64[S], sorted onsets of the spikes.
        after: i64[..., D], last good evaluations.
        by: i64[..., D], first bad evaluations.
        first: first step of the run.
        last: last step, included.

    Returns:
        f64[..., D] in 0 to 1.

    >>> at = np.arange(100)
    >>> float(alarm_shares(np.array([20, 60]), at - 1, at, 0, 99).mean())
    0.5
    """
    onsets = np.unique(onsets[(onsets >= first) & (onsets <= last)])
    length = last - first + 1
    runs = np.sort(np.diff(np.append(onsets, last)))  # how long each spike stays the last one, from the step after it
    total = np.concatenate([[0], np.cumsum(runs)])

    def covered(back: np.ndarray) -> np.ndarray:
        shorter = np.searchsorted(runs, back)
        return total[shorter] + (len(runs) - shorter) * back

    place = np.searchsorted(onsets, by)
    back = by - np.append(onsets, 0)[np.maximum(place - 1, 0)]
    # The width is beside the point here: A + w - 1 is at least w - 1, so the first w steps back cost the same.
    width = by - after
    reach = np.maximum(back, width)
    below = np.where(back > width, covered(np.maximum(reach - 1, 0)), 0)
    shares = (below + covered(reach)) / 2
    return np.where(place == 0, (total[-1] + length) / 2, shares) / length


def molchan(shares: Sequence[float] | np.ndarray, chance: float) -> Molchan:
    """Draw the curve from the dips' alarm shares [n] (at least one), as `alarm_shares` gives them.

    >>> molchan([0.1, 0.3], chance=0.5).skill
    0.8
    """
    ordered = np.sort(np.asarray(shares, float))
    count = len(ordered)
    alarm = np.concatenate([[0.0], ordered, [1.0]])
    missed = np.concatenate([[1.0], 1 - np.arange(1, count + 1) / count, [0.0]])
    return Molchan(tuple(alarm.tolist()), tuple(missed.tolist()), float(1 - ordered.mean()), chance)
