"""llm-foundry's `KillLossSpike`: at least twice the window's mean for more than 4 steps in a row.

Raw scale. The window is 100 values or 5 % of the run, whichever is more, strictly before the step and only when full;
outliers enter it too. The first 4 steps of a spike are never flagged: it was made to stop runs, not to find events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..rolling import trailing_moments
from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged from the (`patience` + 1)-th step in a row with x >= `ratio` times the window's mean (if > 0).

    The window is max(`window`, 5 % of `total_steps`) finite values; 0 total steps: unknown.
    """

    ratio: float = 2.0
    patience: int = 4
    window: int = 100
    total_steps: int = 0
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "ratio", low=0, strict=True)
        require(self, "patience", low=0)
        require(self, "window", low=1)
        require(self, "total_steps", low=0)
        require(self, "merge", low=1)

    @property
    def full(self) -> int:
        """The window's length."""
        return max(self.window, round(0.05 * self.total_steps))


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: x / mean; state: `history` of finite values, `run`, outliers in a row.

    >>> x = np.ones(120); x[110:116] = 3.0
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[110]
    ([114, 115], np.float64(3.0))
    """
    scores, finite = Scores.blank(values), np.isfinite(values)
    state = {"history": [], "run": 0} if state is None else state
    x, run = values[finite], state["run"]
    mean, _, history = trailing_moments(state["history"], x, thresholds.full, thresholds.full)
    flags = []
    for outlier in ((x >= thresholds.ratio * mean) & (mean > 0)).tolist():
        run = run + 1 if outlier else 0
        flags.append(FLAGGED if run > thresholds.patience else 0)
    scores.flags[finite] = flags
    scores.score[finite] = np.divide(x, mean, out=np.full_like(x, np.nan), where=mean > 0)
    scores.baseline[finite] = mean
    return scores, {"history": history, "run": run}
