"""The default detector: a robust z on the logarithm (natural log units), and a ratio to the median.

A step's y = ln x is compared with the median m and s = max(1.4826 MAD, floor) of the last `window` finite, unflagged
values strictly before it: z = (y - m) / s. On the logarithm one setting serves every layer, and neither the scale of
the series nor its noise level changes the false-alarm rate much; a point never enters its own baseline.

- opens at z >= `z` and x / e^m >= `ratio`, once there are `minimum` values; closes at z < `close`.
- after `rebaseline` flagged steps of one event (steps at most `merge` apart) the new level is the baseline.
- a non-finite value opens at once, baseline or not, and never becomes a baseline.
- a zero (a dead layer, the first step of a warm-up from 0) has no logarithm: it is calm, closes what is open, and stays
  out of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..rolling import CONSISTENT, median_and_mad, slide
from . import CALM, FLAGGED, LEVEL_SHIFT, NONFINITE, Scores, State, require

__all__ = ["Thresholds", "detect"]

# Reaching a threshold up to rounding is reaching it, so multiplying a series by a constant can't change its events.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Thresholds:
    """When a step is flagged; `window`, `minimum`, `rebaseline` and `merge` count measured steps."""

    ratio: float = 2.0
    z: float = 4.5
    close: float = 2.0
    window: int = 256
    minimum: int = 64
    rebaseline: int = 128
    merge: int = 10
    floor: float = 0.05

    def __post_init__(self) -> None:
        require(self, "ratio", low=1)
        require(self, "z", low=0, strict=True)
        require(self, "close", low=0, high=self.z)
        require(self, "window", low=2)
        require(self, "minimum", low=2, high=self.window)
        require(self, "rebaseline", low=self.minimum)
        require(self, "merge", low=1)
        require(self, "floor", low=0, strict=True)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values of one series.

    Args:
        values: f64[n], non-negative or not finite, one a measured step.
        state: what the last call returned; None at the start of the series.
        thresholds: see `Thresholds`.

    Returns:
        `Scores` of the n steps (score: z, -inf at a zero, inf where not finite; baseline: e^m), and the new state:
        `window` and `held` (natural logarithms), `open`, `quiet` (calm steps since the last flagged one).

    >>> x = np.full(100, 0.5); x[80] = 5.0
    >>> scores, state = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), round(float(scores.score[80]), 1), len(state["window"])
    ([80], 46.1, 99)
    """
    if state is None:
        state = {"window": [], "held": [], "open": False, "quiet": 0}
    return _scan(values.tolist(), state, thresholds)


def _scan(values: Sequence[float], state: State, t: Thresholds) -> tuple[Scores, State]:
    """The kernel: one pass in order, with nothing but floats and lists of floats."""
    window, held = list(state["window"]), list(state["held"])
    is_open, quiet = state["open"], state["quiet"]
    ordered = sorted(window)
    log_ratio = math.log(t.ratio) - _ROUNDING
    z_open, z_close = t.z - _ROUNDING, t.close - _ROUNDING
    y, flags, zs, baselines = math.nan, [], [], []
    middle, scale = _baseline(ordered, t)
    for x in values:
        flag = CALM
        if not math.isfinite(x):
            z, flag, is_open = math.inf, NONFINITE, True
        elif x == 0:
            z, is_open = -math.inf, False
        else:
            y = math.log(x)
            z = (y - middle) / scale  # NaN without a baseline: every comparison is then false
            is_open = z >= z_close if is_open else z >= z_open and y - middle >= log_ratio
        zs.append(z)
        baselines.append(middle)
        if is_open and flag == CALM:
            flag = FLAGGED
            held.append(y)
            if len(held) >= t.rebaseline:
                flag, is_open = LEVEL_SHIFT, False
                window, held = held[-t.window :], []
                ordered = sorted(window)
                middle, scale = _baseline(ordered, t)
        elif flag == CALM and x > 0:
            slide(window, ordered, y, t.window)
            middle, scale = _baseline(ordered, t)
        quiet = quiet + 1 if flag == CALM else 0
        if quiet >= t.merge:
            held = []
        flags.append(flag)
    scores = Scores(np.array(flags, np.uint8), np.array(zs, float), np.exp(np.array(baselines, float)))
    return scores, {"window": window, "held": held, "open": is_open, "quiet": quiet}


def _baseline(ordered: Sequence[float], t: Thresholds) -> tuple[float, float]:
    """m and s of the window, NaN while it holds fewer than `minimum` values."""
    if len(ordered) < t.minimum:
        return math.nan, math.nan
    middle, mad = median_and_mad(ordered)
    return middle, max(CONSISTENT * mad, t.floor)
