"""The first layer's gradient norm as a multiple of its normal, of several runs: the highest value of each column."""

from __future__ import annotations

from ..comparison import Comparison
from ..comparison_axis import curves
from ..view import Drawn
from .patch_projection import ratio_ticks

TITLE = "First layer's gradient"
HELP = "Relative to its normal; of each column the highest value, so that no spike is lost. Frozen: no line."
ORDER = 330
PLACE = "compare"
HEIGHT = 340


def draw(comparison: Comparison) -> Drawn:
    """The curves of the first layer's relative gradient norm."""
    y = {"type": "log", "title": {"text": "gradient norm, × normal", "standoff": 8}, **ratio_ticks()}
    return curves(comparison, "gradient", y, "%{y:.2f}×")
