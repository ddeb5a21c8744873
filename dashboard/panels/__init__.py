"""The panels of the dashboard and the report, one a file: the folder is the registry.

A panel is a module with

    TITLE: str      heading
    HELP: str       one sentence on how to read it
    ORDER: int      place from the top
    PLACE: str      "main" (shares the step axis) or "side"
    HEIGHT: int     pixels of its figure; 0 for none
    draw(view: View) -> Drawn

and `draw` must do with a run of any length, also none, with layers that are NaN, and without any scalar.
"""

from __future__ import annotations

__all__ = ["Panel", "panel", "panels"]

import importlib
import pkgutil
from functools import cache
from typing import Protocol, cast

from ..view import Drawn, View


class Panel(Protocol):
    """What a panel's module holds."""

    TITLE: str
    HELP: str
    ORDER: int
    PLACE: str
    HEIGHT: int

    def draw(self, view: View, /) -> Drawn:
        """The panel's figure, tables and words for this look at a run."""
        ...


@cache
def panels() -> dict[str, Panel]:
    """Every panel by its file's name, in the order of the page."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found[module.name] = cast(Panel, importlib.import_module(f"{__name__}.{module.name}"))
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))


def panel(name: str) -> Panel:
    """The panel called `name`; ValueError lists the known ones.

    >>> panel("knn").TITLE
    'kNN accuracy'
    """
    try:
        return panels()[name]
    except KeyError:
        raise ValueError(f"no panel is called {name!r}: choose one of {', '.join(panels())}") from None
