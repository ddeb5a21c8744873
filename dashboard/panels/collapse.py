"""How much room the features take up, against the step: effective rank, and scatter on the unit sphere (0 to 1)."""

from __future__ import annotations

import numpy as np

from ..figures import empty, finite, layout, line
from ..view import Drawn, View

TITLE = "Collapse"
HELP = "Effective rank of the features: falling towards 1 means that they use ever fewer directions."
ORDER = 47
PLACE = "main"
HEIGHT = 150
SERIES = ("effective_rank", "feature_std")


def draw(view: View) -> Drawn:
    """The curve of `effective_rank`, at the steps where it was measured; `feature_std` is told in words."""
    scalars = view.columns.scalars
    rank = scalars.get("effective_rank")
    if rank is None or (not view.tail and not finite(rank.mean).any()):
        text = "No effective rank yet." if rank is not None else "This run records no effective rank."
        return Drawn(empty(view, text), words=text, absent=rank is None)
    seen = finite(rank.mean)
    curve = line(
        view.columns.steps[seen], rank.mean[seen], "effective rank", "$s3", "%{y:.1f}<extra>effective rank</extra>"
    )
    axis = {"title": {"text": "effective rank", "standoff": 8}, "rangemode": "tozero", "nticks": 4}
    std = scalars.get("feature_std")
    words = _words(rank.mean[seen], None if std is None else std.mean[finite(std.mean)])
    return Drawn({"data": [curve], "layout": layout(view, axis)}, words=words)


def _words(rank: np.ndarray, std: np.ndarray | None) -> str:
    if not len(rank):
        return ""
    words = f"The effective rank of the features went from {rank[0]:.1f} to {rank[-1]:.1f}"
    if std is None or not len(std):
        return f"{words}."
    return f"{words}; their scatter is {std[-1]:.2f} (1 spread out, 0 collapsed)."
