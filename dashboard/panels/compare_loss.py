"""The training loss (nats) of several runs, by group, with the range over the seeds as a band."""

from __future__ import annotations

from ..comparison import Comparison
from ..comparison_axis import curves
from ..view import Drawn

TITLE = "Loss"
HELP = "Line: mean of a group's runs. Band: their range."
ORDER = 320
PLACE = "compare"
HEIGHT = 340


def draw(comparison: Comparison) -> Drawn:
    """The curves of `loss`."""
    return curves(comparison, "loss", {"title": {"text": "loss, nats", "standoff": 8}}, "%{y:.3f}")
