"""The views of the dashboard, one a file: the folder is the registry.

A view is a module with

    TITLE: str     its name in the navigation
    ORDER: int     place in it
    layout() -> list[Component]        what stands on the page; it is there from the start, and hidden until chosen
    register(app: Dash, runs: Runs)    its callbacks on the server

Charts are not drawn here but in `panels`, a file each; a view gives them a place.
"""

from __future__ import annotations

__all__ = ["ViewModule", "views"]

import importlib
import pkgutil
from functools import cache
from typing import Any, Protocol, cast

from dash import Dash

from ..follow import Runs


class ViewModule(Protocol):
    """What a view's module holds."""

    TITLE: str
    ORDER: int

    def layout(self) -> list[Any]:
        """The components of the view."""
        ...

    def register(self, app: Dash, runs: Runs) -> None:
        """Add the view's callbacks to `app`."""
        ...


@cache
def views() -> dict[str, ViewModule]:
    """Every view by its file's name, in the order of the navigation.

    >>> list(views())[:2]
    ['runs', 'run']
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found[module.name] = cast(ViewModule, importlib.import_module(f"{__name__}.{module.name}"))
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))
