"""What the panels of the compare view share: one colour a group, its mean as a line, its runs' range as a band."""

from __future__ import annotations

__all__ = ["curves", "group_colour"]

from typing import Any

import numpy as np

from .comparison import Comparison
from .evidence_axis import blank, evidence_layout
from .names import plain
from .theme import SERIES, faint
from .view import Drawn, numbers

BAND_GROUPS = 8  # with more, bands would hide the lines


def group_colour(i: int) -> str:
    """The colour of the i-th group."""
    return SERIES[i % len(SERIES)]


def curves(comparison: Comparison, curve: str, y: dict[str, Any], hover: str, scale: float = 1.0) -> Drawn:
    """One line a group, with the range of its runs as a band."""
    data: list[dict[str, Any]] = []
    for i, group in enumerate(comparison.groups):
        band = group.band(curve, comparison.epochs)
        if band is None:
            continue
        colour, x = group_colour(i), numbers(band.at, 6)
        base = {"type": "scatter", "mode": "lines", "x": x, "legendgroup": group.name}
        if len(group.members) > 1 and len(comparison.groups) <= BAND_GROUPS:
            side = {**base, "hoverinfo": "skip", "line": {"width": 0}, "showlegend": False}
            data.append({**side, "y": numbers(scale * band.low)})
            data.append({**side, "y": numbers(scale * band.high), "fill": "tonexty", "fillcolor": faint(colour, 0.18)})
        name = f"{group.name} ({len(group.members)})" if len(group.members) > 1 else group.name
        name += "" if np.isfinite(band.mean).any() else ", not measured"
        dash = ("solid", "dash", "dot")[i // len(SERIES) % 3]
        line = {"color": colour, "width": 2, "dash": dash}
        told = {"hovertemplate": f"{hover}<extra>{plain(group.name)}</extra>"}
        data.append({**base, "y": numbers(scale * band.mean), "name": plain(name), "line": line, **told})
    if not data:
        return blank("None of these runs recorded it." if comparison.groups else "Choose runs to compare.")
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    layout = evidence_layout("epoch" if comparison.epochs else "step", y, showlegend=True, legend=legend, hovermode="x")
    layout["margin"] |= {"t": 34}
    layout["xaxis"] |= {"tickformat": ",~r" if comparison.epochs else ",d"}
    return Drawn({"data": data, "layout": layout})
