"""How many steps after a spike the next dip begins, against what chance gives: a histogram of lags."""

from __future__ import annotations

from ..evidence import LAG_BIN, Evidence
from ..evidence_axis import blank, chance_band, evidence_layout
from ..view import Drawn

TITLE = "Steps from a spike to the next dip"
HELP = "Bars: spikes of the layer. Line and band: dips shifted inside blocks, their mean and middle 95 %."
ORDER = 210
PLACE = "precursors"
HEIGHT = 300


def draw(evidence: Evidence) -> Drawn:
    """The histogram with the band of the surrogates."""
    found = evidence.lags
    if found is None:
        return blank("Without spikes of this layer and dips there are no lags.", absent=True)
    bars = {
        "type": "bar",
        "name": "spikes",
        "x": found.at.tolist(),
        "y": found.seen.tolist(),
        "width": [LAG_BIN * 0.86] * len(found.at),
        "marker": {"color": "$first"},
        "opacity": 0.85,
        "hovertemplate": "%{y} spikes, about %{x:.0f} steps before a dip<extra></extra>",
    }
    layout = evidence_layout(
        "steps to the next dip", {"title": {"text": "spikes", "standoff": 8}, "rangemode": "tozero"}
    )
    if max(found.seen.max(), found.high.max()) < 6:
        layout["yaxis"] |= {"dtick": 1, "range": [0, max(found.seen.max(), found.high.max(), 1) * 1.05]}  # whole spikes
    low, high, mean = chance_band(found, "by chance")
    most = int(found.seen.argmax())
    reached = int(found.seen.sum())
    words = f"{reached} of {found.events} spikes {'has' if reached == 1 else 'have'} a dip in the 128 steps after"
    if reached:
        from_, to = found.at[most] - LAG_BIN / 2, found.at[most] + LAG_BIN / 2
        chance = f"{int(found.seen[most])}, by chance {found.expected[most]:.1f}"
        words += f"; most often {from_:.0f} to {to:.0f} steps later ({chance})"
    words += "."
    return Drawn({"data": [low, high, mean, bars], "layout": layout}, words=words)
