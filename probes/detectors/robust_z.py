"""The plain robust z on natural logarithms: one step against the median and MAD of the steps before, fixed thresholds.

A step's y = ln x is compared with the median m and s = max(1.4826 MAD, `floor`) of the last `window` finite, unflagged
values strictly before it: z = (y - m) / s. It opens at z >= `z` and x / e^m >= `ratio`, and closes at z < `close`;
level shifts, non-finite values and zeros are treated as in `robust`, the default, which this is the core of. Where ln x
has a standard deviation of .1 they are equally good; at .2 and more this one finds more one-step glitches, and noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..robust_bank import judge
from ..robust_scan import Rule
from . import Scores, State, require

__all__ = ["Thresholds", "detect", "rule"]


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
    """Judge the next values f64[n]; score: z, -inf at a zero; baseline: e^m; state: as `robust`.

    >>> x = np.full(100, 0.5); x[80] = 5.0
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), round(float(scores.score[80]), 1)
    ([80], 46.1)
    """
    return judge(values, state, rule(thresholds))


def rule(t: Thresholds) -> Rule:
    """What the kernel that judges all layers at once needs: no means, and a threshold that is not lifted.

    >>> rule(Thresholds()).lift
    0.0
    """
    kept = t.close, t.window, t.minimum, t.rebaseline, t.merge, t.floor
    return Rule(math.log(t.ratio), t.z, 0.0, 1.0, math.inf, math.inf, *kept)
