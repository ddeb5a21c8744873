"""Coincidence rates of a layer by lag: which share of dips a spike precedes, which share of spikes a dip follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...probes.coincidence import Rate
from ..evidence import Evidence
from ..evidence_axis import blank, evidence_layout
from ..view import Drawn, Table

TITLE = "Coincidence rates"
HELP = (
    "With 95 % Wilson intervals. Circles: dips with a spike before. Squares: spikes with a dip after. Dashes: chance."
)
ORDER = 240
PLACE = "precursors"
HEIGHT = 300


def draw(evidence: Evidence) -> Drawn:
    """Both rates by lag with intervals, and the table behind them."""
    rows = evidence.rows
    if not rows or not rows[0].precursor.trials:
        return blank("Without dips there are no rates.", absent=True)
    at = [float(i) for i in range(len(rows))]
    chance = {
        "type": "scatter",
        "mode": "markers",
        "name": "by chance",
        "x": [x - 0.12 for x in at],
        "y": [None if math.isnan(row.expected) else row.expected for row in rows],
        "marker": {"symbol": "line-ew", "size": 18, "line": {"width": 2, "color": "$muted"}},
        "hovertemplate": "%{y:.2f} by chance<extra></extra>",
    }
    data = [
        chance,
        _rates([x - 0.12 for x in at], [row.precursor for row in rows], "dips with a spike before", "$knn", "circle"),
        _rates([x + 0.12 for x in at], [row.trigger for row in rows], "spikes with a dip after", "$first", "square"),
    ]
    y = {"title": {"text": "share", "standoff": 6}, "range": [-0.03, 1.05], "tickformat": ".0%"}
    layout = evidence_layout("lag, steps", y)
    layout["xaxis"] |= {"tickvals": at, "ticktext": [str(row.lag) for row in rows], "showgrid": False}
    table = Table(f"Rates of {evidence.layer}", _HEAD, tuple(_row(row) for row in rows))
    best = min(rows, key=lambda row: 2.0 if row.p is None else row.p)
    hits, trials = best.precursor.hits, best.precursor.trials
    dips = "dip" if trials == 1 else "dips"
    before = "has a spike before it" if hits == 1 or trials == 1 else "have a spike before them"
    words = f"At a lag of {best.lag} steps {hits} of {trials} {dips} {before}."
    return Drawn({"data": data, "layout": layout}, (table,), words)


_HEAD = ("Lag", "Dips with a spike before", "By chance", "Lift", "Spikes with a dip after", "p", "p, reverse")


def _rates(x: Sequence[float], rates: Sequence[Rate], name: str, colour: str, symbol: str) -> dict[str, Any]:
    known = [rate for rate in rates if rate.trials]
    up = [rate.high - rate.value for rate in known]
    down = [rate.value - rate.low for rate in known]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x)[: len(known)],
        "y": [rate.value for rate in known],
        "error_y": {"symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 1.5, "width": 3},
        "marker": {"symbol": symbol, "size": 9, "color": colour},
        "hovertext": [f"{rate.hits} of {rate.trials} {name} [{rate.low:.2f}, {rate.high:.2f}]" for rate in known],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _row(row: Any) -> tuple[str, ...]:
    def number(value: float | None, digits: int = 2) -> str:
        return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"

    return (
        str(row.lag),
        f"{row.precursor.hits}/{row.precursor.trials}",
        number(row.expected),
        number(row.lift, 1),
        f"{row.trigger.hits}/{row.trigger.trials}",
        number(row.p, 3),
        number(row.reverse_p, 3),
    )
