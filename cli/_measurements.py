"""An evaluation as a table in the terminal, under the protocol that its numbers go with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..trainer.evaluate._measured import Measured

__all__ = ["print_measured"]


def print_measured(measured: "Measured", console: Console | None = None) -> None:
    """Print the protocol, the table of results, the row to report, and what the reader should know."""
    console = console or Console()
    for name, value in measured.protocol.items():
        console.print(f"[dim]{name.replace('_', ' ')}:[/] {escape(words(value))}", highlight=False, soft_wrap=True)
    table = Table(header_style="bold")
    columns = list(dict.fromkeys(name for row in measured.results for name in row))
    # A column that says "no" all the way down only takes room.
    columns = [name for name in columns if any(row.get(name) is not False for row in measured.results)]
    for name in columns:
        table.add_column(name.replace("_", " ") + (", %" if is_share(name) else ""), justify="right")
    for row in measured.results:
        table.add_row(*(words(row.get(name), name) for name in columns))
    console.print(table)
    console.print(f"[bold]{escape(headline(measured.headline))}[/]", highlight=False, soft_wrap=True)
    for note in measured.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False, soft_wrap=True)


def headline(row: Mapping[str, Any]) -> str:
    """The row to report as a sentence, its accuracy with the 95 % interval.

    >>> headline({"k": 200, "T": 0.07, "accuracy": 0.75, "low": 0.7415, "high": 0.7583})
    'accuracy 75.00 % (95 % interval 74.15 to 75.83) at k 200, T 0.07'
    """
    low, high = (100 * row[name] for name in ("low", "high"))
    rest = ", ".join(f"{name.replace('_', ' ')} {words(row[name])}" for name in row if name not in SHARES)
    where = f" at {rest}" if rest else ""
    return f"accuracy {100 * row['accuracy']:.2f} % (95 % interval {low:.2f} to {high:.2f}){where}"


SHARES = ("accuracy", "low", "high")


def is_share(name: str) -> bool:
    """Whether the column `name` holds shares of the images, which are printed in per cent."""
    return name in SHARES or name.endswith(("_last", "_best"))


def words(value: object, name: str = "") -> str:
    """A value as a cell of the table.

    >>> words(0.5, "accuracy"), words(0.07, "T"), words(None), words([1, 2.5])
    ('50.00', '0.07', '–', '1, 2.5')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    if isinstance(value, float):
        return f"{100 * value:.2f}" if is_share(name) else f"{value:g}"
    return str(value)
