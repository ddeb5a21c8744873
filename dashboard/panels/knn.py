"""The kNN curve (accuracy in per cent against the step) with its binomial error band, dips shaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...probes.dips import Dip
from ..figures import COLUMNS, LEGEND, MARGIN, RUG_AXIS, band, dip_shapes, empty, finite, layout, line, markers, rug
from ..names import plain
from ..view import Drawn, View, key_of, numbers
from ..words import about_dip, interventions

TITLE = "kNN accuracy"
HELP = (
    "Images whose nearest neighbours in feature space vote for the right class, with the 95 % binomial error. "
    "Shaded: a dip, until it has recovered. Diamonds: the same images against keys encoded anew; what is lost there "
    "too is not the age of the queue."
)
ORDER = 10
PLACE = "main"
HEIGHT = 250
SERIES = ("knn_accuracy", "knn_queries", "knn_accuracy_fresh")

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
        hovertext=[_about(view, dip) for dip in view.dips],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    fresh = _fresh(view)
    legend = bool(fresh and fresh["x"]) or any(remark["kind"] == "intervention" for remark in view.remarks)
    look = {"legend": LEGEND, "showlegend": True, "margin": {**MARGIN, "t": 34}} if legend else {}
    y = {"title": {"text": "accuracy, %", "standoff": 8}}
    data = [*band(x, low, high, "$knn"), curve, nadirs, rug(view), *([fresh] if fresh else [])]
    for trace in data[:2]:
        trace["showlegend"] = False
    figure = {"data": data, "layout": layout(view, y, shapes=dip_shapes(view), **look, **RUG_AXIS)}
    return Drawn(figure, words=_words(view, 100 * knn.mean[seen]))


def _fresh(view: View) -> dict[str, Any] | None:
    """The staleness control's accuracies; None for a run without one."""
    fresh = view.columns.scalars.get("knn_accuracy_fresh")
    if fresh is None:
        return None
    seen = finite(fresh.mean)
    look = {"meta": COLUMNS, "name": "fresh keys"}
    y = numbers(100 * fresh.mean[seen])
    told = "%{y:.1f} % against keys encoded anew<extra></extra>"
    return markers(view.columns.steps[seen].tolist(), y, "$last", "diamond", **look, hovertemplate=told)


def _about(view: View, dip: Dip) -> str:
    """A dip in words, with what the staleness control said of it."""
    return "<br>".join(map(plain, filter(None, [about_dip(dip), _share(view, dip)])))


def _share(view: View, dip: Dip) -> str:
    """What the network itself lost in a dip, as the staleness control put it last; empty if it was not asked."""
    last = view.last_step if dip.end is None else dip.end
    texts = [r["text"] for r in view.remarks if r["kind"] == "staleness" and dip.onset_by <= r["step"] <= last]
    return texts[-1].rpartition(": ")[2] if texts else ""


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
    dips = [", ".join(filter(None, [about_dip(dip), _share(view, dip)])) for dip in view.dips[-5:]] or ["no dips"]
    told = f"kNN accuracy is {percent[-1]:.1f} % at the end of the curve, {np.max(percent):.1f} % at its best"
    return f"{told}; {'; '.join(dips)}. {interventions(view)}".strip()
