"""OLMo-core's skip-step rule: values more than 6 standard deviations above the mean of the last 128.

Raw scale, one-sided, population σ, windows strictly before the step; past spikes stay in. It judges from the 64th value
on, as the optimizer does (`SkipStepOptimizer` in allenai/OLMo-core, which asks for half a window).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..rolling import trailing_moments
from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged at x > mean + `sigmas` σ, over the last `window` finite values, `minimum` at least."""

    sigmas: float = 6.0
    window: int = 128
    minimum: int = 63
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "sigmas", low=0, strict=True)
        require(self, "window", low=2)
        require(self, "minimum", low=1, high=self.window)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: (x - mean) / σ; state: `history`, the last finite values.

    >>> x = np.tile([1.0, 3.0], 100); x[150] = 20.0
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[150]
    ([150], np.float64(18.0))
    """
    scores, finite = Scores.blank(values), np.isfinite(values)
    history = [] if state is None else state["history"]
    x = values[finite]
    mean, sigma, history = trailing_moments(history, x, thresholds.window, thresholds.minimum)
    scores.flags[finite] = FLAGGED * (x - mean > thresholds.sigmas * sigma)
    unknown = np.where(x > mean, np.inf, np.nan)  # σ = 0: any rise is one
    scores.score[finite] = np.divide(x - mean, sigma, out=unknown, where=sigma > 0)
    scores.baseline[finite] = mean
    return scores, {"history": history}
