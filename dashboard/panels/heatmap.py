"""Every layer by step: relative gradient norm, robust z or the norm itself as colour; grey where not measured."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..figures import COLUMNS, MARGIN, empty, finite, layout
from ..names import brief, plain
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
LAYERS = "all"


@dataclass(frozen=True)
class Scale:
    """How values become levels: `log` is the base (0: none), `low` and `step` those of the levels, in `bits` bits."""

    log: int
    low: float
    step: float
    bits: int
    unit: str

    def of(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values on the scale, infinity far above it; NaN stays NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.log(values) / np.log(self.log) if self.log else values
        return np.where(np.isnan(scaled), np.nan, np.clip(scaled, -1e9, 1e9))


# A level of the ratio is 2.7 %, of the norm 0.1 %: what the pointer is told is as exact as a colour can be read.
SCALES = {
    "ratio": Scale(2, -2.0, 10 / 254, 8, "×"),
    "z": Scale(0, -6.0, 0.25, 8, " σ"),
    "norm": Scale(10, -16.0, 32 / 65534, 16, ""),
}


def draw(view: View) -> Drawn:
    """The map of the columns' maxima on the view's scale."""
    if not view.layers or not view.rows:
        text = "No gradient norm yet."
        return Drawn(empty(view, text), words=text)
    columns, scale = view.columns, SCALES[view.scale]
    heat = scale.of(columns.heat)
    low, high, ticks = _range(view.scale, heat)
    traced = {
        "type": "heatmap",
        "meta": COLUMNS,
        "x": numbers(columns.steps, 9),
        "y": list(view.layers),
        "z": packed(heat, scale),
        "zmin": low,
        "zmax": high,
        "zsmooth": False,
        "colorscale": "$heat",
        "colorbar": _colourbar(ticks),
        "hovertemplate": f"%{{y}} at step %{{x:,.0f}}: %{{customdata:.3~g}}{scale.unit}<extra></extra>",
        "hoverongaps": False,
    }
    names = brief(view.layers)
    marked = _ticks(len(view.layers))
    shown = [view.layers[i] for i in marked]
    axis = {
        "type": "category",
        "range": [len(view.layers) - 0.5, -0.5],  # the first layer on top
        "tickvals": shown,
        "ticktext": [plain(names[i]) for i in marked],
        "fixedrange": len(view.layers) < 40,
        "showgrid": False,
    }
    drawn = layout(view, axis, plot_bgcolor="$frozen", hovermode="closest", margin={**MARGIN, "t": 38})
    drawn["xaxis"] |= {"showgrid": False, "title": {"text": "step", "standoff": 22}}
    return Drawn({"data": [traced, _rings(view)], "layout": drawn}, words=_words(view))


def packed(values: NDArray[np.floating], scale: Scale) -> dict[str, Any]:
    """A matrix as levels in base64, a tenth of the size of JSON lists; level 0 is NaN. The browser turns it back.

    >>> packed(np.array([[0.0, np.nan]]), SCALES["z"])["levels"], base64.b64decode("GQA=").hex()
    ('GQA=', '1900')
    """
    top = 2**scale.bits - 1
    with np.errstate(invalid="ignore"):
        levels = np.clip(np.rint((values - scale.low) / scale.step) + 1, 1, top)
    raw = np.where(np.isnan(values), 0, levels).astype("<u2" if scale.bits == 16 else "u1")
    return {
        "levels": base64.b64encode(np.ascontiguousarray(raw).tobytes()).decode(),
        "shape": list(values.shape),
        "bits": scale.bits,
        "low": scale.low,
        "step": scale.step,
        "log": scale.log,
    }


def _range(name: str, heat: NDArray[np.floating]) -> tuple[float, float, dict[float, str]]:
    """Ends of the colours, and the ticks beside them."""
    if name == "ratio":
        ticks = {0.0: "normal", 1.0: "2×", 2.0: "4×", 3.0: "8×"}
        return float(np.log2(HEAT_FLOOR)), float(np.log2(HEAT_CEILING)), ticks
    if name == "z":
        return 0.0, 12.0, {0.0: "usual", 4.0: "4 σ", 8.0: "8 σ", 12.0: "12 σ"}
    seen = heat[np.abs(heat) < 30]
    low, high = (float(edge) for edge in np.quantile(seen, [0.005, 0.9995])) if seen.size else (-3.0, 1.0)
    high = max(high, low + 0.1)
    return low, high, {tick: f"{10**tick:.2g}" for tick in np.linspace(low, high, 4).round(2).tolist()}


def _colourbar(ticks: dict[float, str]) -> dict[str, Any]:
    return {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1,
        "yanchor": "bottom",
        "ypad": 4,
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
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


def _rings(view: View) -> dict[str, Any]:
    firsts = [episode.first for episode in view.episodes[-400:]]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [spike.peak for spike in firsts],
        "y": [spike.layer for spike in firsts],
        "customdata": [key_of(spike) for spike in firsts],
        "marker": {"symbol": "circle-open", "size": 11, "color": "#ffffff", "line": {"width": 2, "color": "#ffffff"}},
        "hovertext": [f"{plain(spike.layer)} {times(spike.ratio)}, from step {spike.onset:,}" for spike in firsts],
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
