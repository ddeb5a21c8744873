"""Spikes and dips per 10,000 steps, by group, with exact 95 % intervals."""

from __future__ import annotations

from typing import Any

from ..comparison import Comparison
from ..evidence_axis import blank, evidence_layout
from ..names import plain, short
from ..view import Drawn

TITLE = "Rates of spikes and dips"
HELP = "Per 10,000 steps beyond the warm-up. Intervals are exact and take every event for independent."
ORDER = 340
PLACE = "compare"
HEIGHT = 340

_KINDS = (("spikes", "$first", "circle", -0.1), ("dips", "$dip", "diamond", 0.1))


def draw(comparison: Comparison) -> Drawn:
    """Rates with intervals."""
    data = [_points(comparison, *kind) for kind in _KINDS]
    if not any(trace["x"] for trace in data):
        return blank("Looking for spikes…" if comparison.pending else "Nothing to count.")
    y = {"title": {"text": "per 10,000 steps", "standoff": 8}, "rangemode": "tozero"}
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    layout = evidence_layout(comparison.by, y, showlegend=True, legend=legend)
    names = [plain(short(group.name, 18)) for group in comparison.groups]
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    layout["xaxis"] |= {**ticks, "range": [-0.6, len(names) - 0.4]}
    layout["margin"] |= {"t": 34}
    return Drawn({"data": data, "layout": layout}, words=_words(comparison))


def _points(comparison: Comparison, kind: str, colour: str, symbol: str, shift: float) -> dict[str, Any]:
    found = [(i, rate) for i, group in enumerate(comparison.groups) if (rate := group.rate(kind)) is not None]
    error = {"array": [r[3] - r[1] for _, r in found], "arrayminus": [r[1] - r[2] for _, r in found]}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "x": [i + shift for i, _ in found],
        "y": [rate[1] for _, rate in found],
        "error_y": {"symmetric": False, **error, "color": colour, "thickness": 1.5, "width": 4},
        "marker": {"symbol": symbol, "size": 10, "color": colour},
        "hovertext": [f"{r[0]} {kind}: {r[1]:.1f} [{r[2]:.1f}, {r[3]:.1f}] per 10,000 steps" for _, r in found],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _words(comparison: Comparison) -> str:
    """Both rates of every group with their intervals."""
    told = []
    for group in comparison.groups[:12]:
        rates = [(kind, rate) for kind, *_ in _KINDS if (rate := group.rate(kind)) is not None]
        parts = [f"{r[0]} {kind}, {r[1]:.1f} [{r[2]:.1f}, {r[3]:.1f}]" for kind, r in rates]
        if parts:
            told.append(f"{group.name}: {' and '.join(parts)}")
    return f"Per 10,000 steps {'; '.join(told)}."
