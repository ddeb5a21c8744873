"""ZClip: a z above 2.5 from exponential moving averages of mean and variance (arXiv 2504.02507).

Raw scale. The first 25 values give the first mean and population variance and are not judged. After that both averages
(weight .97 on the past) take in the value, and of a flagged value only what ZClip would have clipped it to: mean +
2.5 σ · (2.5 / z), its adaptive scaling. The variance is taken about the new mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]

_EPSILON = 1e-6  # ZClip's own, added to σ


@dataclass(frozen=True)
class Thresholds:
    """Flagged at (x - mean) / σ > `z`, after `warmup` finite values; `alpha`: weight of the past."""

    z: float = 2.5
    alpha: float = 0.97
    warmup: int = 25
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "z", low=0, strict=True)
        require(self, "alpha", low=0, high=1)
        require(self, "warmup", low=2)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: z; state: `first`, values of the warm-up, then `mean` and `variance`.

    >>> x = np.tile([1.0, 3.0], 30); x[50] = 9.0
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), round(float(scores.score[50]), 1)
    ([50], 7.1)
    """
    scores = Scores.blank(values)
    state = {"first": [], "mean": None, "variance": None} if state is None else state
    first, mean, variance = list(state["first"]), state["mean"], state["variance"]
    for i in np.flatnonzero(np.isfinite(values)).tolist():
        x = float(values[i])
        if mean is None:
            first.append(x)
            if len(first) == thresholds.warmup:
                mean = math.fsum(first) / len(first)
                variance = math.fsum((v - mean) ** 2 for v in first) / len(first)
                first = []
            continue
        sigma = math.sqrt(variance)
        z = (x - mean) / (sigma + _EPSILON)
        scores.score[i], scores.baseline[i] = z, mean
        if z > thresholds.z:
            scores.flags[i] = FLAGGED
            x = mean + thresholds.z * sigma * (thresholds.z / z)
        mean = thresholds.alpha * mean + (1 - thresholds.alpha) * x
        variance = thresholds.alpha * variance + (1 - thresholds.alpha) * (x - mean) ** 2
    return scores, {"first": first, "mean": mean, "variance": variance}
