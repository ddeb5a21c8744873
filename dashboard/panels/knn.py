"""The kNN curve (accuracy in per cent against the step) with its binomial error band, dips shaded."""

from __future__ import annotations

import numpy as np

from ..figures import band, dip_shapes, empty, finite, layout, line, markers
from ..view import Drawn, View, key_of
from ..words import about_dip

TITLE = "kNN accuracy"
HELP = (
    "Images whose nearest neighbours in feature space vote for the right class, with the 95 % binomial error "
    "of an evaluation. Shaded: a dip, until it has recovered."
)
ORDER = 10
PLACE = "main"
HEIGHT = 230
SERIES = ("knn_accuracy", "knn_queries")

NORMAL_95 = 1.96


def draw(view: View) -> Drawn:
    """The curve of `knn_accuracy`; its band from `knn_queries`, the number of images behind an evaluation."""
    columns = view.columns
    knn = columns.scalars.get("knn_accuracy")
    if knn is None or (not view.tail and not finite(knn.mean).any()):
        text = "No kNN evaluation yet." if knn is not None else "This run records no kNN accuracy."
        return Drawn(empty(view, text), words=text, absent=knn is None)
    seen = finite(knn.mean)
    x = columns.steps[seen]
    queries = columns.scalars["knn_queries"].mean[seen] if "knn_queries" in columns.scalars else np.full(len(x), np.nan)
    low, high = (100 * edge for edge in _error(knn.low[seen], knn.high[seen], queries))
    curve = line(x, 100 * knn.mean[seen], "kNN accuracy", "$knn", "%{y:.1f} %<extra></extra>")
    nadirs = markers(
        [dip.nadir for dip in view.dips],
        [_percent(dip.base - dip.depth) for dip in view.dips],
        "$dip",
        "triangle-down",
        name="dip",
        customdata=[key_of(dip) for dip in view.dips],
        hovertext=[about_dip(dip) for dip in view.dips],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    y = {"title": {"text": "accuracy, %", "standoff": 8}}
    figure = {"data": [*band(x, low, high, "$knn"), curve, nadirs], "layout": layout(view, y, shapes=dip_shapes(view))}
    return Drawn(figure, words=_words(view, 100 * knn.mean[seen]))


def _error(low: np.ndarray, high: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits by the binomial standard error sqrt(p (1 - p) / n), cut to 0..1; none where n is unknown."""

    def margin(p: np.ndarray) -> np.ndarray:
        p = np.clip(p, 0, 1)
        return np.nan_to_num(NORMAL_95 * np.sqrt(p * (1 - p) / np.maximum(queries, 1)))

    return np.clip(low - margin(low), 0, 1), np.clip(high + margin(high), 0, 1)


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _words(view: View, percent: np.ndarray) -> str:
    if not len(percent):
        return ""
    dips = "; ".join(about_dip(dip) for dip in view.dips[-5:]) or "no dips"
    return f"kNN accuracy is {percent[-1]:.1f} % at the end of the curve, {np.max(percent):.1f} % at its best; {dips}."
