"""The mean kNN accuracy (in points) around the spikes of a layer, with the band that chance gives."""

from __future__ import annotations

import numpy as np

from ..evidence import Evidence
from ..evidence_axis import blank, chance_band, evidence_layout
from ..figures import finite
from ..view import Drawn, numbers

TITLE = "Mean kNN curve around a spike"
HELP = "Relative to the 64 steps before each spike. Band: spikes shifted inside blocks, middle 95 %."
ORDER = 220
PLACE = "precursors"
HEIGHT = 300


def draw(evidence: Evidence) -> Drawn:
    """The event-triggered average of the accuracy."""
    found = evidence.knn
    if found is None or not finite(found.seen).any():
        return blank("Without spikes of this layer and a kNN curve there is no mean curve.", absent=True)
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "kNN accuracy",
        "x": found.at.tolist(),
        "y": numbers(100 * found.seen),
        "line": {"color": "$knn", "width": 2},
        "marker": {"size": 4, "color": "$knn"},
        "hovertemplate": "%{x:+.0f} steps: %{y:+.2f} points<extra></extra>",
    }
    axis = {"title": {"text": "accuracy, points", "standoff": 8}, "zeroline": True, "zerolinecolor": "$line"}
    layout = evidence_layout("steps since the spike's onset", axis)
    layout["xaxis"] |= {"zeroline": True, "zerolinecolor": "$muted"}
    low = int(np.nanargmin(found.seen))
    outside = finite(found.low) & finite(found.seen) & (found.seen < found.low)
    count = f"{found.events} {'spike' if found.events == 1 else 'spikes'}"
    place = f"{abs(found.at[low]):.0f} steps {'after' if found.at[low] >= 0 else 'before'} the onset"
    words = (
        f"Mean of {count}: lowest {_signed(found.seen[low])} points about {place}; "
        f"{'below' if outside[low] else 'within'} the band of chance there."
    )
    return Drawn({"data": [*chance_band(found, "by chance", 100), curve], "layout": layout}, words=words)


def _signed(share: float) -> str:
    """Points with a sign, a real minus among them."""
    return f"{100 * share:+.1f}".replace("-", "−")
