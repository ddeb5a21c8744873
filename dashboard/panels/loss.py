"""The training loss against the step, with the loss of a guess as a dashed line."""

from __future__ import annotations

import numpy as np

from ..figures import band, dip_shapes, empty, finite, layout, line
from ..view import Drawn, View

TITLE = "Loss"
HELP = "Mean and range; dashed: what a guess would get; dotted: pairs that coincide among orthogonal others."
ORDER = 40
PLACE = "main"
HEIGHT = 190
SERIES = ("loss", "chance_loss", "ideal_loss")


def draw(view: View) -> Drawn:
    """The curve of `loss` with its min/max band, `chance_loss` and `ideal_loss`."""
    columns = view.columns
    loss = columns.scalars.get("loss")
    if loss is None or (not view.tail and not finite(loss.mean).any()):
        text = "No loss yet." if loss is not None else "This run records no loss."
        return Drawn(empty(view, text), words=text, absent=loss is None)
    x = columns.steps
    data = [*band(x, loss.low, loss.high, "$loss"), line(x, loss.mean, "loss", "$loss", "%{y:.3f}<extra>loss</extra>")]
    chance = columns.scalars.get("chance_loss")
    if chance is not None:
        dashed = {"color": "$muted", "width": 1.4, "dash": "dash"}
        data.append(line(x, chance.mean, "chance", "$muted", "%{y:.3f}<extra>a guess</extra>", line=dashed))
    ideal = columns.scalars.get("ideal_loss")
    if ideal is not None:
        dotted = {"color": "$muted", "width": 1.4, "dash": "dot"}
        data.append(line(x, ideal.mean, "ideal", "$muted", "%{y:.3f}<extra>ideal</extra>", line=dotted))
    figure = {
        "data": data,
        "layout": layout(view, {"title": {"text": "loss, nats", "standoff": 8}}, shapes=dip_shapes(view)),
    }
    return Drawn(figure, words=_words(loss.mean, chance.mean if chance is not None else None))


def _words(loss: np.ndarray, chance: np.ndarray | None) -> str:
    seen = loss[finite(loss)]
    if not len(seen):
        return ""
    guess = "" if chance is None or not finite(chance[-1:]).all() else f" (a guess gets {chance[-1]:.2f})"
    return f"The loss went from {seen[0]:.2f} to {seen[-1]:.2f}{guess}."
