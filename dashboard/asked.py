"""What a browser asks for: every field of the right type and in range, whatever was sent."""

from __future__ import annotations

__all__ = ["COLUMNS", "Asked", "names_in"]

from collections.abc import Mapping
from typing import Any

from .columns import SCALES
from .pushes import Cursor, Look

COLUMNS = (200, 2000)
NAMES = 64  # so many layers or runs are taken from one request


class Asked:
    """A browser's question; anything of the wrong type counts as not given."""

    def __init__(self, data: object) -> None:
        given: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self.run: str = _text(given.get("run"))
        self.page: str = _text(given.get("page"))[:64]
        self.event: str = _text(given.get("event"))
        self.layer: str = _text(given.get("layer"))
        self.cursor = Cursor.parse(given.get("cursor"))
        width, scale = given.get("columns"), given.get("scale")
        columns = min(max(width, COLUMNS[0]), COLUMNS[1]) if type(width) is int else 1000
        chosen = scale if isinstance(scale, str) and scale in SCALES else SCALES[0]
        self.look = Look(columns, names_in(given.get("layers")), chosen)
        window: Any = given.get("window")
        fine = isinstance(window, list) and len(window) == 2 and all(_is_number(edge) for edge in window)
        self.window = (float(window[0]), float(window[1])) if fine else None


def names_in(value: object) -> tuple[str, ...]:
    """The texts in a list, each once; none if it is no list.

    >>> names_in(["a", 3, "a", "b"]), names_in("ab")
    (('a', 'b'), ())
    """
    given = value if isinstance(value, list) else []
    return tuple(dict.fromkeys(name for name in given if isinstance(name, str)))[:NAMES]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e18  # False for NaN
