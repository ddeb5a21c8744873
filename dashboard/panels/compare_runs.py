"""A row for every compared run: group, spikes, dips, final accuracy (in per cent), steps beyond the warm-up."""

from __future__ import annotations

from ..comparison import Comparison
from ..view import Drawn, Table

TITLE = "The runs"
HELP = "Steps beyond the warm-up. A spike counts once, however many layers it is in."
ORDER = 350
PLACE = "compare"
HEIGHT = 0


def draw(comparison: Comparison) -> Drawn:
    """The table, in the order of the groups."""

    def number(value: float | None, scale: float = 1, digits: int = 0) -> str:
        return "–" if value is None else f"{scale * value:.{digits}f}"

    grouped = comparison.by != "run"
    rows = [
        (
            m.run,
            *((group.name,) if grouped else ()),
            number(m.spikes),
            number(m.dips),
            number(m.final, 100, 1),
            f"{m.counted:,}",
            m.state,
        )
        for group in comparison.groups
        for m in group.members
    ]
    head = ("Run", *((comparison.by,) if grouped else ()), "Spikes", "Dips", "Final kNN, %", "Steps", "State")
    return Drawn(tables=(Table("Runs", head, tuple(rows), note="" if rows else "No run is chosen."),))
