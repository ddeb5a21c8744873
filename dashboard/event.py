"""One event, a spike or a dip, with what belongs to it: the other layers, kNN (0..1) and loss (nats) around it."""

from __future__ import annotations

__all__ = ["CURVE", "Event", "event_key", "event_of"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..probes.dips import Dip
from ..probes.precursors import preceding
from ..probes.spikes import Spike
from ..traces.reader import Trace
from .flight import Detail, detail_of
from .neighbours import AFTER, BEFORE, Neighbours, neighbours

CURVE = "knn_accuracy"  # a dip is called after its curve: knn_accuracy@434
LONGEST = 240  # steps shown behind the onset, at most


@dataclass(frozen=True)
class Event:
    """`step` is the onset that all offsets count from; `spikes` are those of the episode, by onset, then depth.

    `curves` holds `(offsets i64[m], values f64[m])` of every scalar that was asked for, where it was measured; `flight`
    the single parameters of the layers that spiked, where a flight recorder kept them.
    """

    key: str
    kind: Literal["spike", "dip", "place"]
    step: int
    focus: Neighbours
    spikes: tuple[Spike, ...] = ()
    dip: Dip | None = None
    curves: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=dict)
    flight: Detail | None = None

    @property
    def last_offset(self) -> int:
        """The last step shown, counted from the onset."""
        return int(self.focus.offsets[-1]) if len(self.focus.offsets) else 0


def event_key(dip: Dip) -> str:
    """The name of a dip in an address: its curve and the first bad evaluation, `knn_accuracy@434`."""
    return f"{CURVE}@{dip.onset_by}"


def event_of(
    trace: Trace,
    name: str,
    step: int,
    spikes: Sequence[Spike],
    dips: Sequence[Dip],
    *,
    gap: int,
    scalars: Sequence[str] = (CURVE, "knn_queries", "loss"),
) -> Event:
    """The event that `name` (a layer, or the curve of a dip) has at `step`, or else the place itself.

    A dip is shown around the strongest spike before it, if there is one; a spike with the dip that follows it.
    """
    pairs = preceding(spikes, dips)
    if name == CURVE and CURVE not in trace.layers:
        dip = next((dip for dip in dips if dip.onset_by == step), None)
        before = [pair.spike for pair in pairs if pair.dip == dip]
        chosen = max(before, key=lambda spike: spike.ratio, default=None)
        kind = "place" if dip is None else "dip"
    else:
        chosen = next((spike for spike in spikes if (spike.layer, spike.onset) == (name, step)), None)
        dip = next((pair.dip for pair in pairs if pair.spike == chosen), None)
        kind = "place" if chosen is None else "spike"
    at = step if chosen is None else chosen.onset
    episode = _episode(spikes, at, gap)
    if dip is None and episode:
        dip = next((pair.dip for pair in pairs if pair.spike in episode), None)
    layer = name if chosen is None else chosen.layer
    after = AFTER if dip is None else min(LONGEST, max(AFTER, (dip.end or dip.nadir) + 24 - at))
    focus = neighbours(trace, layer, at, spikes=spikes, after=after)
    curves = {scalar: _around(trace, scalar, at, after) for scalar in scalars if scalar in trace.scalars}
    first = min((spike.onset for spike in episode), default=None)
    flight = detail_of(trace, at, (at - BEFORE, at + after), {layer, *(spike.layer for spike in episode)}, first)
    return Event(f"{name}@{step}", kind, at, focus, episode, dip, curves, flight)


def _episode(spikes: Sequence[Spike], step: int, gap: int) -> tuple[Spike, ...]:
    """The spikes whose onsets follow each other within `gap` steps, from one at `step` on both ways."""
    ordered = sorted(spikes, key=lambda spike: spike.onset)
    found = [spike for spike in ordered if spike.onset == step]
    if not found:
        return ()
    low = high = step
    for spike in reversed([spike for spike in ordered if spike.onset < step]):
        if low - spike.onset > gap:
            break
        found, low = [spike, *found], spike.onset
    for spike in [spike for spike in ordered if spike.onset > step]:
        if spike.onset - high > gap:
            break
        found, high = [*found, spike], spike.onset
    return tuple(found)


def _around(trace: Trace, scalar: str, step: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows = trace.rows(step - BEFORE, step + after)
    values = np.asarray(trace.read(scalar, start=rows.start, stop=rows.stop), dtype=np.float64)
    seen = np.isfinite(values)
    return trace.steps[rows][seen] - step, values[seen]
