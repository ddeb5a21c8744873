"""A one-sided CUSUM on the logarithm (natural log units): small rises add up until they are sure.

z is (ln x - median) / max(1.4826 MAD, floor) over the last 200 finite, positive values strictly before the step, past
spikes among them; S = max(0, S + z - 1) fires at 6 and starts again from 0 (Page 1954). A zero has no logarithm: it
leaves S and the window as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..rolling import CONSISTENT, median_and_mad, slide
from . import FLAGGED, Scores, State, require

__all__ = ["Thresholds", "detect"]


@dataclass(frozen=True)
class Thresholds:
    """Flagged where S reaches `fire`; each step adds z - `drift`; `minimum` of the `window` values must be there."""

    fire: float = 6.0
    drift: float = 1.0
    window: int = 200
    minimum: int = 64
    floor: float = 0.05
    merge: int = 10

    def __post_init__(self) -> None:
        require(self, "fire", low=0, strict=True)
        require(self, "drift", low=0)
        require(self, "window", low=2)
        require(self, "minimum", low=2, high=self.window)
        require(self, "floor", low=0, strict=True)
        require(self, "merge", low=1)


def detect(
    values: np.ndarray, state: State | None = None, thresholds: Thresholds = Thresholds()
) -> tuple[Scores, State]:
    """Judge the next values f64[n]; score: S before it starts again; state: `window` of logarithms, and `sum`, S.

    >>> x = np.ones(100); x[80:83] = 1.2
    >>> scores, _ = detect(x)
    >>> np.flatnonzero(scores.flags).tolist(), scores.score[80:83].round(1).tolist()
    ([82], [2.6, 5.3, 7.9])
    """
    scores = Scores.blank(values)
    state = {"window": [], "sum": 0.0} if state is None else state
    window, total = list(state["window"]), state["sum"]
    ordered = sorted(window)
    for i in np.flatnonzero(np.isfinite(values) & (values > 0)).tolist():
        y = math.log(values[i])
        if len(window) >= thresholds.minimum:
            middle, mad = median_and_mad(ordered)
            z = (y - middle) / max(CONSISTENT * mad, thresholds.floor)
            total = max(0.0, total + z - thresholds.drift)
            scores.score[i], scores.baseline[i] = total, math.exp(middle)
            if total >= thresholds.fire:
                scores.flags[i], total = FLAGGED, 0.0
        slide(window, ordered, y, thresholds.window)
    return scores, {"window": window, "sum": total}
