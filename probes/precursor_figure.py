"""A precursor report as a plotly figure: rates over the lag in steps, Molchan curves, p-values."""

from __future__ import annotations

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from .layers import first_layer, last_block, middle_block
from .precursor_report import Coincidence, PrecursorReport

__all__ = ["figure"]

# Colours that people with any colour vision can tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_GREY = "#888888"


def figure(report: PrecursorReport) -> Figure:
    """Draw the best, first, middle and last layer: precursor rate and chance by lag, Molchan curve, p by lag."""
    titles = ("dips with a spike before", "missed dips against alarm time", "p, corrected")
    drawing = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.08)
    for colour, layer in zip(_COLOURS, _shown(report), strict=False):
        _draw_layer(drawing, report, layer, colour)
    diagonal = {"x": [0, 1], "y": [1, 0], "mode": "lines", "line": {"color": _GREY, "dash": "dot"}}
    drawing.add_trace(Scatter(**diagonal, name="a guess", hoverinfo="skip"), row=1, col=2)
    drawing.add_hline(y=report.alpha, line={"color": _GREY, "dash": "dot"}, row=1, col=3)  # pyright: ignore[reportArgumentType]
    for column in (1, 3):
        lags = sorted({row.lag for row in report.rows})
        drawing.update_xaxes(type="log", tickvals=lags, title="lag (steps)", row=1, col=column)
    drawing.update_xaxes(range=[0, 1], title="share of time under alarm", row=1, col=2)
    drawing.update_yaxes(range=[0, 1.02], row=1, col=1).update_yaxes(range=[0, 1.02], row=1, col=2)
    drawing.update_yaxes(type="log", range=[-3.1, 0.05], row=1, col=3)
    drawing.update_layout(title=report.verdict, template="plotly_white", height=380, legend={"orientation": "h"})
    return drawing


def _shown(report: PrecursorReport) -> list[str]:
    layers = list(report.spikes)
    best = [] if report.best is None else [report.best.layer]
    ends = [first_layer(layers), middle_block(layers), last_block(layers)] if layers else []
    return list(dict.fromkeys(best + ends))


def _draw_layer(drawing: Figure, report: PrecursorReport, layer: str, colour: str) -> None:
    rows = [row for row in report.rows if row.layer == layer]
    lags = [row.lag for row in rows]
    group = {"legendgroup": layer, "line": {"color": colour}}
    rates = Scatter(x=lags, y=[row.precursor.value for row in rows], error_y=_bars(rows), name=layer, **group)
    drawing.add_trace(rates, row=1, col=1)
    quiet = {"legendgroup": layer, "showlegend": False}
    dotted = {"color": colour, "dash": "dot"}
    by_chance = Scatter(x=lags, y=[row.expected for row in rows], name=f"{layer}, chance", line=dotted, **quiet)
    drawing.add_trace(by_chance, row=1, col=1)
    tested = [row for row in rows if row.p is not None]
    ps = Scatter(
        x=[row.lag for row in tested], y=[row.p for row in tested], name=layer, line={"color": colour}, **quiet
    )
    drawing.add_trace(ps, row=1, col=3)
    if layer in report.molchan:
        curve = report.molchan[layer]
        stairs = {"color": colour, "shape": "hv"}
        drawing.add_trace(Scatter(x=curve.alarm, y=curve.missed, name=layer, line=stairs, **quiet), row=1, col=2)


def _bars(rows: list[Coincidence]) -> dict[str, object]:
    up = [row.precursor.high - row.precursor.value for row in rows]
    down = [row.precursor.value - row.precursor.low for row in rows]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}
