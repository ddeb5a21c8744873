"""The learning rate against the step: what the optimizer used, warm-up and schedule included."""

from __future__ import annotations

import numpy as np

from ..figures import dip_shapes, empty, finite, layout, line
from ..view import Drawn, View

TITLE = "Learning rate"
HELP = "As the optimizer used it. Spikes are frequent where it is high."
ORDER = 45
PLACE = "main"
HEIGHT = 150
SERIES = ("lr",)


def draw(view: View) -> Drawn:
    """The curve of `lr`."""
    lr = view.columns.scalars.get("lr")
    if lr is None or (not view.tail and not finite(lr.mean).any()):
        text = "No learning rate yet." if lr is not None else "This run records no learning rate."
        return Drawn(empty(view, text), words=text, absent=lr is None)
    axis = {
        "title": {"text": "learning rate", "standoff": 8},
        "rangemode": "tozero",
        "exponentformat": "e",
        "nticks": 4,
    }
    curve = line(view.columns.steps, lr.mean, "learning rate", "$loss", "%{y:.3~g}<extra>learning rate</extra>")
    return Drawn({"data": [curve], "layout": layout(view, axis, shapes=dip_shapes(view))}, words=_words(lr.mean))


def _words(lr: np.ndarray) -> str:
    seen = lr[finite(lr)]
    if not len(seen):
        return ""
    return f"The learning rate went from {seen[0]:.3g} to {seen[-1]:.3g}, at most {seen.max():.3g}."
