"""Colours and the plotly look, in light and dark; a figure names a colour by a token such as `$first`.

The browser puts the token's colour in (assets/draw.js), so one figure serves both schemes and a switch needs
no request. Hues are of Okabe and Ito's colour-blind-safe set, lightened or darkened for contrast.
"""

from __future__ import annotations

__all__ = ["FIRST", "HEAT_CEILING", "HEAT_FLOOR", "LAST", "MIDDLE", "SCHEMES", "SERIES", "depth_colour", "faint"]

from typing import Any

FIRST, MIDDLE, LAST = "$first", "$middle", "$last"
SERIES = tuple(f"$s{i}" for i in range(7))  # for lines that have no colour of their own

# The heat map's colours span from a little below a layer's normal norm to eight times it: calm stays dark, and beyond
# only "very high" matters.
HEAT_FLOOR, HEAT_CEILING = 0.95, 8.0

_INFERNO = [
    "#140b34",
    "#390963",
    "#5f136e",
    "#85216b",
    "#a92e5e",
    "#cb4149",
    "#e65d2f",
    "#f78311",
    "#fcad12",
    "#f5db4c",
]

_SANS = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, sans-serif"

_LIGHT = {
    "$ink": "#1f2733",
    "$muted": "#5b6675",
    "$grid": "#e6e9ee",
    "$line": "#c4cad3",
    "$surface": "#ffffff",
    "$frozen": "#d5d8dd",
    "$first": "#c8510a",
    "$middle": "#8a6fb0",
    "$last": "#00795c",
    "$knn": "#0067a8",
    "$loss": "#4a5563",
    "$dip": "#b3356f",
    "$s0": "#0067a8",
    "$s1": "#c8510a",
    "$s2": "#00795c",
    "$s3": "#a8417d",
    "$s4": "#8a6a00",
    "$s5": "#2f84b5",
    "$s6": "#5b6675",
}
_DARK = {
    "$ink": "#e6e9ee",
    "$muted": "#98a3b3",
    "$grid": "#2a3038",
    "$line": "#48515d",
    "$surface": "#171b21",
    "$frozen": "#4b525c",
    "$first": "#ff9a4d",
    "$middle": "#b79be0",
    "$last": "#3fc9a2",
    "$knn": "#62b6f0",
    "$loss": "#b3bdca",
    "$dip": "#f08ab8",
    "$s0": "#62b6f0",
    "$s1": "#ff9a4d",
    "$s2": "#3fc9a2",
    "$s3": "#e79bc4",
    "$s4": "#e3c94c",
    "$s5": "#9ad4f5",
    "$s6": "#98a3b3",
}


def _scheme(colours: dict[str, str]) -> dict[str, Any]:
    tokens: dict[str, Any] = dict(colours)
    tokens["$heat"] = _scale(_INFERNO)
    axis = {
        "gridcolor": "$grid",
        "linecolor": "$line",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "$line",
        "tickfont": {"color": "$muted", "size": 12},
    }
    layout = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _SANS, "size": 12, "color": "$ink"},
        "hoverlabel": {"bgcolor": "$surface", "bordercolor": "$line", "font": {"color": "$ink", "family": _SANS}},
        "xaxis": axis,
        "yaxis": axis,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "$muted", "activecolor": "$ink"},
        "legend": {"font": {"color": "$muted", "size": 12}, "bgcolor": "rgba(0,0,0,0)"},
    }
    return {"tokens": tokens, "layout": layout}


def _scale(colours: list[str]) -> list[list[Any]]:
    return [[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)]


def faint(token: str, alpha: float) -> str:
    """The colour of `token` with an opacity: the browser reads `$first/0.2`.

    >>> faint("$first", 0.2)
    '$first/0.2'
    """
    return f"{token}/{alpha}"


def depth_colour(share: float) -> str:
    """A colour between the first layer's and the last layer's, by depth (0 first, 1 last).

    >>> depth_colour(0.25)
    '$first~$last~0.25'
    """
    return f"{FIRST}~{LAST}~{share:.3g}"


SCHEMES: dict[str, dict[str, Any]] = {"light": _scheme(_LIGHT), "dark": _scheme(_DARK)}
