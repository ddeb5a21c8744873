"""What the panels of the event view share: an axis of steps since the onset, and the dip's shade."""

from __future__ import annotations

__all__ = ["event_layout", "no_event"]

from typing import Any

from .event import Event
from .figures import MARGIN, empty
from .neighbours import BEFORE
from .theme import faint
from .view import Drawn, View


def no_event(view: View) -> Drawn:
    """Why there is nothing to see."""
    text = "Pick a spike or a dip." if view.spikes or view.dips else "This run has no spikes and no dips so far."
    return Drawn(empty(view, text), words=text, absent=True)


def event_layout(event: Event, y: dict[str, Any], run: str, **extra: Any) -> dict[str, Any]:
    """The layout of a panel with steps since the onset along x, the dip shaded."""
    x = {
        "title": {"text": f"steps since the onset at step {event.step:,}", "standoff": 14},
        "zeroline": True,
        "zerolinecolor": "$muted",
        "zerolinewidth": 1,
        "range": [-BEFORE - 0.5, event.last_offset + 0.5],
    }
    shapes = []
    if event.dip is not None:
        end = event.dip.end if event.dip.end is not None else event.step + event.last_offset
        span = {"x0": event.dip.onset_after - event.step, "x1": end - event.step, "y0": 0, "y1": 1}
        shape = {"type": "rect", "layer": "below", "xref": "x", "yref": "paper", "line": {"width": 0}}
        shapes.append({**shape, **span, "fillcolor": faint("$dip", 0.13)})
    return {
        "xaxis": x,
        "yaxis": {"automargin": False, **y},
        "margin": {**MARGIN, "l": 104},
        "showlegend": False,
        "hovermode": "closest",
        "shapes": shapes,
        "uirevision": f"{run}/{event.key}",
        **extra,
    }
