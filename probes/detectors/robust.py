"""The default detector: robust z-scores of one step and of means of 3 and 8 steps, on natural logarithms.

A step's y = ln x is compared with the median m and s = max(1.4826 MAD, `floor`) of the last `window` finite, unflagged
values strictly before it: z = (y - m) / s. On the logarithm one setting serves every layer, and neither the scale of
the series nor its noise level changes the false-alarm rate much; a point never enters its own baseline.

- opens where x / e^m >= `ratio`, z >= `close`, and one of three stands out: z itself; the mean of the last 3 z; of the
  last 8 (z cut off at ±5). A glitch shows in the first; a rise too small for it, but longer, in the others. It goes on
  while z >= `close`.
- The single-step threshold is `z`, or up to `lift` more where the run's *lower* tail is heavy: no spike falls, so what
  lies far below the median is noise, and its mirror image (a generalised Pareto tail of shape 1/8 beyond 2.5) tells how
  high noise rises. It is set to let `false_alarms` single steps through per 10,000; a step of `sure` times the
  baseline needs `z` only. The means open at 0.95 z and
  0.8 z of their own standard deviations, which are learnt from their falls. Both learn from the past only, over about
  4,000 steps, and start from those of normal noise.
- after `rebaseline` flagged steps of one event (steps at most `merge` apart) the new level is the baseline.
- a non-finite value opens at once, baseline or not, and never becomes a baseline.
- a zero (a dead layer, the first step of a warm-up from 0) has no logarithm: it is calm, closes what is open, and stays
  out of the baseline.

`robust_z` is the plain rule without the means and the adapting threshold. This one was made for noise: with a standard
deviation of .4 on ln x most that the plain rule finds is noise of heavy tails. Its price: one-step glitches below the
lifted threshold are missed, and where noise lingers (lag-1 correlation .7) the means bring nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..robust_bank import judge
from ..robust_scan import Rule
from . import Scores, State, require

__all__ = ["Thresholds", "detect", "rule"]

_SHORT, _LONG = 0.95, 0.8


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
    lift: float = 5.0
    false_alarms: float = 0.5
    sure: float = 40.0

    def __post_init__(self) -> None:
        require(self, "ratio", low=1)
        require(self, "z", low=0, strict=True)
        require(self, "close", low=0, high=self.z)
        require(self, "window", low=2)
        require(self, "minimum", low=2, high=self.window)
        require(self, "rebaseline", low=self.minimum)
        require(self, "merge", low=1)
        require(self, "floor", low=0, strict=True)
        require(self, "lift", low=0)
        require(self, "false_alarms", low=0, strict=True)
        require(self, "sure", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values of one series.

    Args:
        values: f64[n], non-negative or not finite, one a measured step.
        state: what the last call returned; None at the start of the series.
        thresholds: see `Thresholds`.

    Returns:
        `Scores` of the n steps (score: z of the step, -inf at a zero, inf where not finite; baseline: e^m), and the new
        state, see `foreshock.probes.robust_scan.blank`.

    >>> x = np.full(100, 0.5); x[80] = 5.0
    >>> scores, state = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), round(float(scores.score[80]), 1), len(state["window"])
    ([80], 46.1, 99)
    """
    return judge(values, state, rule(thresholds))


def rule(t: Thresholds) -> Rule:
    """What the kernel that judges all layers at once needs.

    >>> round(rule(Thresholds()).short, 3)
    4.275
    """
    means = _SHORT * t.z, _LONG * t.z
    kept = t.close, t.window, t.minimum, t.rebaseline, t.merge, t.floor
    return Rule(math.log(t.ratio), t.z, t.lift, t.false_alarms / 10_000, *means, *kept, math.log(t.sure))
