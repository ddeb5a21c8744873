"""When a dip opens, closes and is given up: one evaluation at a time, in fractions of 1, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .detectors import State, require
from .recovery import describe
from .rolling import CONSISTENT, median, median_and_mad

__all__ = ["Thresholds", "judge"]

_ROUNDING = 1e-12  # reaching a threshold up to rounding is reaching it


@dataclass(frozen=True)
class Thresholds:
    """When a dip opens, at base - accuracy >= max(sigmas * s, errors * se, points), and when it is given up.

    `window`, `minimum` and `patience` count evaluations (pools of them, where `pool` > 1).
    """

    sigmas: float = 4.0
    errors: float = 3.0
    points: float = 0.01
    window: int = 25
    minimum: int = 8
    patience: int = 100
    pool: int = 1

    def __post_init__(self) -> None:
        require(self, "sigmas", low=0)
        require(self, "errors", low=0)
        require(self, "points", low=0, high=1, strict=True)
        require(self, "window", low=2)
        require(self, "minimum", low=2, high=self.window)
        require(self, "patience", low=1)
        require(self, "pool", low=1)


def judge(state: State, pool: list[list[Any]], t: Thresholds) -> tuple[list[State], State]:
    """Take one evaluation, or a pool of them that counts as one.

    Args:
        state: `good`, the step before which all was well; `window` and `residuals`, the last unflagged accuracies and
            their distances to the bases they had; `dip`, the event under way or None. Plain JSON.
        pool: evaluations `[step, accuracy, queries or None]`.
        t: the thresholds.

    Returns:
        The dips that are complete, for `foreshock.probes.recovery.describe`, and the new state.

    >>> state = {"good": 7, "window": [0.6] * 8, "residuals": [0.0] * 7, "dip": None}
    >>> _, state = judge(state, [[8, 0.5, 4096]], Thresholds())
    >>> round(state["dip"]["threshold"], 4)
    0.0306
    """
    step, accuracy, queries = _pooled(pool)
    dip = state["dip"]
    if dip is None or dip["closed"] is not None:
        base, threshold = _opening(state, queries, t)
        if base - accuracy >= threshold - _ROUNDING:  # false while there is no base
            new = {"onset_after": state["good"], "base": base, "threshold": threshold, "rows": [[step, accuracy]]}
            return [] if dip is None else [dip], state | {"dip": new | {"closed": None}}
        state = _taken_in(state, pool[0][0], accuracy, t)
        if dip is None:
            return [], state
        dip = dip | {"rows": [*dip["rows"], [step, accuracy]]}
    else:
        dip = dip | {"rows": [*dip["rows"], [step, accuracy]]}
        missing = dip["base"] - accuracy
        # Half recovered but still as low as a dip begins: wait, or the next evaluation would open it once more.
        if missing <= _depth(dip) / 2 and missing < dip["threshold"]:
            dip["closed"] = len(dip["rows"])
            state = _taken_in(state, pool[0][0], accuracy, t)
    if dip["closed"] is not None and describe(dip)["t90"] is not None:
        return [dip], state | {"dip": None}
    if len(dip["rows"]) >= t.patience:
        given_up = dip["closed"] is None
        return [dip], (_settled(state, dip, pool[0][0], t) if given_up else state) | {"dip": None}
    return [], state | {"dip": dip}


def _opening(state: State, queries: float | None, t: Thresholds) -> tuple[float, float]:
    """The base and how far below it a dip opens; NaN before `minimum` evaluations."""
    if len(state["window"]) < t.minimum:
        return math.nan, math.nan
    base = median(sorted(state["window"]))
    se = math.sqrt(base * (1 - base) / queries) if queries else 0.0
    scatter = median_and_mad(sorted(state["residuals"]))[1] if state["residuals"] else 0.0
    return base, max(t.sigmas * max(CONSISTENT * scatter, se), t.errors * se, t.points)


def _taken_in(state: State, first_step: int, accuracy: float, t: Thresholds) -> State:
    """An unflagged evaluation becomes part of the base, and its distance to the old base part of the scatter."""
    window, residuals = state["window"], state["residuals"]
    if window:
        residuals = [*residuals, accuracy - median(sorted(window))][-t.window :]
    return state | {"good": first_step, "window": [*window, accuracy][-t.window :], "residuals": residuals}


def _settled(state: State, dip: State, first_step: int, t: Thresholds) -> State:
    """A dip that was given up: where the curve is now becomes its base, so that the next dip can be seen."""
    recent = [accuracy for _, accuracy in dip["rows"]][-t.window :]
    return state | {"good": first_step, "window": recent}


def _depth(dip: State) -> float:
    return dip["base"] - min(accuracy for _, accuracy in dip["rows"][: dip["closed"]])


def _pooled(pool: list[list[Any]]) -> tuple[int, float, float | None]:
    """Last step, accuracy over all queries, and their number."""
    counts = [queries for _, _, queries in pool]
    if any(count is None for count in counts):
        return pool[-1][0], sum(accuracy for _, accuracy, _ in pool) / len(pool), None
    total = sum(counts)
    return pool[-1][0], sum(accuracy * count for _, accuracy, count in pool) / total, total
