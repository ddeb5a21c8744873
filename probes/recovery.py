"""What became of a dip: nadir, depth, area (accuracy times steps), and how long the recovery took (steps)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from .detectors import State

__all__ = ["describe"]


def describe(event: State) -> dict[str, Any]:
    """Measure a dip from its evaluations.

    Args:
        event: `base`, `threshold`, `onset_after`; `rows`, the evaluations `[step, accuracy]` from the first bad one on;
            `closed`, how many of them lie in the dip (None: all, it is open).

    Returns:
        The fields of `foreshock.probes.dips.Dip`, except `staleness`.

    >>> rows = [[10, .5], [20, .3], [30, .45], [40, .6]]
    >>> dip = describe({"base": .6, "threshold": .05, "onset_after": 0, "rows": rows, "closed": 3})
    >>> dip["nadir"], dip["end"], dip["t50"], dip["t90"], round(dip["area"], 2)
    (20, 30, 10, 20, 5.5)
    """
    base, rows = event["base"], event["rows"]
    inside = rows[: event["closed"]]
    bottom = min(range(len(inside)), key=lambda i: inside[i][1])
    nadir, lowest = inside[bottom]
    depth = base - lowest
    end = _end(inside, base - depth / 2)
    return {
        "onset_after": event["onset_after"],
        "onset_by": rows[0][0],
        "nadir": nadir,
        "end": end,
        "depth": depth,
        "area": _area(event["onset_after"], inside, base, end),
        "t50": _until(rows[bottom:], base - depth / 2),
        "t90": _until(rows[bottom:], base - depth / 10),
        "kind": "dip" if end is not None else _unrecovered(inside, bottom, event["threshold"]),
        "base": base,
    }


def _end(rows: Sequence[Sequence[Any]], level: float) -> int | None:
    """First step of the last stretch at or above `level`; None if the rows end below it."""
    end = None
    for step, accuracy in reversed(rows):
        if accuracy < level:
            break
        end = step
    return end


def _until(rows: Sequence[Sequence[Any]], level: float) -> int | None:
    """Steps from the first row to the first at or above `level`."""
    return next((step - rows[0][0] for step, accuracy in rows if accuracy >= level), None)


def _area(start: int, rows: Sequence[Sequence[Any]], base: float, end: int | None) -> float:
    """Each evaluation stands for the steps since the one before it."""
    area = 0.0
    for step, accuracy in rows:
        area += max(0.0, base - accuracy) * (step - start)
        start = step
        if step == end:
            break
    return area


def _unrecovered(rows: Sequence[Sequence[Any]], bottom: int, threshold: float) -> str:
    """A restart is a climb from around the nadir, by medians of five, of the size at which a fall counts as a dip."""
    accuracies = [accuracy for _, accuracy in rows]
    low = median(accuracies[max(0, bottom - 2) : bottom + 3])
    late = median(accuracies[-5:])
    return "partial_restart" if len(rows) - bottom > 5 and late - low >= threshold else "unrecovered"
