"""OLMo 2's spike score: values 7 standard deviations or more from the mean of the last 1000, on either side.

The share of flagged steps is the *spike score* (OLMo 2, arXiv 2501.00656). Raw scale, population σ, windows strictly
before the step and only when full; past spikes stay in, so a spike blinds the rule for what follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..rolling import trailing_moments
from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged at |x - mean| >= `sigmas` σ, σ > 0, over the last `window` finite values, `minimum` at least."""

    sigmas: float = 7.0
    window: int = 1000
    minimum: int = 1000
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "sigmas", low=0, strict=True)
        require(self, "window", low=2)
        require(self, "minimum", low=2, high=self.window)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: |x - mean| / σ; state: `history`, the last finite values.

    >>> x = np.tile([1.0, 3.0], 600); x[1100] = 20.0
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[1100]
    ([1100], np.float64(18.0))
    """
    scores, finite = Scores.blank(values), np.isfinite(values)
    history = [] if state is None else state["history"]
    x = values[finite]
    mean, sigma, history = trailing_moments(history, x, thresholds.window, thresholds.minimum)
    away = np.abs(x - mean)
    scores.flags[finite] = FLAGGED * ((away >= thresholds.sigmas * sigma) & (sigma > 0))
    scores.score[finite] = np.divide(away, sigma, out=np.full_like(away, np.nan), where=sigma > 0)
    scores.baseline[finite] = mean
    return scores, {"history": history}
