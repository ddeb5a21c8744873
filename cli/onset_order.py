"""Tell which layer of a run rises first, and by how many steps a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["OnsetOrderCommand", "main"]

MOST_ROWS = 20


@dataclass(frozen=True)
class OnsetOrderCommand:
    """Tell which layer of a run rises first, and by how many steps a layer."""

    run: tyro.conf.Positional[Path]
    """The run: the folder that was given to --trace, or a .csv or .npy file with a column (row) a layer."""
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only this layer (give it several times for several)."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of a file: a column that is a layer; by default all but steps and accuracy."""
    step_column: str | None = None
    """Of a CSV file: the column with the step numbers; by default the one called step or iteration."""
    within: int = 32
    """An onset at most this many steps after the one before belongs to the same event."""
    surrogates: int = 999
    """Simulated data sets in which all layers rise at once."""
    seed: int = 0
    """Of the random numbers."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock onset-order`; exit code 0 whatever the answer is."""
    command = tyro.cli(OnsetOrderCommand, args=list(argv), prog="foreshock onset-order")
    from ..probes import onset_order
    from ._sources import open_source, spikes_of

    source = open_source(command.run, columns=command.column, step_column=command.step_column)
    layer = list(command.layer) or None
    order = onset_order(
        source,  # pyright: ignore[reportArgumentType]
        [spike for spike in spikes_of(source, layer=layer) if not spike.warmup],
        layer=layer,
        within=command.within,
        surrogates=command.surrogates,
        seed=command.seed,
    )
    if command.json:
        print(order.to_json())
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(str(order), highlight=False, markup=False)
    table = Table(title="First in how many events", title_justify="left", header_style="bold")
    table.add_column("layer")
    table.add_column("share of events", justify="right")
    for name, share in sorted(order.first.items(), key=lambda pair: -pair[1])[:MOST_ROWS]:
        table.add_row(escape(name), f"{share:.0%}")
    if order.onsets:
        console.print(table)
    return 0
