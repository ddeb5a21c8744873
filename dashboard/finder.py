"""The spikes and dips of one run as its rows come, in whichever process reads them; what it knows can be handed on."""

from __future__ import annotations

__all__ = ["EventFinder", "by_onset"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..probes.dips import Dip, DipFinder, staleness_of
from ..probes.spikes import Spike, SpikeFinder
from ..traces.reader import Trace

_CURVE, _QUERIES = "knn_accuracy", "knn_queries"


class EventFinder:
    """Every call takes the rows up to `stop` that it has not seen, of the curve or of the gradient norms.

    `message` says why one of the two is not looked at any more: values that cannot be an accuracy or a norm.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter, open_trace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TraceWriter(folder + "/a", layers=["norm"]) as writer:
    ...         norms = np.where(np.arange(900) == 700, 9.0, 1.0)[None]
    ...         writer.extend(np.arange(900), {"grad_norm": norms, "knn_accuracy": np.full(900, 0.5)})
    ...     finder = EventFinder(open_trace(folder + "/a"))
    ...     finder.take_curve(open_trace(folder + "/a"), 900)
    ...     finder.take_norms(open_trace(folder + "/a"), 900)
    >>> [spike.onset for spike in finder.spikes], finder.dips
    ([700], [])
    """

    def __init__(self, trace: Trace) -> None:
        self.message = ""
        self.curve_rows = self.rows = 0
        self.closed_spikes: list[Spike] = []
        self.closed_dips: list[Dip] = []
        self._dips = DipFinder(staleness=staleness_of(trace.meta))
        self._spikes: SpikeFinder | None = None
        if "grad_norm" in trace.series and trace.layers:
            self._spikes = SpikeFinder(trace.layers, warmup_steps=_warmup_of(trace), nan="gap")

    @property
    def open_spikes(self) -> list[Spike]:
        """Those that are under way, as far as they are known."""
        return self._spikes.open_events() if self._spikes is not None else []

    @property
    def spikes(self) -> list[Spike]:
        """Those that are over and those under way, by onset."""
        return by_onset([*self.closed_spikes, *self.open_spikes])

    @property
    def dips(self) -> list[Dip]:
        """Those that are over and the one under way."""
        return [*self.closed_dips, *self._dips.open_events()]

    def owes(self, trace: Trace) -> int:
        """How many values there are to look at: rows times layers."""
        return (len(trace) - self.rows) * len(trace.layers) if self._spikes is not None else 0

    def take_curve(self, trace: Trace, stop: int) -> None:
        """Look for dips; only rows with an evaluation cost anything. Rows that cannot be read are not yet seen."""
        start = self.curve_rows
        if _CURVE in trace.scalars and start < stop:
            accuracy = trace.read(_CURVE, start=start, stop=stop)
            seen = np.flatnonzero(~np.isnan(accuracy))
            if len(seen):
                known = _QUERIES in trace.scalars
                queries = trace.read(_QUERIES, start=start, stop=stop) if known else np.full(stop - start, np.nan)
                steps = trace.read("step", start=start, stop=stop)
                try:
                    for row in seen.tolist():
                        self.closed_dips += self._dips.update(int(steps[row]), float(accuracy[row]), queries[row])
                except ValueError as error:
                    self.message = f"No more dips are looked for: {error}."
                    self.curve_rows = 2**62
        self.curve_rows = max(self.curve_rows, stop)

    def take_norms(self, trace: Trace, stop: int) -> None:
        """Look for spikes. Rows that cannot be read are not yet seen."""
        start = self.rows
        if self._spikes is not None and start < stop:
            steps = trace.read("step", start=start, stop=stop)
            norms = trace.read("grad_norm", start=start, stop=stop)
            try:
                self.closed_spikes += self._spikes.update(steps, norms)
            except ValueError as error:
                self.message = f"No more spikes are looked for: {error}."
                self._spikes = None
        self.rows = max(start, stop)

    def state_dict(self) -> dict[str, Any]:
        """Everything that is known, as plain JSON values."""
        return {
            "rows": self.rows,
            "curve_rows": self.curve_rows,
            "message": self.message,
            "closed_spikes": [asdict(spike) for spike in self.closed_spikes],
            "closed_dips": [asdict(dip) for dip in self.closed_dips],
            "spikes": None if self._spikes is None else self._spikes.state_dict(),
            "dips": self._dips.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another finder of the same run stopped."""
        self.rows, self.curve_rows, self.message = state["rows"], state["curve_rows"], state["message"]
        self.closed_spikes = [Spike(**spike) for spike in state["closed_spikes"]]
        self.closed_dips = [Dip(**dip) for dip in state["closed_dips"]]
        if state["spikes"] is None:
            self._spikes = None
        elif self._spikes is not None:
            self._spikes.load_state_dict(state["spikes"])
        self._dips.load_state_dict(state["dips"])


def by_onset(spikes: Sequence[Spike]) -> list[Spike]:
    """In the order of time; those that begin together as they were."""
    return sorted(spikes, key=lambda spike: spike.onset)


def _warmup_of(trace: Trace) -> int:
    """The step up to which the run calls its rises a warm-up; 0 if it says nothing."""
    given = trace.meta.get("warmup_steps")
    return int(given) if isinstance(given, (int, float)) and given == given else 0
