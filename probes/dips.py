"""Dips: falls of an accuracy curve (fractions, 0 to 1) below its own recent level, in steps.

`find_dips` reads a whole curve, `DipFinder` one evaluation at a time, through the same code. Dips that training
recovers from, to a decent and slightly lower number, are what Chen, Xie and He call partial failure (Sec. 4.1, arXiv
2104.02057).

An evaluation is compared with the median of the last 25 unflagged ones (the base), in units of s: 1.4826 times the MAD
of their distances to the bases they had, or the binomial standard error at the base, whichever is larger. While the
curve climbs the base lags behind it: a climb never looks like a dip, and a dip in a climb is told from the lagging
base, at least that deep. A dip smaller than the lag, the climb within about 13 evaluations, is not seen; evaluate more
often.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .detectors import State
from .falls import Thresholds, judge
from .recovery import describe
from .series import is_trace, read_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["Dip", "DipFinder", "find_dips", "staleness_of"]


@dataclass(frozen=True)
class Dip:
    """One fall of the accuracy. Steps are the trace's own, or indices of a bare array.

    Attributes:
        onset_after: last good evaluation; the fall began after it (with pooling: the first of the last good pool).
        onset_by: first bad evaluation; the fall began by it.
        nadir: step of the lowest evaluation.
        end: first evaluation with half the depth recovered, for good; None if none was seen.
        depth: base minus accuracy at the nadir, as a fraction (0.01 is one point).
        area: sum of base minus accuracy from the onset to the end, in accuracy times steps.
        t50: steps from the nadir until half is recovered; None if that was not seen.
        t90: steps from the nadir until nine tenths are recovered; None likewise.
        kind: `dip`, recovered by half; `unrecovered`, not (or not yet, at the end of the curve); `partial_restart`,
            not, but it climbs anew from a lower place.
        base: the level it fell from.
        staleness: age in steps of the oldest kNN key, ceil(queue / batch size): fresh queries meet keys up to that old,
            so a jump of the network alone can lower the kNN accuracy for this long. None if unknown.
    """

    onset_after: int
    onset_by: int
    nadir: int
    end: int | None
    depth: float
    area: float
    t50: int | None
    t90: int | None
    kind: Literal["dip", "unrecovered", "partial_restart"]
    base: float
    staleness: int | None


def find_dips(
    source: Trace | ArrayLike,
    *,
    series: str = "knn_accuracy",
    steps: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    staleness: int | None = None,
    **thresholds: float,
) -> list[Dip]:
    """Find the dips of an accuracy curve.

    Args:
        source: a trace; or f[T], fractions, NaN where there was no evaluation.
        series: which of the trace's scalars.
        steps: i64[T], step numbers of an array (default: indices).
        queries: images behind one evaluation, a number or [T], NaN where unknown (default: a trace's `knn_queries`).
            Where unknown, the binomial error counts as 0: only the scatter and the 1 point remain.
        staleness: see `Dip` (default: a trace's queue and batch size).
        thresholds: fields of `Thresholds`. With few queries an evaluation, 4 standard errors are wide (12 points at 256
            queries); `pool=8` averages 8 consecutive evaluations into one and so finds smaller dips, later.

    Returns:
        Dips sorted by onset; one that is still open at the end included.

    Raises:
        ValueError: not one curve, values outside 0 to 1, unknown threshold, queries that don't fit.

    >>> accuracy = np.full(60, 0.6); accuracy[40:44] = 0.5, 0.45, 0.5, 0.55
    >>> dip, = find_dips(accuracy, queries=4096)
    >>> dip.onset_after, dip.onset_by, dip.nadir, dip.end, round(dip.depth, 2)
    (39, 40, 41, 43, 0.15)
    """
    rows = read_rows(source, series, steps=steps)
    if len(rows.values) != 1:
        raise ValueError(f"{len(rows.values)} curves are given; find_dips takes one accuracy curve [T]")
    if is_trace(source):
        staleness = staleness_of(source.meta) if staleness is None else staleness
        known = series == "knn_accuracy" and "knn_queries" in source.scalars
        queries = source["knn_queries"] if queries is None and known else queries
    finder = DipFinder(staleness=staleness, **thresholds)
    counts = [None] * len(rows.steps) if queries is None else _per_step(queries, len(rows.steps)).tolist()
    dips: list[Dip] = []
    for step, accuracy, count in zip(rows.steps.tolist(), rows.values[0].tolist(), counts, strict=True):
        dips += finder.update(step, accuracy, count)
    return dips + finder.close()


class DipFinder:
    """The same dips, one evaluation at a time.

    >>> finder = DipFinder()
    >>> for step in range(60):
    ...     for dip in finder.update(step, 0.45 if step == 40 else 0.6, queries=4096):
    ...         print(f"step {step}: fell by {dip.depth:.2f} at {dip.onset_by}")
    step 41: fell by 0.15 at 40
    """

    def __init__(self, *, staleness: int | None = None, **thresholds: float) -> None:
        unknown = [name for name in thresholds if name not in Thresholds.__dataclass_fields__]
        if unknown:
            allowed = ", ".join(Thresholds.__dataclass_fields__)
            raise ValueError(f"unknown threshold {unknown[0]!r}; allowed are {allowed}")
        self.staleness = staleness
        self._thresholds = Thresholds(**thresholds)  # pyright: ignore[reportArgumentType]
        self._state: State = {"last": None, "pool": [], "good": None, "window": [], "residuals": [], "dip": None}

    def update(self, step: int, accuracy: float, queries: float | None = None) -> list[Dip]:
        """Take the evaluation at `step`; NaN means there was none.

        Returns:
            Dips that are complete: recovered by nine tenths, given up after `patience` evaluations, or followed by a
            new one. `open_events` tells of a dip from its first bad evaluation on.

        Raises:
            ValueError: an accuracy outside 0 to 1, queries below 1, or a step that isn't beyond the last.
        """
        step, accuracy = int(step), float(accuracy)
        last = self._state["last"]
        if last is not None and step <= last:
            raise ValueError(f"step {step} is not beyond step {last}; after a rewind load an earlier state")
        if math.isnan(accuracy):
            self._state = self._state | {"last": step}
            return []
        if not 0 <= accuracy <= 1:
            raise ValueError(
                f"the accuracy at step {step} is {accuracy:g}; give fractions from 0 to 1, NaN for no evaluation"
            )
        queries = None if queries is None or math.isnan(queries) else queries
        if queries is not None and queries < 1:
            raise ValueError(f"queries is {queries:g} at step {step}; give the number of images behind the evaluation")
        pool = [*self._state["pool"], [step, accuracy, queries]]
        if len(pool) < self._thresholds.pool:
            self._state = self._state | {"last": step, "pool": pool}
            return []
        closed, state = judge(self._state, pool, self._thresholds)
        self._state = state | {"last": step, "pool": []}
        return [self._dip(event) for event in closed]

    def open_events(self) -> list[Dip]:
        """The dip that is under way, as far as it is known: none or one."""
        return [] if self._state["dip"] is None else [self._dip(self._state["dip"])]

    def close(self) -> list[Dip]:
        """End of the curve: return the open dip and forget it. Evaluations short of a whole pool are not judged."""
        rest = self.open_events()
        self._state = self._state | {"dip": None}
        return rest

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, as plain JSON values."""
        return {"thresholds": asdict(self._thresholds), "state": copy.deepcopy(self._state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another finder with the same thresholds stopped; ValueError if they differ."""
        own = asdict(self._thresholds)
        if state["thresholds"] != own:
            raise ValueError(
                f"the saved state has thresholds {state['thresholds']}, this finder {own}; make them the same"
            )
        self._state = copy.deepcopy(state["state"])

    def _dip(self, event: State) -> Dip:
        return Dip(**describe(event), staleness=self.staleness)


def _per_step(queries: ArrayLike, length: int) -> np.ndarray:
    counts = np.asarray(queries, float)
    if counts.shape not in ((), (length,)):
        raise ValueError(f"queries has shape {counts.shape}; give one number, or one for each of the {length} values")
    return np.broadcast_to(counts, (length,))


def staleness_of(meta: Mapping[str, Any]) -> int | None:
    """The age in steps of the oldest key of a run's kNN queue, from what its trace says; None if it says nothing.

    >>> staleness_of({"knn": {"queue": 6000}, "batch_size": 256})
    24
    """
    queue, batch = (meta.get("knn") or {}).get("queue"), meta.get("batch_size")
    return math.ceil(queue / batch) if queue and batch else None
