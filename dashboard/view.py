"""What the panels draw: a trace, its spikes and dips, and the columns of one zoom, as plain arrays and records.

Pure functions of an open trace: nothing here knows a web framework. Steps are the trace's own; accuracies 0..1.
"""

from __future__ import annotations

__all__ = [
    "SCALES",
    "Drawn",
    "Episode",
    "Table",
    "View",
    "episodes",
    "key_of",
    "look",
    "numbers",
    "parse_key",
    "remarks_of",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probes.dips import Dip
from ..probes.layers import first_layer, last_block, middle_block
from ..probes.precursors import Precedence, preceding
from ..probes.spikes import Spike
from ..traces.reader import Trace
from .columns import SCALES, Columns, columns_of, grid, inside
from .event import CURVE, Event, event_key, event_of
from .neighbours import Neighbours

EPISODE_GAP = 16  # steps between the onsets of two layers' spikes that still belong together
SPIKES_SHOWN = 400  # markers a chart: past this, the strongest
MARKED = ("intervention", "staleness")  # kinds of remarks


@dataclass(frozen=True)
class Episode:
    """The spikes of several layers that began within a few steps of each other: `spikes` by onset, then depth."""

    spikes: tuple[Spike, ...]

    @property
    def first(self) -> Spike:
        """The earliest spike, of the shallowest layer if several began at once."""
        return self.spikes[0]

    @property
    def strongest(self) -> Spike:
        """The spike of the highest ratio."""
        return max(self.spikes, key=_strength)

    @property
    def layers(self) -> int:
        """How many layers spiked."""
        return len({spike.layer for spike in self.spikes})


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; `keys` gives the event that a row opens, or an empty text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Drawn:
    """What one panel gives: a plotly figure as a dict, tables, and the same in words for those who can't see it.

    A trace of the figure whose `meta` is "columns" grows with the run: its x (and y, z) hold one value a column. All
    other traces, and the layout, are drawn anew when events change.
    """

    figure: dict[str, Any] | None = None
    tables: tuple[Table, ...] = ()
    words: str = ""
    absent: bool = False  # the run records nothing that it could show: its card is left out


@dataclass(frozen=True)
class View:
    """One look at a run. `columns` holds the whole run, or for a live tail only the columns from some row on."""

    run: str
    layers: tuple[str, ...]
    state: str
    rows: int
    first_step: int
    last_step: int
    columns: Columns
    spikes: Sequence[Spike] = ()
    dips: Sequence[Dip] = ()
    pairs: Sequence[Precedence] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    event: Event | None = None
    searched: float = 1.0  # share of the rows that the spike finder has seen
    tail: bool = False  # the columns are only a part of the run's
    chosen: tuple[str, ...] = ()  # layers to draw as lines; none: the usual three
    scale: str = SCALES[0]  # of the map of all layers
    remarks: Sequence[Mapping[str, Any]] = ()  # `{step, kind, text}` of the kinds that charts mark

    @cached_property
    def episodes(self) -> list[Episode]:
        """The spikes, those of several layers that belong together as one."""
        return episodes(self.spikes, self.layers)

    @property
    def focus(self) -> Neighbours | None:
        """The layers around the event that was asked for."""
        return None if self.event is None else self.event.focus

    @property
    def shown_layers(self) -> tuple[str, ...]:
        """The chosen layers by depth; or the first (the patch projection), a middle block and the last one."""
        if self.chosen or not self.layers:
            return tuple(layer for layer in self.layers if layer in self.chosen)
        return _usual(self.layers)

    def spikes_of(self, layer: str) -> list[Spike]:
        """The spikes of one layer by their peaks; of very many, the strongest."""
        found = [spike for spike in self.spikes if spike.layer == layer]
        return sorted(sorted(found, key=_strength)[-SPIKES_SHOWN:], key=lambda spike: spike.peak)

    def measured(self, name: str) -> bool:
        """Whether the run records the scalar `name`."""
        return name in self.columns.scalars


@lru_cache(maxsize=64)
def _usual(layers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((first_layer(layers), middle_block(layers), last_block(layers))))


def look(
    trace: Trace,
    spikes: Sequence[Spike] = (),
    dips: Sequence[Dip] = (),
    *,
    run: str = "",
    columns: int = 720,
    window: tuple[float, float] | None = None,
    since: int = 0,
    event: str = "",
    searched: float = 1.0,
    layers: Sequence[str] = (),
    scale: str = SCALES[0],
) -> View:
    """The view of `trace` in at most `columns` columns (give the pixels there are), or its tail from row `since`.

    `window` is a zoomed step range: then only the columns inside it are there, finer. `event` is the key of the spike
    or dip that is wanted close up; `layers` are those to draw as lines, `scale` that of the map of all layers.
    """
    from .panels import scalars  # they import this file: which curves are read is theirs to say

    rows = len(trace)
    steps = trace.steps
    shown = _rows(steps, window)
    cut = grid(rows, columns, since=since) if shown is None else inside(rows, columns, shown)
    return View(
        run=run or trace.name,
        layers=trace.layers,
        state=trace.state,
        rows=rows,
        first_step=int(steps[0]) if rows else 0,
        last_step=int(steps[-1]) if rows else 0,
        columns=columns_of(trace, cut, scale=scale, scalars=scalars()),
        spikes=spikes,
        dips=dips,
        pairs=preceding(spikes, dips),
        meta=trace.meta,
        event=event_of(trace, *parse_key(event, trace.layers), spikes, dips, gap=EPISODE_GAP)
        if event and rows
        else None,
        searched=searched,
        tail=since > 0 or shown is not None,
        chosen=tuple(layer for layer in layers if layer in trace.layers),
        scale=scale,
        remarks=remarks_of(trace),
    )


def remarks_of(trace: Trace) -> list[Mapping[str, Any]]:
    """What was done to the run, or measured because of a dip: the remarks that charts mark, oldest first."""
    return [remark for remark in trace.events if remark["kind"] in MARKED]


def _rows(steps: NDArray[np.int64], window: tuple[float, float] | None) -> slice | None:
    if window is None or not len(steps):
        return None
    low, high = sorted(window)
    return slice(int(np.searchsorted(steps, low)), int(np.searchsorted(steps, high, side="right")))


def episodes(spikes: Sequence[Spike], layers: Sequence[str], gap: int = EPISODE_GAP) -> list[Episode]:
    """Spikes whose onsets follow each other within `gap` steps, as one episode each, in the order of time."""
    depth = {name: i for i, name in enumerate(layers)}
    groups: list[list[Spike]] = []
    latest = 0
    for spike in sorted(spikes, key=lambda s: (s.onset, depth.get(s.layer, len(depth)))):
        if groups and spike.onset - latest <= gap:
            groups[-1].append(spike)
        else:
            groups.append([spike])
        latest = spike.onset
    return [Episode(tuple(group)) for group in groups]


def key_of(found: Spike | Dip) -> str:
    """The name of an event in an address: layer and onset of a spike, `patch_embed@432`; see `event_key` for a dip."""
    return event_key(found) if isinstance(found, Dip) else f"{found.layer}@{found.onset}"


def parse_key(key: str, layers: Sequence[str]) -> tuple[str, int]:
    """The layer (or the curve of a dip) and the step that `key` names.

    >>> parse_key("patch_embed@432", ["patch_embed"])
    ('patch_embed', 432)
    """
    layer, _, step = key.rpartition("@")
    if layer not in (*layers, CURVE) or not step.isascii() or not step.isdigit() or len(step) > 15:
        raise ValueError(f"no spike is called {key[:80]!r}: give a layer of this run and a step, as in {layers[0]}@432")
    return layer, int(step)


def numbers(values: NDArray[np.floating], digits: int = 4) -> list[float | None]:
    """Values for JSON: rounded to `digits` significant digits, null for NaN, a very large number for infinity.

    >>> numbers(np.array([1.23456, np.nan]))
    [1.235, None]
    """
    clipped = np.clip(np.asarray(values, dtype=np.float64), -1e30, 1e30)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = digits - 1 - np.floor(np.log10(np.abs(clipped)))
    power = np.where(np.isfinite(power), np.clip(power, -22, 22), 0)  # up to there a power of ten is exact
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    rounded = (np.rint(clipped * up / down) / up * down).tolist()
    return [None if value != value else value for value in rounded] if np.isnan(clipped).any() else rounded


def _strength(spike: Spike) -> float:
    return spike.ratio if np.isfinite(spike.ratio) else np.inf
