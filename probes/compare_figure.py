"""A comparison as a plotly figure: ratios of event rates (times) and difference of final accuracies (points)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    from .compare_report import Comparison

__all__ = ["figure"]

_A, _B, _LINE = "#d55e00", "#0072b2", "rgba(136, 136, 136, 0.6)"
_TICKS = [m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5)]
_FURTHEST = 1000.0  # times; where an interval without an end is cut


def figure(comparison: Comparison) -> Figure:
    """Draw a forest plot of the rate ratios beside the final accuracies of all seeds, a's and b's."""
    rates = [(name, found) for name, found in (("spike events", comparison.spikes), ("dips", comparison.dips)) if found]
    titles = ("times as many with a as with b", "final accuracy of each seed, %")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles, column_widths=[0.6, 0.4], horizontal_spacing=0.12)
    known = [(name, found) for name, found in rates if sum(found.events)]
    for name, found in known:
        low, high = max(found.low, 1 / _FURTHEST), min(found.high, _FURTHEST)
        middle = min(max(found.ratio, low), high) if not math.isnan(found.ratio) else low
        spread = {"type": "data", "symmetric": False, "array": [high - middle], "arrayminus": [middle - low]}
        told = f"{found.ratio:.2f} [{found.low:.2f}, {found.high:.2f}], p = {found.p:.2g}"
        mark = {"color": _B, "size": 11}
        point = Scatter(x=[middle], y=[name], error_x=spread, mode="markers", marker=mark, text=[told], name=name)
        drawing.add_trace(point.update(hovertemplate="%{y}: %{text}<extra></extra>", showlegend=False), row=1, col=1)
    if known:
        line = {"color": _LINE, "dash": "dash"}
        drawing.add_vline(x=1, line=line, row=1, col=1)  # pyright: ignore[reportArgumentType]
    if comparison.accuracy is not None:
        for name, colour, seeds in zip("ab", (_A, _B), comparison.accuracy.by_seed, strict=True):
            mark = {"color": colour, "size": 9, "opacity": 0.7}
            points = Scatter(x=[name] * len(seeds), y=[100 * x for x in seeds], mode="markers", marker=mark, name=name)
            drawing.add_trace(points.update(showlegend=False), row=1, col=2)
    ticks = {"tickvals": _TICKS, "ticktext": [f"{tick:g}" for tick in _TICKS]}
    drawing.update_xaxes(type="log", title="ratio of rates, with its interval", row=1, col=1, **ticks)
    drawing.update_yaxes(range=[-0.5, len(known) - 0.5], row=1, col=1)
    drawing.update_xaxes(type="category", range=[-0.5, 1.5], row=1, col=2)
    title = {"text": comparison.verdict.replace("; ", "<br>"), "font": {"size": 13}, "y": 0.97, "yanchor": "top"}
    return drawing.update_layout(title=title, margin={"t": 120}, template="plotly_white", height=380)
