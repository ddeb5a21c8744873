"""Test whether spikes precede dips more than chance, in one run or in several seeds of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from ..probes import PrecursorReport

__all__ = ["PrecursorsCommand", "main"]


@dataclass(frozen=True)
class PrecursorsCommand:
    """Test whether spikes precede dips more than chance, in one run or in several seeds of it."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs, one a seed: folders that were given to --trace, or .csv or .npy files."""
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only this layer (give it several times for several). Fewer layers make a stronger test."""
    primary: str | None = None
    """Layer that the question is about; it pays little for the others. By default the one that sees the input."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of files: a column to search for spikes, and so a layer; by default all but steps and accuracy."""
    step_column: str | None = None
    """Of CSV files: the column with the step numbers; by default the one called step or iteration."""
    accuracy_column: str | None = None
    """The accuracy curve; by default knn_accuracy (or accuracy)."""
    lag: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Window before a dip in steps (give it several times for several); by default 8, 16, 32, 64 and 128."""
    detector: str = "robust"
    """Rule that finds the spikes."""
    surrogates: int = 999
    """Shifted data sets that tell what chance gives."""
    alpha: float = 0.05
    """Level of the verdict."""
    seed: int = 0
    """Of the random numbers."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock precursors`; exit code 0 whatever the answer is."""
    command = tyro.cli(PrecursorsCommand, args=list(argv), prog="foreshock precursors")
    from ..probes import precursors
    from ..probes.precursors import LAGS
    from ._sources import dips_of, open_source, spikes_of

    options = {"columns": command.column, "step_column": command.step_column, "curve": command.accuracy_column}
    sources = [open_source(run, **options) for run in command.runs]
    if not sources:
        raise ValueError("no run is given; give at least one folder or file")
    report = precursors(
        [spikes_of(source, command.column, detector=command.detector) for source in sources],
        [dips_of(source, command.accuracy_column) for source in sources],
        sources,  # pyright: ignore[reportArgumentType]
        layers=command.layer or None,
        primary=command.primary,
        lags=command.lag or LAGS,
        surrogates=command.surrogates,
        alpha=command.alpha,
        seed=command.seed,
    )
    if command.json:
        print(report.to_json())
        return 0
    from rich.console import Console

    console = Console()
    console.print(str(report), highlight=False, markup=False)
    if any(report.spikes.values()):
        console.print(best_rows(report))
    return 0


def best_rows(report: "PrecursorReport") -> "Table":
    """Each layer that has spikes at the lag where it does best; `false` counts false alarms per 10,000 steps."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Each layer at its best lag; all lags with --json", title_justify="left", header_style="bold")
    table.add_column("layer", no_wrap=True)
    for heading in ("lag", "spikes", "warned", "by chance", "false", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in [name for name, spikes in report.spikes.items() if spikes]:
        rows = [row for row in report.rows if row.layer == layer]
        row = min(rows, key=lambda row: (2.0 if row.p is None else row.p, -row.precursor.hits, row.lag))
        table.add_row(
            escape(layer),
            str(row.lag),
            str(report.spikes[layer]),
            f"{row.precursor.hits} of {row.precursor.trials}",
            "–" if row.p is None else f"{row.expected * row.precursor.trials:.1f}",
            f"{row.false_alarms:.1f}",
            "–" if row.p is None else f"{row.p:.3f}",
        )
    return table
