"""The parameters of an event's layers one by one, from the flight recorder: gradient norm relative to its normal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..event import Event
from ..event_axis import event_layout
from ..figures import empty
from ..flight import Detail
from ..names import plain
from ..theme import SERIES, faint
from ..view import Drawn, Table, View, numbers
from ..words import times
from .patch_projection import ratio_ticks

TITLE = "Every parameter, from the flight recorder"
HELP = (
    "Gradient norm of each weight and bias of the event's layers, relative to its median in the 128 steps before the "
    "onset. The loudest have colours and names."
)
ORDER = 115
PLACE = "event"
HEIGHT = 340

NAMED, THIN = 4, 40  # lines with a name, and more without; one at most stands for those that are left


def draw(view: View) -> Drawn:
    """A line a parameter, the loudest on top; no card where the recorder was off, or had nothing to say."""
    event = view.event
    detail = None if event is None else event.flight
    if event is None or detail is None or not np.isfinite(detail.ratio).any():
        text = "The flight recorder kept nothing around this event."
        return Drawn(empty(view, text), words=text, absent=True)
    order = np.argsort(-detail.peaks, kind="stable").tolist()
    short = _short(detail.parameters)
    data = [_thin(detail, order[NAMED : NAMED + THIN])]
    data += [_line(detail, i, short[i], SERIES[rank]) for rank, i in reversed(list(enumerate(order[:NAMED])))]
    axis = {"type": "log", "title": {"text": "gradient norm, × normal", "standoff": 8}, **ratio_ticks()}
    axis["range"] = _range(detail.ratio[order[: NAMED + THIN]])
    legend = {"x": 1, "xanchor": "right", "y": 1, "yanchor": "top", "traceorder": "reversed", "itemwidth": 30}
    legend |= {"bgcolor": faint("$surface", 0.75), "font": {"size": 11, "color": "$ink"}}
    layout = event_layout(event, axis, view.run, legend=legend) | {"showlegend": True}
    return Drawn(
        {"data": data, "layout": layout}, (_table(event, detail, order[:NAMED], short),), _words(detail, order, short)
    )


def _line(detail: Detail, i: int, name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": detail.offsets.tolist(),
        "y": numbers(detail.ratio[i], 3),
        "line": {"color": colour, "width": 1.4},
        "hovertemplate": f"%{{x:+d}} steps: %{{y:.2f}}×<extra>{plain(name)}</extra>",
    }


def _thin(detail: Detail, which: list[int]) -> dict[str, Any]:
    """The others, as one line with gaps."""
    gap = np.full((len(which), 1), np.nan)
    x = np.tile(np.append(detail.offsets, np.nan), len(which))
    y = np.concatenate([detail.ratio[which], gap], axis=1).ravel()
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(x, 6),
        "y": numbers(y, 3),
        "line": {"color": "$line", "width": 0.8},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _short(names: tuple[str, ...]) -> list[str]:
    """The names without the words that all of them begin with.

    >>> _short(("encoder.proj.weight", "encoder.proj.bias", "encoder.norm.weight"))
    ['proj.weight', 'proj.bias', 'norm.weight']
    """
    parts = [name.split(".") for name in names]
    most = min(len(part) for part in parts) - 1
    same = next((k for k in range(most) if len({part[k] for part in parts}) > 1), most)
    return [".".join(part[same:]) for part in parts]


def _range(ratio: NDArray[np.float64]) -> list[float]:
    """From the quietest to the loudest, in decades, with room above for the names."""
    seen = ratio[np.isfinite(ratio) & (ratio > 0)]
    low, high = (0.5, 2.0) if not len(seen) else (float(np.percentile(seen, 1)), float(seen.max()))
    bottom, top = float(np.log10(low)), float(np.log10(max(high, 2.0)))
    return [bottom - 0.05, top + 0.45 * max(top - bottom, 0.5)]


def _table(event: Event, detail: Detail, loudest: list[int], short: list[str]) -> Table:
    rows = []
    for i in loudest:
        if not np.isfinite(peak := detail.peaks[i]) and peak < 0:
            continue
        at = int(np.nanargmax(np.where(detail.offsets >= 0, detail.ratio[i], -np.inf)))
        rows.append((short[i], f"{event.step + int(detail.offsets[at]):,}", times(float(peak))))
    return Table("The loudest parameters", ("Parameter", "Step", "Peak"), tuple(rows))


def _words(detail: Detail, order: list[int], short: list[str]) -> str:
    peaks: NDArray[np.float64] = detail.peaks
    told = ", ".join(f"{short[i]} {times(float(peaks[i]))}" for i in order[:3] if peaks[i] > 0)
    of = detail.layers[0] if len(detail.layers) == 1 else f"{len(detail.layers)} layers"
    words = f"Loudest of the {len(order)} parameters of {of}: {told}." if told else ""
    left = len(order) - NAMED - THIN
    if left > 0:
        words += f" {left} that stay below {times(max(0.0, float(peaks[order[NAMED + THIN - 1]])))} are not drawn."
    if detail.cut:
        words += " The spike went on for longer than the recorder keeps."
    if detail.cause == "error":
        words += " The run ended here by an error."
    return words.strip()
