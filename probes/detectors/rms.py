"""A fixed level for RMS_t, the update's root mean square under Adam: 2.3 or more is a spike.

RMS_t = sqrt(mean(g² / max(v, ε²))) of a tensor is near 1 while the second moment v is up to date and jumps when it is
not (Wortsman et al. 2023, arXiv 2304.13013). The level means something on the series `update_rms` only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged at x >= `level`; flagged steps at most `merge` apart are one event."""

    level: float = 2.3
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "level", low=0, strict=True)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: x itself, against a baseline of 1; there is nothing to remember.

    >>> scores, _ = detect(np.array([1.0, 2.3, 1.1]))
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[1]
    ([1], np.float64(2.3))
    """
    scores, finite = Scores.blank(values), np.isfinite(values)
    scores.flags[finite] = FLAGGED * (values[finite] >= thresholds.level)
    scores.score[finite] = values[finite]
    scores.baseline[finite] = 1.0
    return scores, {}
