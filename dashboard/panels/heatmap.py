"""Every layer's relative gradient norm, layer by step, colour on a log scale; grey where nothing was measured."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..figures import COLUMNS, MARGIN, empty, finite, layout
from ..theme import HEAT_CEILING, HEAT_FLOOR
from ..view import Drawn, View, key_of, numbers
from ..words import times

TITLE = "All layers"
HELP = (
    "Every pixel is the highest value of its steps, so a spike of a single step shows at any zoom. Rings: "
    "where spikes begin; click one, or any cell. Grey: not measured (frozen)."
)
ORDER = 30
PLACE = "main"
HEIGHT = 340


def draw(view: View) -> Drawn:
    """The map of log10 of each layer's multiple of its normal: the columns' maxima."""
    if not view.layers or not view.rows:
        text = "No gradient norm yet."
        return Drawn(empty(view, text), words=text)
    columns = view.columns
    scale = {
        "type": "heatmap",
        "meta": COLUMNS,
        "x": numbers(columns.steps, 9),
        "y": list(view.layers),
        "z": packed(_log(columns.ratio.high)),
        "customdata": packed(np.minimum(columns.ratio.high, 1e9)),
        "zmin": float(np.log10(HEAT_FLOOR)),
        "zmax": float(np.log10(HEAT_CEILING)),
        "zsmooth": False,
        "colorscale": "$heat",
        "colorbar": _colourbar(),
        "hovertemplate": "%{y} at step %{x:,.0f}: %{customdata:.2f}×<extra></extra>",
        "hoverongaps": False,
    }
    shown = [view.layers[i] for i in _ticks(len(view.layers))]
    axis = {
        "type": "category",
        "range": [len(view.layers) - 0.5, -0.5],  # the first layer on top
        "tickvals": shown,
        "ticktext": [short(layer) for layer in shown],
        "fixedrange": len(view.layers) < 40,
        "showgrid": False,
    }
    drawn = layout(view, axis, plot_bgcolor="$frozen", hovermode="closest", margin={**MARGIN, "t": 38})
    drawn["xaxis"]["showgrid"] = False
    return Drawn({"data": [scale, _rings(view)], "layout": drawn}, words=_words(view))


def _log(ratio: NDArray[np.float64]) -> NDArray[np.float32]:
    """log10, a zero gradient at the floor of what float32 holds, infinity far above the scale; NaN stays NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.log10(ratio), -9, 9).astype(np.float32)


def packed(values: NDArray[np.floating]) -> dict[str, Any]:
    """A matrix as plotly takes it in base64: a quarter of the size of JSON lists, and quicker to read."""
    raw = np.ascontiguousarray(values, dtype="<f4")
    return {
        "dtype": "f4",
        "bdata": base64.b64encode(raw.tobytes()).decode(),
        "shape": f"{raw.shape[0]}, {raw.shape[1]}",
    }


def _colourbar() -> dict[str, Any]:
    values = [1, 2, 4, 8]
    return {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1,
        "yanchor": "bottom",
        "ypad": 4,
        "tickvals": [float(np.log10(value)) for value in values],
        "ticktext": ["normal", "2×", "4×", "8×"],
        "thickness": 9,
        "outlinewidth": 0,
        "len": 210,
        "lenmode": "pixels",
        "ticks": "",
        "tickangle": 0,
        "tickfont": {"color": "$muted", "size": 11},
        "xpad": 0,
    }


def _ticks(count: int) -> list[int]:
    """At most about twenty names: all of a ViT-B's layers, every n-th of a deeper net's, first and last kept."""
    hop = -(-count // 20)
    return sorted({*range(0, count - hop, hop), 0, count - 1})


def short(layer: str) -> str:
    """A layer's name cut to what an axis has room for.

    >>> short("encoder.blocks.00"), short("patch_embed")
    ('…blocks.00', 'patch_embed')
    """
    return layer if len(layer) <= 11 else "…" + layer[-9:]


def _rings(view: View) -> dict[str, Any]:
    firsts = [episode.first for episode in view.episodes[-400:]]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [spike.peak for spike in firsts],
        "y": [spike.layer for spike in firsts],
        "customdata": [key_of(spike) for spike in firsts],
        "marker": {"symbol": "circle-open", "size": 11, "color": "#ffffff", "line": {"width": 2, "color": "#ffffff"}},
        "hovertext": [f"{spike.layer} {times(spike.ratio)}, from step {spike.onset:,}" for spike in firsts],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showlegend": False,
    }


def _words(view: View) -> str:
    high = view.columns.ratio.high
    frozen = [name for name, row in zip(view.layers, high, strict=True) if not finite(row).any()]
    if not finite(high).any():
        return "No layer has a gradient norm."
    where = np.unravel_index(np.argmax(np.where(finite(high), high, -1)), high.shape)
    step = view.columns.first[where[1]]
    top = f"{times(float(high[where]))} in {view.layers[where[0]]} at step {step:,}"
    text = f"{len(view.layers)} layers; the highest value is {top}."
    return text + (f" Not measured: {', '.join(frozen)}." if frozen else "")
