"""The panels of the dashboard and the report, one a file: the folder is the registry.

A panel is a module with

    TITLE: str      heading
    HELP: str       one sentence on how to read it
    ORDER: int      place from the top
    PLACE: str      where it stands, see below
    HEIGHT: int     pixels of its figure; 0 for none
    draw(shown) -> Drawn
    SERIES: tuple[str, ...]    the scalars it draws, of those that a trace may hold; may lack if there are none
    LAYERS: str     "all", or "shown" (those chosen to be lines): whose gradient norms it draws; may lack likewise

and `draw` must do with a run of any length, also none, with layers that are NaN, and without any scalar. What it is
given depends on the place:

    "main"         the run's view, along the shared step axis      a `View`
    "side"         the run's view, beside the charts               a `View`
    "event"        the event's view, steps since its onset         a `View` with its `event`
    "precursors"   the precursor view, each with axes of its own   an `Evidence`
    "signals"      the same, below: what needs every value         a `Signals`
    "compare"      the compare view, several runs                  a `Comparison`
"""

from __future__ import annotations

__all__ = ["Panel", "panel", "panels", "panels_in", "scalars"]

import importlib
import pkgutil
from functools import cache
from typing import Any, Protocol, cast

from ..view import Drawn


class Panel(Protocol):
    """What a panel's module holds."""

    TITLE: str
    HELP: str
    ORDER: int
    PLACE: str
    HEIGHT: int

    def draw(self, shown: Any, /) -> Drawn:
        """The panel's figure, tables and words for what is to be shown."""
        ...


@cache
def panels() -> dict[str, Panel]:
    """Every panel by its file's name, in the order of the page."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found[module.name] = cast(Panel, importlib.import_module(f"{__name__}.{module.name}"))
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))


def panels_in(*places: str) -> dict[str, Panel]:
    """The panels that stand in one of `places`.

    >>> list(panels_in("side"))
    ['neighbourhood', 'events']
    """
    return {name: found for name, found in panels().items() if found.PLACE in places}


def scalars() -> tuple[str, ...]:
    """Every scalar that some panel draws."""
    return tuple(dict.fromkeys(name for found in panels().values() for name in getattr(found, "SERIES", ())))


def panel(name: str) -> Panel:
    """The panel called `name`; ValueError lists the known ones.

    >>> panel("knn").TITLE
    'kNN accuracy'
    """
    try:
        return panels()[name]
    except KeyError:
        raise ValueError(f"no panel is called {name!r}: choose one of {', '.join(panels())}") from None
