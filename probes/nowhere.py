"""Where the rows of a process go that measures its part with the others and writes nothing."""

from __future__ import annotations

__all__ = ["Nowhere"]


class Nowhere:
    """Stands in the place of a `TraceWriter`, and drops what it is given.

    >>> Nowhere().extend([0], {"loss": [0.5]})
    """

    def extend(self, steps: object, values: object) -> None:
        """Drop the rows."""

    def close(self, status: str = "finished", message: str = "") -> None:
        """Nothing is open."""
