"""From flagged steps to events: merge, onset, peak and area, in natural-log units of the ratio to the baseline.

Like a detector this is a pure function with explicit JSON state, so any chunking of a series gives the same events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .detectors import LEVEL_SHIFT, NONFINITE, Scores, State

__all__ = ["LOOK_BACK", "describe", "group"]

LOOK_BACK = 32
"""How many steps before the first flagged one may belong to the rise."""

_TINY = np.finfo(float).tiny  # stands for zero where a logarithm is needed


def group(
    steps: np.ndarray, values: np.ndarray, scores: Scores, state: State | None, merge: int
) -> tuple[list[State], State]:
    """Group the next judged values of one layer into events.

    Args:
        steps: i64[n], step numbers of the measured values.
        values: f64[n], the values.
        scores: what the detector says of them.
        state: what the last call returned; None at the start.
        merge: flagged steps at most this many measured steps apart belong to one event.

    Returns:
        The events that can grow no more, oldest first, as plain dicts for `describe`; and the new state, whose `event`
        is the one that still can (or None).

    >>> flags = np.array([0, 1, 0, 1, 0, 0, 0], np.uint8)
    >>> scores = Scores(flags, np.full(7, 9.0), np.full(7, 1.0))
    >>> closed, state = group(np.arange(7), np.array([1, 2, 1, 8, 1, 1, 1.0]), scores, None, merge=3)
    >>> closed[0]["start"], closed[0]["end"], state["event"]
    (1, 3, None)
    """
    state = state or {"row": 0, "last": -1, "recent": [], "event": None}
    row, last, event, recent = state["row"], state["last"], state["event"], state["recent"]
    closed: list[State] = []
    for i in np.flatnonzero(scores.flags).tolist():
        if event is not None and row + i - last > merge:
            closed.append(event)
            event = None
        if event is None:
            event = _opened(steps, values, i, recent, room=row + i - last - 1)
        event = _grown(event, int(steps[i]), float(values[i]), int(scores.flags[i]), scores, i)
        last = row + i
    row += len(steps)
    if event is not None and row - 1 - last >= merge:
        closed.append(event)
        event = None
    recent = (recent + _pairs(steps[-LOOK_BACK:], values[-LOOK_BACK:]))[-LOOK_BACK:]
    return closed, {"row": row, "last": last, "recent": recent, "event": event}


def describe(event: State) -> dict[str, Any]:
    """What `Spike` tells of an event: start, onset, peak, end, ratio, z, area, kind.

    >>> event = {"start": 7, "end": 9, "base": 0.5, "area": 5.3, "broken": None, "shifted": False,
    ...          "stairs": [[7, 1.5, 6.0], [8, 8.0, 20.0]], "before": []}
    >>> describe(event)["onset"], describe(event)["ratio"]
    (8, 16.0)
    """
    told = {"start": event["start"], "end": event["end"], "area": event["area"]}
    if event["broken"] is not None:  # half of an infinite peak is reached only there
        at = event["broken"]
        return told | {"onset": at, "peak": at, "ratio": math.inf, "z": math.inf, "kind": "nonfinite"}
    base = event["base"]
    peak, value, z = event["stairs"][-1]
    ratio = value / base if base > 0 else math.inf
    kind = "level_shift" if event["shifted"] else "spike"
    return told | {
        "onset": _onset(event),
        "peak": peak,
        "ratio": ratio,
        "z": math.inf if z is None else z,
        "kind": kind,
    }


def _onset(event: State) -> int:
    """First step of the rise at 50 % of the log peak, looking back before the flag where the rise began there."""
    base, stairs = event["base"], event["stairs"]
    top = _height(stairs[-1][1], base)
    reached = [step for step, value, _ in stairs if _height(value, base) / top >= 0.5] if top else [stairs[0][0]]
    onset = reached[0]
    if onset == event["start"] and top:
        for step, value in reversed(event["before"]):
            if _height(value, base) / top < 0.5:
                break
            onset = step
    return onset


def _opened(steps: np.ndarray, values: np.ndarray, i: int, recent: Sequence[Any], room: int) -> State:
    """A new event at row i, which remembers up to LOOK_BACK rows before it, none of them of another event."""
    before = [*recent, *_pairs(steps[max(0, i - LOOK_BACK) : i], values[max(0, i - LOOK_BACK) : i])]
    before = before[max(0, len(before) - min(room, LOOK_BACK)) :]
    start = int(steps[i])
    return {
        "start": start,
        "end": start,
        "base": None,
        "area": 0.0,
        "broken": None,
        "shifted": False,
        "stairs": [],
        "before": before,
    }


def _grown(event: State, step: int, value: float, flag: int, scores: Scores, i: int) -> State:
    """The event with one more flagged step. `stairs` keeps each new record: the onset is always one of them."""
    event = event | {"end": step, "shifted": event["shifted"] or flag == LEVEL_SHIFT}
    if flag == NONFINITE:
        return event | {"broken": step if event["broken"] is None else event["broken"]}
    base = event["base"] if event["base"] is not None else float(scores.baseline[i])
    stairs = event["stairs"]
    height = _height(value, base)
    if not stairs or abs(height) > abs(_height(stairs[-1][1], base)):
        stairs = [*stairs, [step, value, _finite(float(scores.score[i]))]]
    return event | {"base": base, "stairs": stairs, "area": event["area"] + height}


def _height(value: float, base: float) -> float:
    return math.log(max(value, _TINY)) - math.log(max(base, _TINY))


def _pairs(steps: np.ndarray, values: np.ndarray) -> list[list[float | None]]:
    # A non-finite value is flagged, and no look back goes as far as a flagged step: None will do for it.
    return [[step, _finite(value)] for step, value in zip(steps.tolist(), values.tolist(), strict=True)]


def _finite(value: float) -> float | None:
    """None stands for infinity in the state, which JSON lacks."""
    return value if math.isfinite(value) else None
