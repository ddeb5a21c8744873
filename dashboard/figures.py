"""The parts that several panels' plotly figures share: axes, bands, shaded dips, and the empty figure."""

from __future__ import annotations

__all__ = [
    "COLUMNS",
    "LEGEND",
    "MARGIN",
    "RUG_AXIS",
    "band",
    "dip_shapes",
    "empty",
    "extent",
    "finite",
    "layout",
    "line",
    "markers",
    "rug",
]

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .names import plain
from .theme import faint
from .view import View, numbers

# Left and right are the same everywhere and never give way, so that the step axes stand in line.
MARGIN = {"l": 88, "r": 16, "t": 10, "b": 46, "autoexpand": False}
COLUMNS = "columns"  # the `meta` of a trace that grows with the run
RUG_AXIS = {"yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}}
RUG_MARKS = 400  # at most: the newest
LEGEND = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemwidth": 30}  # above the chart


def layout(view: View, y: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """The layout of a panel with steps along x; the browser puts the colours and the x range in."""
    return {
        "xaxis": {"title": {"text": "step", "standoff": 14}, "hoverformat": ",d", "tickformat": ",d"},
        "yaxis": {"automargin": False, "uirevision": view.run, **y},
        "margin": dict(MARGIN),
        "showlegend": False,
        "hovermode": "x",
        "dragmode": "zoom",
        "uirevision": view.run,
        **extra,
    }


def extent(view: View) -> list[float]:
    """The step range of the whole run, half a step wider at both ends."""
    return [view.first_step - 0.5, max(view.last_step, view.first_step + 1) + 0.5]


def empty(view: View, text: str) -> dict[str, Any]:
    """A figure that says why there is nothing to see."""
    note = {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    blank = {"visible": False, "fixedrange": True}
    note["font"] = {"size": 14, "color": "$muted"}
    centred = {**MARGIN, "l": MARGIN["r"]}
    return {"data": [], "layout": layout(view, blank, xaxis=blank, annotations=[note], margin=centred)}


def line(x: NDArray[Any], y: NDArray[Any], name: str, colour: str, hover: str, **extra: Any) -> dict[str, Any]:
    """A line that grows with the run."""
    return {
        "type": "scatter",
        "mode": "lines",
        "meta": COLUMNS,
        "x": numbers(x, 9),
        "y": numbers(y),
        "name": name,
        "line": {"color": colour, "width": 1.8},
        "hovertemplate": hover,
        "connectgaps": False,
        **extra,
    }


def band(
    x: NDArray[Any], low: NDArray[Any], high: NDArray[Any], colour: str, alpha: float = 0.22
) -> list[dict[str, Any]]:
    """The area between `low` and `high`: two invisible lines with the space between them filled."""
    side: dict[str, Any] = {"hoverinfo": "skip", "hovertemplate": None, "line": {"width": 0, "color": colour}}
    known = np.flatnonzero(finite(low) & finite(high))
    if len(known) and len(known) < len(low):  # a filled area goes astray at a gap: there it has no height instead
        nearest = known[np.clip(np.searchsorted(known, np.arange(len(low)), side="right") - 1, 0, None)]
        missing = ~(finite(low) & finite(high))
        low, high = (np.where(missing, high[nearest], edge) for edge in (low, high))
    lower = line(x, low, "", colour, "", **side)
    upper = line(x, high, "", colour, "", fill="tonexty", fillcolor=faint(colour, alpha), **side)
    return [lower, upper]


def dip_shapes(view: View) -> list[dict[str, Any]]:
    """Every dip as a shaded span, from the last good evaluation to the recovery (or to now)."""
    return [
        {
            "type": "rect",
            "layer": "below",
            "xref": "x",
            "yref": "paper",
            "x0": dip.onset_after,
            "x1": dip.end if dip.end is not None else view.last_step,
            "y0": 0,
            "y1": 1,
            "line": {"width": 1, "color": faint("$dip", 0.28)},  # a dip of a step or two is seen too
            "fillcolor": faint("$dip", 0.13),
        }
        for dip in view.dips
    ]


def markers(x: Sequence[float], y: Sequence[float | None], colour: str, symbol: str, **extra: Any) -> dict[str, Any]:
    """Marks at events; unlike a line's points they are sent anew when the events change."""
    look = {"symbol": symbol, "size": 10, "color": colour, "line": {"width": 1.5, "color": "$surface"}}
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "marker": look, **extra}


def rug(view: View) -> dict[str, Any]:
    """Crosses along the bottom, whatever the values: where an intervention acted; the layout needs `RUG_AXIS`."""
    acted = [remark for remark in view.remarks if remark["kind"] == "intervention"][-RUG_MARKS:]
    return markers(
        [remark["step"] for remark in acted],
        [0.035] * len(acted),
        "$ink",
        "x",
        name="intervention",
        yaxis="y2",
        showlegend=bool(acted),
        hovertext=[f"step {remark['step']:,}: {plain(remark['text'])}" for remark in acted],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where there is a number, also in an array of integers."""
    return np.isfinite(np.asarray(values, dtype=np.float64))
