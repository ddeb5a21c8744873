"""The flight recorder: of the last 256 steps every parameter's gradient norm, kept in the trace around each spike."""

from __future__ import annotations

__all__ = ["BY_PARAMETER", "FlightRecorder"]

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..traces.flights import FlightSpike
from .spikes import Spike

BY_PARAMETER = "grad_norm_by_parameter"  # what a sensor calls its f32[P], beside the series
RING = 256  # rows in memory
BEFORE = AFTER = 128  # steps around a spike
LONGEST_SPIKE = 256  # steps of a spike that are kept; of a longer one the rest is cut
LONGEST_WINDOW = 1024  # rows: where spikes follow each other for longer, the next window begins
MOST_SPIKES = 4  # of a window that are named
MAX_WINDOWS, MAX_BYTES = 256, 64 << 20  # of a run; the window of a crash is kept beyond them


class FlightRecorder:
    """Takes the norms of all parameters, and gives the writer those of the steps around spikes.

    `feed` is called with at most 64 rows at a time and with the spikes that are known by then, those under way too: the
    rows from 128 steps before a spike to 128 after it are handed on as they come, so that a process that is killed has
    lost no more of a window than of the trace. Spikes whose windows touch share one; a spike of more than 256 steps is
    cut. Rises in the warm-up are common and say little: they make no window, unless they are not finite. `close` adds
    what is left of the last 256 steps if the run failed, or a spike is not over.

    All of it happens on the host, in the thread of `Alerts`, in 256 rows of 4 bytes a parameter.

    >>> class Writer:
    ...     flight_windows = []
    ...     def add_flight(self, steps, grad_norm, **told): print(steps[0], steps[-1], grad_norm.shape, told["cause"])
    >>> recorder = FlightRecorder(Writer())
    >>> spike = Spike("norm", 350, 350, 351, 352, 8.0, 9.0, 5.0, "spike")
    >>> for start in range(0, 600, 50):
    ...     recorder.feed(np.arange(start, start + 50), np.ones((5, 50)), [spike] if start == 350 else [])
    222 399 (5, 178) spike
    400 449 (5, 50) spike
    450 480 (5, 31) spike
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._steps, self._norms = np.empty(0, np.int64), np.empty((0, 0), np.float32)
        self._seen = self._done = 0  # rows that came; the number of the first that is not written or dropped
        self._spikes: dict[tuple[str, int], Spike] = {}
        self._windows = len(writer.flight_windows)
        self._rows = sum(window["rows"] for window in writer.flight_windows)
        self._window: list[int] = []  # first step and rows of the window that may go on
        self._dropping, self._dropped = False, 0

    def feed(self, steps: np.ndarray, norms: np.ndarray, spikes: Sequence[Spike]) -> None:
        """Take rows, steps i64[n] and norms f32[P, n], and all spikes that closed or are under way since the last."""
        old = self._norms[:, -RING:] if self._norms.size else np.empty((len(norms), 0), np.float32)
        self._steps = np.concatenate([self._steps[-RING:], steps])
        self._norms = np.concatenate([old, np.asarray(norms, np.float32)], axis=1)
        self._seen += len(steps)
        self._know(spikes)
        wanted = np.zeros(len(self._steps), bool)
        for spike in self._spikes.values():
            last = min(spike.end, spike.start + LONGEST_SPIKE - 1) + AFTER
            wanted |= (self._steps >= spike.start - BEFORE) & (self._steps <= last)
        self._write(wanted, "spike")

    def close(self, status: str, still_open: Sequence[Spike]) -> None:
        """Write what the end of a run calls for, and say how much was dropped."""
        self._know(still_open)
        cause = "error" if status == "failed" else "spike"
        if (cause == "error" or any(map(_counts, still_open))) and len(self._steps):
            rest = np.zeros(len(self._steps), bool)
            rest[-RING:] = True
            self._write(rest, cause)
            if self._window and not self._dropping and self._done == self._seen:
                self._writer.add_flight(self._steps[:0], self._norms[:, :0], extend=True, **self._told(cause))
        if self._dropped:
            text = f"{self._dropped} windows of the flight recorder were dropped: {_LIMIT}"
            self._writer.event(int(self._steps[-1]), "flight", text)

    def _know(self, spikes: Sequence[Spike]) -> None:
        """Remember spikes, what is newer of one in the place of the older, and forget those that are long past."""
        self._spikes |= {(spike.layer, spike.start): spike for spike in spikes if _counts(spike)}
        if len(self._steps):
            past = min([int(self._steps[0]) - AFTER, *self._window[:1]])
            self._spikes = {key: spike for key, spike in self._spikes.items() if spike.end >= past}

    def _write(self, wanted: np.ndarray, cause: str) -> None:
        """Hand on the wanted rows that were not yet, those that follow each other at once."""
        first = self._seen - len(self._steps)  # number of the ring's first row
        at = np.flatnonzero(wanted & (np.arange(len(wanted)) + first >= self._done))
        for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1):
            while len(run):
                if not self._window or run[0] + first > self._done or self._window[1] >= LONGEST_WINDOW:
                    self._begin(int(self._steps[run[0]]), cause)
                part, run = np.split(run, [LONGEST_WINDOW - self._window[1]])
                self._hand_on(slice(part[0], part[-1] + 1), cause)
                self._done = int(part[-1]) + 1 + first

    def _begin(self, step: int, cause: str) -> None:
        """A new window, or the first step of one for which there is no room."""
        full = self._windows >= MAX_WINDOWS or 4 * self._rows * len(self._norms) >= MAX_BYTES
        self._dropping = full and cause != "error"
        self._window = [step, 0]
        if self._dropping:
            if not self._dropped:
                self._writer.event(step, "flight", f"the flight recorder is full from here on: {_LIMIT}")
            self._dropped += 1
        else:
            self._windows += 1

    def _hand_on(self, rows: slice, cause: str) -> None:
        extend = self._window[1] > 0
        self._window[1] += rows.stop - rows.start
        if not self._dropping:
            self._rows += rows.stop - rows.start
            told = self._told(cause, int(self._steps[rows.stop - 1]))
            self._writer.add_flight(self._steps[rows], self._norms[:, rows], extend=extend, **told)

    def _told(self, cause: str, last: int | None = None) -> dict[str, Any]:
        """What the trace says of the window that ends with step `last`."""
        last = int(self._steps[-1]) if last is None else last
        spikes = [spike for spike in self._spikes.values() if spike.start <= last and spike.end >= self._window[0]]
        spikes.sort(key=lambda spike: (-spike.ratio, spike.start))
        named = [FlightSpike(s.layer, s.start, s.onset, s.peak, s.end, s.ratio, s.kind) for s in spikes[:MOST_SPIKES]]
        cut = any(spike.end - spike.start >= LONGEST_SPIKE for spike in spikes)
        return {"cause": cause, "spikes": named, "spike_count": len(spikes), "cut": cut}


def _counts(spike: Spike) -> bool:
    return not spike.warmup or spike.kind == "nonfinite"


_LIMIT = f"a run keeps at most {MAX_WINDOWS} windows and {MAX_BYTES >> 20} MiB"
