"""When each layer rose in one event: onset step, steps after the first layer that rose, and how high."""

from __future__ import annotations

from collections.abc import Mapping

from ...probes.spikes import Spike
from ..names import brief
from ..neighbours import Neighbours
from ..view import Drawn, Table, View
from ..words import about_slope, times, unclear_spikes

TITLE = "Onsets, layer by layer"
HELP = (
    "The onset of a layer is the step at which it reaches half of its own log peak. In the order of the forward pass."
    " A rise is clear at 4.5 times the noise of the 64 steps before; where it is not, a spike has the detector's onset."
)
ORDER = 140
PLACE = "event"
HEIGHT = 0

ROWS, NAME = 40, 28  # of the table; characters of a layer's name


def draw(view: View) -> Drawn:
    """A row a layer; those whose rise is not clear of their own noise say so, spikes among them with their numbers."""
    focus = view.focus
    if focus is None:
        return Drawn(words="No event is chosen.", absent=True)
    spikes = view.event.spikes if view.event else ()
    unclear = {spike.layer: spike for spike in unclear_spikes(focus, spikes)}
    flagged = min((spike.onset - focus.step for spike in unclear.values()), default=0)
    first = float(focus.onset[focus.order[0]]) if focus.order else float(flagged)
    rows, shown = [], _shown(focus, unclear)
    names = brief(focus.layers, NAME)
    for i, layer in ((i, focus.layers[i]) for i in shown):
        if focus.rose[i]:
            at = f"{focus.step + int(focus.onset[i]):,}"
            rows.append((names[i], at, f"{focus.onset[i] - first:+.0f}", times(float(focus.height[i]))))
        elif layer in unclear:
            spike = unclear[layer]
            after = f"{spike.onset - focus.step - first:+.0f}"
            rows.append((names[i], f"{spike.onset:,}", after, f"{times(spike.ratio)}, not clear"))
        else:
            rows.append((names[i], "–", "–", "no clear rise"))
    rest = len(focus.layers) - len(rows)
    note = f"The {len(rows)} that rose first, of {len(focus.layers)} layers." if rest else ""
    table = Table("Onsets", ("Layer", "Onset", "After the first", "Peak"), tuple(rows), note=note)
    return Drawn(tables=(table,), words=about_slope(focus))


def _shown(focus: Neighbours, unclear: Mapping[str, Spike]) -> list[int]:
    """Every layer of few; of many those that rose, the earliest, in the order of the forward pass."""
    if len(focus.layers) <= ROWS:
        return list(range(len(focus.layers)))
    flagged = [focus.layers.index(name) for name in unclear]
    return sorted([*focus.order, *flagged][:ROWS])
