"""List the accuracy dips of a run, or of a CSV file or array."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["DipsCommand", "main"]


@dataclass(frozen=True)
class DipsCommand:
    """List the accuracy dips of a run, or of a CSV file or array."""

    run: tyro.conf.Positional[Path]
    """The run: the folder that was given to --trace, or a .csv or .npy file."""
    column: str | None = None
    """The accuracy curve: a series of the run, or a column of the file. By default knn_accuracy (or accuracy)."""
    step_column: str | None = None
    """Of a CSV file: the column with the step numbers; by default the one called step or iteration."""
    queries: float | None = None
    """Images behind one evaluation; a run knows its own."""
    points: float | None = None
    """Smallest fall that counts (fraction: 0.01 is one point)."""
    sigmas: float | None = None
    """Smallest fall that counts, in units of the curve's own scatter."""
    pool: int | None = None
    """Average so many evaluations into one: finds smaller dips, later."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock dips`; exit code 0 whether or not there are any."""
    command = tyro.cli(DipsCommand, args=list(argv), prog="foreshock dips")
    from ..probes.records import plain
    from ._sources import dips_of, open_source

    source = open_source(command.run, step_column=command.step_column, curve=command.column)
    names = ("queries", "points", "sigmas", "pool")
    options = {name: value for name in names if (value := getattr(command, name)) is not None}
    dips = dips_of(source, command.column, **options)
    if command.json:
        told = {"run": str(source.path), "steps": len(source), "dips": [dataclasses.asdict(dip) for dip in dips]}
        print(json.dumps(plain(told), allow_nan=False))
        return 0
    from rich.console import Console
    from rich.markup import escape

    from ._findings import count, dip_table

    console = Console()
    console.print(f"[bold]{escape(source.name)}[/]: {len(source):,} steps, {count(len(dips), 'dip')}", highlight=False)
    if dips:
        console.print(dip_table(dips))
    return 0
