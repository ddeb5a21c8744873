"""Which layer is first over all spike events of a run: onsets (steps from the event's median layer) against depth."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...probes.onset_report import OnsetOrder
from ..evidence_axis import blank, evidence_layout
from ..names import brief, plain
from ..signals import Signals
from ..theme import faint
from ..view import Drawn, Table, numbers

TITLE = "Which layer is first?"
HELP = (
    "One thin line a spike event: the onset of each layer, counted from the event's median layer. Thick: the median "
    "over events. If it rises to the right, deeper layers follow later."
)
ORDER = 250
PLACE = "signals"
HEIGHT = 340

EVENTS, ROWS, TICKS = 60, 12, 14
NAME = 28  # characters of a layer's name in the table
CAUTION = (
    "Half of its own peak is where a layer's onset is taken, so a higher rise does not look earlier. Where layers fall "
    "back at very different speeds the test is too sure: wrong in 9 to 17 % of simulated runs instead of 5 %."
)


def draw(signals: Signals) -> Drawn:
    """Onsets over depth event by event, their median, and how often each layer is first."""
    order = signals.order
    if order is None or not order.onsets:
        why = signals.no_order or f"Not testable: {order.reason if order else 'no events'}."
        return Drawn(blank(why.partition(":")[0] + ".").figure, words=why)
    onsets = np.array([[np.nan if at is None else at for at in row] for row in order.onsets], dtype=np.float64)
    later = onsets - np.nanmedian(onsets, axis=1, keepdims=True)
    middle = np.array([np.median(column[np.isfinite(column)]) for column in later.T])
    depth = list(range(len(order.layers)))
    y = {"title": {"text": "onset, steps", "standoff": 8}, "zeroline": True, "zerolinecolor": "$line"}
    layout = evidence_layout("layer, first to last", y)
    names = brief(order.layers)
    shown = depth[:: -(-len(depth) // TICKS)]
    ticks = {"tickvals": shown, "ticktext": [plain(names[i]) for i in shown], "tickangle": -45}
    layout["xaxis"] |= {**ticks, "showgrid": False, "title": {"text": "layer, first to last", "standoff": 6}}
    layout["margin"] |= {"b": 46 + 5 * max(map(len, names), default=0)}
    data = [_events(later[:EVENTS], depth), _median(middle, depth, order.layers)]
    return Drawn({"data": data, "layout": layout}, (_table(order, middle),), _words(order))


def _events(later: NDArray[np.float64], depth: list[int]) -> dict[str, Any]:
    """All events as one trace with gaps between them."""
    gap = np.full((len(later), 1), np.nan)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "an event",
        "x": [*depth, None] * len(later),
        "y": numbers(np.hstack([later, gap]).ravel()),
        "line": {"width": 1, "color": faint("$muted", 0.45)},
        "hovertemplate": "%{y:+.0f} steps<extra></extra>",
        "connectgaps": False,
    }


def _median(middle: NDArray[np.float64], depth: list[int], layers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "median over events",
        "x": depth,
        "y": numbers(middle),
        "line": {"width": 2.2, "color": "$first"},
        "marker": {"size": 6, "color": "$first"},
        "hovertext": [f"{plain(layer)}: {at:+.1f} steps" for layer, at in zip(layers, middle, strict=True)],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _table(order: OnsetOrder, middle: NDArray[np.float64]) -> Table:
    """The layers that are first most often."""
    count = np.array([[at is not None for at in row] for row in order.onsets]).sum(axis=0)
    by = sorted(range(len(order.layers)), key=lambda i: (-order.first[order.layers[i]], i))[:ROWS]
    names = brief(order.layers, NAME)
    rows = tuple(
        (names[i], f"{order.first[order.layers[i]]:.0%}", f"{middle[i]:+.1f}".replace("-", "−"), f"{count[i]}")
        for i in by
    )
    rest = len(order.layers) - ROWS
    note = f"The {ROWS} that are first most often, of {len(order.layers)} layers." if rest > 0 else ""
    head = ("Layer", "First in", "Onset, steps", f"Rose in, of {len(order.onsets)}")
    return Table("Layers", head, rows, note=note)


def _words(order: OnsetOrder) -> str:
    told = [_sentence(text) for text in (order.verdict, *order.facts())]
    return " ".join([*told, *([CAUTION] if order.testable else [])])


def _sentence(text: str) -> str:
    """With a full stop, real minus signs, and a capital unless a formula comes first."""
    signed = re.sub(r"(?<![\w-])-(?=\d)", "−", text).replace(" [-inf, +inf]", "")
    signed = re.sub(r"\b1 events", "1 event", signed)
    return f"{signed}." if signed.startswith("p = ") else f"{signed[:1].upper()}{signed[1:]}."
