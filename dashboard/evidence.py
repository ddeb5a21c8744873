"""What the precursor view shows of one run and layer: the report, lags, and the mean kNN curve around its spikes.

Steps are the trace's own, accuracies 0..1. Whatever is compared with chance is compared with block-shifted events
(`foreshock.probes.surrogates`), which keep bursts and drifting rates.
"""

from __future__ import annotations

__all__ = ["Evidence", "Evidences", "Response", "around", "evidence_of", "lags"]

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..probes.precursor_report import Coincidence, PrecursorReport
from ..probes.precursors import precursors
from ..probes.sessions import Session, session
from ..probes.surrogates import BLOCK_PER_LAG, block_shifts
from ..traces.reader import Trace
from .event import CURVE
from .follow import Snapshot

LONGEST_LAG, LAG_BIN = 128, 8
BEFORE, AFTER = 64, 192  # steps of the mean curve before and behind the onsets
SURROGATES = 199
MOST_SPIKES = 400
KEPT = 8


@dataclass(frozen=True)
class Response:
    """A curve or histogram f64[n] at `at` f64[n], with the mean and the middle 95 % of its surrogates."""

    at: NDArray[np.float64]
    seen: NDArray[np.float64]
    expected: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    events: int


@dataclass(frozen=True)
class Evidence:
    """`lags` counts spikes of `layer` by the steps to the next dip; `knn` is the mean curve around its spikes."""

    run: str
    layer: str
    layers: tuple[str, ...]
    report: PrecursorReport
    lags: Response | None = None
    knn: Response | None = None
    knn_step: int = 1

    @property
    def rows(self) -> list[Coincidence]:
        """The report's rows of this layer, by lag."""
        return [row for row in self.report.rows if row.layer == self.layer]


def evidence_of(run: str, trace: Trace, report: PrecursorReport, found: Session, layer: str = "") -> Evidence:
    """The evidence for `layer`; without a name, for the one that the report thinks best, or the first."""
    named = [name for name, count in report.spikes.items() if count]
    usual = report.best.layer if report.best else next(iter(named), "")
    chosen = layer if layer in trace.layers else usual
    rng = np.random.default_rng(0)
    onsets = found.onsets.get(chosen, np.empty(0, np.int64))[:MOST_SPIKES]
    block = BLOCK_PER_LAG * LONGEST_LAG
    counted = curve = None
    step = 1
    if len(onsets) and len(found.by):
        counted = lags(onsets, found.by, block_shifts(found.by, found.first, found.last, block, SURROGATES, rng))
    if len(onsets) and CURVE in trace.scalars:
        moved = block_shifts(onsets, found.first, found.last, block, SURROGATES, rng)
        knn = np.asarray(trace[CURVE], dtype=np.float64)
        seen = np.flatnonzero(np.isfinite(knn))
        step = int(max(4, np.median(np.diff(trace.steps[seen])))) if len(seen) > 2 else 4
        curve = around(trace.steps, knn, onsets, moved, step)
    return Evidence(run, chosen, tuple(named), report, counted, curve, step)


def lags(onsets: NDArray[np.int64], by: NDArray[np.int64], moved: NDArray[np.int64]) -> Response:
    """Count spikes by the steps to the next dip, in bins of 8; `by` i64[D], `moved` i64[N, D] are the dips.

    >>> found = lags(np.array([10, 50]), np.array([15, 70]), np.array([[40, 99]]))
    >>> found.at[:3].tolist(), found.seen[:3].tolist(), found.expected[:4].tolist()
    ([4.0, 12.0, 20.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0])
    """
    edges = np.arange(0, LONGEST_LAG + 1, LAG_BIN)

    def counts(dips: NDArray[np.int64]) -> NDArray[np.float64]:
        ordered = np.sort(dips)
        place = np.searchsorted(ordered, onsets, side="right")
        reached = place < len(ordered)
        return np.histogram(ordered[place[reached]] - onsets[reached] - 0.5, edges)[0].astype(float)

    chance = np.array([counts(row) for row in moved])
    low, high = np.quantile(chance, [0.025, 0.975], axis=0)
    return Response(
        (edges[:-1] + LAG_BIN / 2).astype(np.float64), counts(by), chance.mean(axis=0), low, high, len(onsets)
    )


def around(
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    onsets: NDArray[np.int64],
    moved: NDArray[np.int64],
    width: int,
) -> Response:
    """The event-triggered average: mean of `values` f64[T] in bins of `width` steps around `onsets`, less that before.

    Each event's curve is taken relative to its own mean over the 64 steps before the onset; `moved` i64[N, S] gives
    the surrogates' onsets.
    """
    bins = np.arange(-BEFORE // width * width, AFTER + 1, width)
    seen = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(seen, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(seen)])

    def mean(at: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = np.searchsorted(steps, at[..., None] + bins)
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.diff(total[rows], axis=-1) / np.diff(count[rows], axis=-1)
            first = rows[..., 0], np.searchsorted(steps, at)
            base = (total[first[1]] - total[first[0]]) / (count[first[1]] - count[first[0]])
        relative = level - base[..., None]
        known = np.isfinite(relative)
        summed = np.where(known, relative, 0.0).sum(axis=-2)
        return np.where(known.any(axis=-2), summed / np.maximum(known.sum(axis=-2), 1), np.nan)

    chance = mean(moved)
    usable = np.isfinite(chance).any(axis=0)
    band = np.full((3, len(bins) - 1), np.nan)
    band[:, usable] = np.nanquantile(chance[:, usable], [0.025, 0.5, 0.975], axis=0)
    return Response((bins[:-1] + width / 2).astype(np.float64), mean(onsets), band[1], band[0], band[2], len(onsets))


class Evidences:
    """Reports by run, epoch and length: computing one takes seconds. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], tuple[PrecursorReport, Session]] = OrderedDict()

    def of(self, snapshot: Snapshot, layer: str) -> Evidence:
        """The evidence for a layer in what the snapshot holds; ValueError if no step is left beyond the warm-up."""
        trace = snapshot.trace
        assert trace is not None
        key = (snapshot.run, snapshot.epoch, len(trace))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = _report(trace, snapshot)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            report, found = self._kept[key]
        return evidence_of(snapshot.run, trace, report, found, layer)


def _report(trace: Trace, snapshot: Snapshot) -> tuple[PrecursorReport, Session]:
    spikes: Sequence = snapshot.spikes
    return precursors(spikes, snapshot.dips, trace), session(spikes, snapshot.dips, trace, trace.layers, None)
