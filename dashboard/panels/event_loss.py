"""The training loss (nats) around one event."""

from __future__ import annotations

import numpy as np

from ..event_axis import event_layout, no_event
from ..view import Drawn, View, numbers

TITLE = "Loss"
HELP = "Step by step."
ORDER = 130
PLACE = "event"
HEIGHT = 170
SERIES = ("loss",)


def draw(view: View) -> Drawn:
    """The loss around the event."""
    event = view.event
    if event is None:
        return no_event(view)
    offsets, loss = event.curves.get("loss", (np.empty(0), np.empty(0)))
    curve = {
        "type": "scatter",
        "mode": "lines",
        "name": "loss",
        "x": offsets.tolist(),
        "y": numbers(loss),
        "line": {"color": "$loss", "width": 1.6},
        "hovertemplate": "%{y:.3f}<extra></extra>",
    }
    layout = event_layout(event, {"title": {"text": "loss, nats", "standoff": 8}}, view.run)
    words = (
        f"The loss goes from {loss[0]:.2f} to at most {loss.max():.2f}." if len(loss) else "No loss was recorded here."
    )
    return Drawn({"data": [curve], "layout": layout}, words=words, absent="loss" not in event.curves)
