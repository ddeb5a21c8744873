"""The kNN accuracy (in per cent) of several runs, by group, with the range over the seeds as a band."""

from __future__ import annotations

from ..comparison import Comparison
from ..comparison_axis import curves
from ..view import Drawn

TITLE = "kNN accuracy"
HELP = "Line: mean of a group's runs. Band: their range."
ORDER = 310
PLACE = "compare"
HEIGHT = 340


def draw(comparison: Comparison) -> Drawn:
    """The curves, and each group's final accuracy in words."""
    y = {"title": {"text": "accuracy, %", "standoff": 8}}
    drawn = curves(comparison, "knn_accuracy", y, "%{y:.1f} %", 100)
    told = []
    for group in comparison.groups:
        finals = [member.final for member in group.members if member.final is not None]
        if finals:
            span = f" ({100 * min(finals):.1f} to {100 * max(finals):.1f})" if len(finals) > 1 else ""
            told.append(f"{group.name}: {100 * sum(finals) / len(finals):.1f} %{span}")
    return Drawn(drawn.figure, words=f"At the end {'; '.join(told[:12])}." if told else "")
