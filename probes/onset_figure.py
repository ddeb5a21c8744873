"""An onset order as a plotly figure: steps after the event's median layer over depth, and who is first."""

from __future__ import annotations

import numpy as np
from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from .onset_report import OnsetOrder

__all__ = ["figure"]

_LINE = "#0072b2"
_GREY = "rgba(136, 136, 136, 0.35)"


def figure(order: OnsetOrder) -> Figure:
    """Draw one grey line an event, the layers' medians in blue, and the share of events in which each is first."""
    titles = ("onset, relative to the event's median layer", "first in")
    drawing = make_subplots(rows=1, cols=2, subplot_titles=titles, column_widths=[0.7, 0.3], horizontal_spacing=0.12)
    names = list(order.layers)
    onsets = np.array([[np.nan if at is None else at for at in row] for row in order.onsets], float)
    if onsets.size:
        later = onsets - np.nanmedian(onsets, axis=1, keepdims=True)
        for e, row in enumerate(later):
            line = Scatter(x=names, y=row, mode="lines", line={"color": _GREY}, name=f"event {e}", showlegend=False)
            drawing.add_trace(line, row=1, col=1)
        middle = [float(np.median(column[~np.isnan(column)])) for column in later.T]
        median = Scatter(x=names, y=middle, mode="lines+markers", line={"color": _LINE}, name="median over events")
        drawing.add_trace(median, row=1, col=1)
    share = Bar(x=names, y=[order.first[name] for name in names], marker_color=_LINE, showlegend=False, name="first")
    drawing.add_trace(share, row=1, col=2)
    drawing.update_yaxes(title="steps", row=1, col=1).update_yaxes(title="share of events", row=1, col=2)
    return drawing.update_layout(title=order.verdict, template="plotly_white", height=380)
