"""The kNN accuracy (in per cent) around one event, each evaluation with its binomial error, the dip shaded."""

from __future__ import annotations

import numpy as np

from ..event_axis import event_layout, no_event
from ..figures import markers
from ..view import Drawn, View, numbers
from ..words import about_dip
from .knn import NORMAL_95

TITLE = "kNN accuracy"
HELP = "Each evaluation with its 95 % binomial error. Dashed: the level before the dip. Shaded: until it has recovered."
ORDER = 120
PLACE = "event"
HEIGHT = 230
SERIES = ("knn_accuracy", "knn_queries")


def draw(view: View) -> Drawn:
    """The evaluations around the event."""
    event = view.event
    if event is None:
        return no_event(view)
    offsets, share = event.curves.get("knn_accuracy", (np.empty(0), np.empty(0)))
    if not len(offsets):
        text = "No kNN evaluation around this event."
        layout = event_layout(event, {"visible": False}, view.run, annotations=[_note(text)])
        absent = "knn_accuracy" not in event.curves
        return Drawn({"data": [], "layout": layout}, words=text, absent=absent)
    at, count = event.curves.get("knn_queries", (offsets, np.full(len(offsets), np.nan)))
    queries = count if len(at) == len(offsets) else np.full(len(offsets), np.nan)
    error = 100 * NORMAL_95 * np.nan_to_num(np.sqrt(np.clip(share * (1 - share), 0, 1) / np.maximum(queries, 1)))
    curve = markers(offsets.tolist(), numbers(100 * share), "$knn", "circle", hovertemplate="%{y:.1f} %<extra></extra>")
    curve |= {"mode": "lines+markers", "line": {"color": "$knn", "width": 1.8}, "name": "kNN accuracy"}
    curve["marker"] |= {"size": 5, "line": {"width": 0}}
    curve["error_y"] = {"array": numbers(error), "thickness": 1, "width": 0, "color": "$knn"}
    layout = event_layout(event, {"title": {"text": "accuracy, %", "standoff": 8}}, view.run)
    if event.dip is not None:
        base = {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": 100 * event.dip.base,
            "y1": 100 * event.dip.base,
        }
        layout["shapes"].append({**base, "line": {"color": "$dip", "width": 1.2, "dash": "dash"}})
    return Drawn(
        {"data": [curve], "layout": layout}, words=f"{about_dip(event.dip)}." if event.dip else "No dip follows."
    )


def _note(text: str) -> dict[str, object]:
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return {"text": text, "font": {"size": 14, "color": "$muted"}, **place}
