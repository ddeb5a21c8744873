"""The Molchan curve of a layer: share of dips missed against the share of time under alarm."""

from __future__ import annotations

from ..evidence import Evidence
from ..evidence_axis import blank, evidence_layout
from ..view import Drawn

TITLE = "Molchan curve"
HELP = "Alarms of growing length after each spike. Below the diagonal: better than a guess."
ORDER = 230
PLACE = "precursors"
HEIGHT = 300


def draw(evidence: Evidence) -> Drawn:
    """The curve, and the diagonal of a guess."""
    found = evidence.report.molchan.get(evidence.layer)
    if found is None:
        return blank("Without spikes of this layer and dips there is no curve.", absent=True)
    line = {"type": "scatter", "mode": "lines"}
    guess = {**line, "name": "a guess", "x": [0, 1], "y": [1, 0], "hoverinfo": "skip"}
    guess["line"] = {"color": "$muted", "width": 1.4, "dash": "dash"}
    curve = {
        **line,
        "name": evidence.layer,
        "x": list(found.alarm),
        "y": list(found.missed),
        "line": {"color": "$first", "width": 2.2, "shape": "hv"},
        "hovertemplate": "%{x:.0%} of the time under alarm: %{y:.0%} of the dips missed<extra></extra>",
    }
    share = {"range": [-0.02, 1.02], "tickformat": ".0%"}
    layout = evidence_layout("time under alarm", {"title": {"text": "dips missed", "standoff": 6}, **share})
    layout["xaxis"] |= share
    chance = f", by chance {found.chance:.2f}" if found.chance == found.chance else ""
    words = f"Area skill {found.skill:.2f}{chance}; 1 is perfect, 0.5 a guess."
    return Drawn({"data": [guess, curve], "layout": layout}, words=words)
