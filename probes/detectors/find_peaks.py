"""Local maxima by their prominence on the natural logarithm, as scipy's `find_peaks` has them; it looks a little ahead.

Its exact meaning: `scipy.signal.find_peaks(ln x, prominence=ln(ratio), wlen=window)`, over finite, positive values. A
peak's prominence is its height over the higher of two bases, one on either side: the lowest place between it and the
next higher value or the window's end. Only the peak's own step is flagged, and on noise every bump of `ratio` is one.

It is not causal: what a peak is depends on what follows. A step is judged once `window` // 2 finite, positive values
have followed it, or at the end of the series; so batch and stream agree whatever the blocks are, and live it is that
late. A plateau is flagged at its middle, as in scipy, but not if it is longer than a quarter of the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import FLAGGED, NONFINITE, Scores, State, require

__all__ = ["Thresholds", "detect", "finish"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged at prominence >= ln(`ratio`), bases sought within `window` values centred on the peak (made odd)."""

    ratio: float = 3.0
    window: int = 65
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "ratio", low=1, strict=True)
        require(self, "window", low=9)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge those steps that can be judged with the next values f64[n].

    Score: the prominence where it reaches the threshold, else 0; baseline: the value at the higher base, or the value
    itself. State: `logs`, of the judged values that still matter and of those waiting; `late`, what waits.

    >>> x = np.ones(100); x[40] = 5.0
    >>> scores, state = detect(x)
    >>> len(scores.flags), np.flatnonzero(scores.flags).tolist(), len(finish(state)[0].flags)
    (68, [40], 32)
    """
    state = {"logs": [], "late": []} if state is None else state
    finite = np.isfinite(values)
    kinds = np.where(finite, np.where(values > 0, 1, 0), -1)  # 1: it has a logarithm; 0: zero; -1: not finite
    logs = np.concatenate([np.array(state["logs"], float), np.log(values[kinds == 1])])
    late = np.concatenate([np.array(state["late"], int), kinds])
    room = thresholds.window // 2
    # Waiting are the last `room` logarithms, and whatever comes after the first of them.
    places = np.flatnonzero(late == 1)
    judged = int(places[max(0, len(places) - room)]) if len(places) else len(late)
    return _told(logs, late, judged, thresholds)


def finish(state: State | None = None, thresholds: Thresholds = Thresholds()) -> tuple[Scores, State]:
    """Judge the rest, at the end of the series.

    >>> len(finish(None)[0].flags)
    0
    """
    state = {"logs": [], "late": []} if state is None else state
    logs, late = np.array(state["logs"], float), np.array(state["late"], int)
    return _told(logs, late, len(late), thresholds)


def _told(logs: np.ndarray, late: np.ndarray, judged: int, t: Thresholds) -> tuple[Scores, State]:
    """Scores of the first `judged` waiting steps, and what remains."""
    room = t.window // 2
    waiting = int(np.count_nonzero(late == 1))
    ready = int(np.count_nonzero(late[:judged] == 1))
    first = len(logs) - waiting
    height = _prominences(logs, room, math.log(t.ratio))[first : first + ready]
    kinds = late[:judged]
    scores = Scores.blank(np.where(kinds == -1, np.nan, 0.0))
    positive = kinds == 1
    scores.score[kinds == 0] = 0.0
    scores.score[positive] = height
    scores.baseline[positive] = np.exp(logs[first : first + ready] - height)
    scores.flags[positive] = FLAGGED * (height > 0)
    scores.flags[kinds == -1] = NONFINITE
    kept = logs[max(0, first + ready - room) :]
    return scores, {"logs": kept.tolist(), "late": late[judged:].tolist()}


def _prominences(y: np.ndarray, room: int, least: float) -> np.ndarray:
    """The prominence of each local maximum that reaches `least`; 0 elsewhere."""
    told = np.zeros(len(y))
    peaks = _maxima(y, room // 2)
    padded = np.pad(y, room, constant_values=np.inf)
    lowest = sliding_window_view(padded, room + 1).min(axis=1)  # [i]: of y[i - room] to y[i]
    possible = y[peaks] - np.maximum(lowest[peaks], lowest[peaks + room]) >= least
    for peak in peaks[possible].tolist():
        height = float(y[peak])
        base = max(_base(y[max(0, peak - room) : peak][::-1], height), _base(y[peak + 1 : peak + room + 1], height))
        if height - base >= least:
            told[peak] = height - base
    return told


def _maxima(y: np.ndarray, longest: int) -> np.ndarray:
    """Places of the local maxima, those of plateaus in their middle; none at the ends, nor of longer plateaus."""
    starts = np.flatnonzero(np.diff(y, prepend=np.nan) != 0)  # of runs of equal values
    if len(starts) < 3:
        return np.empty(0, int)
    ends, levels = np.append(starts[1:], len(y)) - 1, y[starts]
    top = np.zeros(len(starts), bool)
    top[1:-1] = (levels[1:-1] > levels[:-2]) & (levels[1:-1] > levels[2:]) & ((ends - starts)[1:-1] < longest)
    return ((starts + ends) // 2)[top]


def _base(side: np.ndarray, height: float) -> float:
    """The lowest value before one that is higher than the peak; the peak itself if there is none."""
    higher = np.flatnonzero(side > height)
    return float(side[: higher[0] if len(higher) else None].min(initial=height))
