"""Lightning's `SpikeDetection`: three times the mean of the last 10 values, and a rise over the last one.

Raw scale. A value is flagged at |x - mean| >= 2 mean if it is larger than the last; flagged values enter neither the
mean nor the last. It judges from the second value on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged at |x - mean| >= `rtol` |mean| and x > last, over the last `window` finite, unflagged values."""

    rtol: float = 2.0
    window: int = 10
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "rtol", low=0, strict=True)
        require(self, "window", low=1)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: |x - mean| / |mean|; state: `window`, the last finite, unflagged values.

    >>> scores, _ = detect(np.array([1.0, 1.0, 4.0, 1.0]))
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[2]
    ([2], np.float64(3.0))
    """
    scores = Scores.blank(values)
    window = [] if state is None else list(state["window"])
    for i in np.flatnonzero(np.isfinite(values)).tolist():
        x = float(values[i])
        if window:
            mean = math.fsum(window) / len(window)
            scores.baseline[i] = mean
            scores.score[i] = abs(x - mean) / abs(mean) if mean else math.inf
            if abs(x - mean) >= thresholds.rtol * abs(mean) and x > window[-1]:
                scores.flags[i] = FLAGGED
                continue
        window = [*window, x][-thresholds.window :]
    return scores, {"window": window}
