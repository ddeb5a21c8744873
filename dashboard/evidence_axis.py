"""What the panels of the precursor view share: layout, the band of chance, the empty figure."""

from __future__ import annotations

__all__ = ["blank", "chance_band", "evidence_layout"]

from typing import Any

from .evidence import Response
from .theme import faint
from .view import Drawn, numbers

MARGIN = {"l": 64, "r": 14, "t": 10, "b": 46}


def evidence_layout(x: str, y: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """The layout of a panel with its own axes."""
    return {
        "xaxis": {"title": {"text": x, "standoff": 12}},
        "yaxis": y,
        "margin": dict(MARGIN),
        "showlegend": False,
        "hovermode": "closest",
        "bargap": 0,
        **extra,
    }


def blank(text: str, *, absent: bool = False) -> Drawn:
    """A figure that says why there is nothing to see; or that is left out, where the view's own words say so."""
    hidden = {"visible": False, "fixedrange": True}
    note = {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    note["font"] = {"size": 14, "color": "$muted"}
    layout = {"xaxis": hidden, "yaxis": hidden, "annotations": [note], "margin": dict(MARGIN)}
    return Drawn({"data": [], "layout": layout}, absent=absent)


def chance_band(found: Response, name: str, scale: float = 1.0) -> list[dict[str, Any]]:
    """The surrogates: the middle 95 % as an area, their mean as a line."""
    x = found.at.tolist()
    side = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip", "line": {"width": 0}, "showlegend": False}
    low = {**side, "y": numbers(scale * found.low)}
    high = {**side, "y": numbers(scale * found.high), "fill": "tonexty", "fillcolor": faint("$muted", 0.25)}
    mean = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": numbers(scale * found.expected),
        "line": {"color": "$muted", "width": 1.4, "dash": "dash"},
        "hovertemplate": "%{y:.2f} " + name + "<extra></extra>",
    }
    return [low, high, mean]
