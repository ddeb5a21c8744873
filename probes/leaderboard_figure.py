"""A leaderboard as a plotly figure: share of dips warned, and lead time in steps, of the first signals."""

from __future__ import annotations

from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from .leaderboard_report import Leaderboard

__all__ = ["figure"]

_BLUE, _GREY, _MOST = "#0072b2", "#888888", 20


def figure(board: Leaderboard) -> Figure:
    """Draw warned shares with their intervals beside chance, and median leads with theirs; the best is on top."""
    shown = board.signals[:_MOST][::-1]
    names = [signal.name for signal in shown]
    titles = ("dips warned", "lead (steps)")
    drawing = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    up = [signal.warned.high - signal.warned.value for signal in shown]
    down = [signal.warned.value - signal.warned.low for signal in shown]
    bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}
    share = Bar(x=[s.warned.value for s in shown], y=names, orientation="h", error_x=bars, marker_color=_BLUE)
    drawing.add_trace(share.update(name="warned"), row=1, col=1)
    marker = {"symbol": "line-ns-open", "size": 12, "color": _GREY}
    chance = Scatter(x=[s.expected for s in shown], y=names, mode="markers", marker=marker, name="by chance")
    drawing.add_trace(chance, row=1, col=1)
    heard = [signal for signal in shown if signal.lead.events > 1]
    ends = {
        "array": [signal.lead.high - signal.lead.median for signal in heard],
        "arrayminus": [signal.lead.median - signal.lead.low for signal in heard],
    }
    lead = Scatter(
        x=[signal.lead.median for signal in heard],
        y=[signal.name for signal in heard],
        mode="markers",
        error_x={"type": "data", "symmetric": False, "thickness": 1, **ends},
        marker={"color": _BLUE},
        showlegend=False,
        name="lead",
    )
    drawing.add_trace(lead, row=1, col=2)
    drawing.update_xaxes(range=[0, 1.02], row=1, col=1)
    return drawing.update_layout(title=board.verdict, template="plotly_white", height=140 + 24 * len(shown))
