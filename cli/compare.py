"""Compare runs with an intervention to runs without it: rates of spikes and dips, and final accuracy, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["CompareCommand", "main"]


@dataclass(frozen=True)
class CompareCommand:
    """Compare runs with an intervention to runs without it: rates of spikes and dips, and final accuracy."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs with the intervention, one a seed: folders that were given to --trace, or .csv or .npy files."""
    versus: tuple[Path, ...] = ()
    """The runs without it, one a seed."""
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Count spikes in this layer only (repeatable); by default in all that every run measured."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of files: a column to search for spikes, and so a layer; by default all but steps and accuracy."""
    step_column: str | None = None
    """Of CSV files: the column with the step numbers; by default the one called step or iteration."""
    accuracy_column: str | None = None
    """The accuracy curve; by default knn_accuracy (or accuracy)."""
    within: int = 32
    """Spikes at most this many steps apart are one event, whatever their layers."""
    detector: str = "robust"
    """Rule that finds the spikes."""
    alpha: float = 0.05
    """Level of the verdict."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock compare`; exit code 0 whatever the answer is."""
    command = tyro.cli(CompareCommand, args=list(argv), prog="foreshock compare")
    from ..probes import compare
    from ._sources import curve_of, open_source

    if not command.runs or not command.versus:
        raise ValueError("one side has no runs; give both: foreshock compare RUN... --versus RUN...")
    options = {"columns": command.column, "step_column": command.step_column, "curve": command.accuracy_column}
    sides = [[open_source(run, **options) for run in runs] for runs in (command.runs, command.versus)]
    found = compare(
        sides[0],  # pyright: ignore[reportArgumentType]
        sides[1],  # pyright: ignore[reportArgumentType]
        layers=command.layer or None,
        curve=curve_of(sides[0][0], command.accuracy_column) or "knn_accuracy",
        within=command.within,
        detector=command.detector,
        alpha=command.alpha,
    )
    if command.json:
        print(found.to_json())
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(str(found), highlight=False, markup=False)
    table = Table(title="With and without, per 10,000 steps", title_justify="left", header_style="bold")
    table.add_column("", no_wrap=True)
    for heading in ("with", "without", "effect", "95 %", "p", "p, seeds permuted"):
        table.add_column(heading, justify="right")
    for row in found.table():
        numbers = [row["a"], row["b"], row["effect"], row["p"], row["seeds_p"]]
        a, b, effect, p, seeds_p = ("–" if value is None else f"{value:.3g}" for value in numbers)
        table.add_row(row["quantity"], a, b, effect, f"{row['low']:.3g} to {row['high']:.3g}", p, seeds_p)
    console.print(table)
    return 0
