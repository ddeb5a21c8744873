"""A line about every run for the list: state, progress (0 to 1), time left (s), kNN (0..1), spikes, dips, sparkline.

What is in a run's header is known at once. Spikes and dips need the whole run read, which a thread of its own does,
the runs that are being written first; until it has, those cells are empty, never 0.
"""

from __future__ import annotations

__all__ = ["Summaries", "Summary", "spike_score", "summary_of"]

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probes.detectors import olmo2
from ..probes.layers import first_layer
from ..traces.errors import TraceError
from ..traces.reader import Trace, open_trace
from .follow import Runs, Snapshot
from .view import episodes

SPARK_POINTS = 48
IDLE_S = 15.0  # the thread ends when nobody has asked for so long
LIVE = ("running", "stalled")


@dataclass(frozen=True)
class Summary:
    """One run in the list; None where something is not known (yet)."""

    run: str
    state: str
    rows: int = 0
    step: int | None = None
    total: int | None = None
    left_s: float | None = None
    knn: float | None = None
    best: float | None = None
    spark: tuple[float | None, ...] = ()
    layers: int = 0
    spikes: int | None = None
    dips: int | None = None
    score: float | None = None  # share of steps, 0 to 1
    message: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def progress(self) -> float | None:
        """The share of the steps that are done."""
        return None if not self.total or self.step is None else min(1.0, (self.step + 1) / self.total)


def summary_of(run: str, trace: Trace) -> Summary:
    """What the header and a coarse look at the curves tell; quick at any length."""
    knn = _knn(trace)
    seen = knn[np.isfinite(knn)]
    steps = trace.steps
    step = int(steps[-1]) if len(steps) else None
    total = trace.meta.get("total_steps")
    total = int(total) if isinstance(total, (int, float)) and total == total and total > 0 else None
    return Summary(
        run=run,
        state=trace.state,
        rows=len(trace),
        step=step,
        total=total,
        left_s=_left(trace, step, total),
        knn=float(seen[-1]) if len(seen) else None,
        best=float(_best(trace)) if len(seen) else None,
        spark=_spark(knn),
        layers=len(trace.layers),
        message=trace.message,
        config=trace.config,
    )


def _knn(trace: Trace) -> NDArray[np.float64]:
    if "knn_accuracy" not in trace.scalars or not len(trace):
        return np.empty(0)
    tail = trace.read("knn_accuracy", start=max(0, len(trace) - 512))
    coarse = trace.overview("knn_accuracy", columns=SPARK_POINTS * 4).mean
    return np.concatenate([coarse, tail[np.isfinite(tail)][-1:]])


def _best(trace: Trace) -> float:
    return float(np.nanmax(trace.overview("knn_accuracy", columns=SPARK_POINTS * 4).max))


def _spark(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    """At most 48 points: means of neighbouring values that are there."""
    seen = values[np.isfinite(values)]
    if len(seen) > SPARK_POINTS:
        edges = np.linspace(0, len(seen), SPARK_POINTS + 1).astype(int)
        seen = np.array([seen[a:b].mean() for a, b in pairwise(edges)])
    return tuple(round(float(value), 4) for value in seen)


def _left(trace: Trace, step: int | None, total: int | None) -> float | None:
    """Seconds to the end at the pace of the last 200 steps; None unless the run is being written."""
    if trace.state != "running" or step is None or total is None or "step_time" not in trace.scalars:
        return None
    pace = trace.read("step_time", start=max(0, len(trace) - 200))
    pace = pace[np.isfinite(pace)]
    return float(np.median(pace)) * max(0, total - step - 1) if len(pace) else None


def spike_score(trace: Trace) -> float | None:
    """OLMo 2's spike score: the share of steps at least 7 sigma from the mean of the last 1000 (arXiv 2501.00656).

    Of the whole model's gradient norm, or else the first layer's; None for a run of fewer than 1001 steps.
    """
    if "grad_norm_total" in trace.scalars:
        values = trace["grad_norm_total"]
    elif "grad_norm" in trace.series and trace.layers:
        values = trace.read("grad_norm", layer=first_layer(trace.layers))
    else:
        return None
    values = np.asarray(values, dtype=np.float64)
    if np.isfinite(values).sum() <= olmo2.Thresholds().window:
        return None
    return float((olmo2.detect(values)[0].flags != 0).mean())


class Summaries:
    """The lines of all runs under a root. Every method may be called from any thread."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[Any, ...], Summary]] = {}
        self._found: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._thread: threading.Thread | None = None
        self._asked = 0.0

    def rows(self) -> list[Summary]:
        """One line a run, those being written first, then the newest."""
        made = [self._line(run) for run in self._runs.names()]
        self._asked = time.monotonic()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._search, daemon=True, name="summaries")
                self._thread.start()
        return sorted(made, key=lambda line: line.state not in LIVE)

    def _line(self, run: str) -> Summary:
        path = self._runs.path(run)
        try:
            if path is None:
                return Summary(run, "deleted")
            trace = open_trace(path)
            stamp = (trace.attrs.get("created"), trace.generation, len(trace), trace.state)
            held = self._known.get(run)
            if held is None or held[0] != stamp:
                held = self._known[run] = (stamp, summary_of(run, trace))
        except TraceError as error:
            return Summary(run, "broken", message=str(error))
        found = self._found.get(run)
        same = found is not None and found[0][:2] == stamp[:2]
        return Summary(**{**held[1].__dict__, **(found[1] if found is not None and same else {})})

    def _search(self) -> None:
        """Read every run whose spikes are not known, one after the other, until nobody asks any more."""
        while time.monotonic() - self._asked < IDLE_S:
            busy = False
            for line in sorted(self._known.values(), key=lambda held: held[1].state not in LIVE):
                busy = self._look(line[1].run, line[0]) or busy
            if not busy:
                time.sleep(0.5)
        with self._lock:
            self._thread = None

    def _look(self, run: str, stamp: tuple[Any, ...]) -> bool:
        """Search a run a little further; True if there was something to do."""
        if run in self._found and self._found[run][0] == stamp:
            return False
        follower = self._runs.follower(run)
        snapshot = follower.snapshot() if follower is not None else None
        if snapshot is None or snapshot.trace is None or snapshot.searched < 1:
            return snapshot is not None and snapshot.trace is not None
        try:
            self._found[run] = (stamp, _events(snapshot, snapshot.trace))
        except TraceError:  # cut short or deleted meanwhile: the list says so when it looks next
            return False
        return True


def _events(snapshot: Snapshot, trace: Trace) -> dict[str, Any]:
    usual = [spike for spike in snapshot.spikes if not spike.warmup]
    dips = len(snapshot.dips) if "knn_accuracy" in trace.scalars else None
    return {"spikes": len(episodes(usual, trace.layers)), "dips": dips, "score": spike_score(trace)}
