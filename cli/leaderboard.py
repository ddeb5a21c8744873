"""Rank a run's signals by the dips that they warn of, all at the same number of false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["LeaderboardCommand", "main"]

MOST_ROWS = 20


@dataclass(frozen=True)
class LeaderboardCommand:
    """Rank a run's signals by the dips that they warn of, all at the same number of false alarms."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs, one a seed: folders that were given to --trace, or .csv or .npy files."""
    signal: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only this series or scalar (give it several times for several); by default all that were measured."""
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only this layer of the layer series (give it several times for several)."""
    step_column: str | None = None
    """Of CSV files: the column with the step numbers; by default the one called step or iteration."""
    accuracy_column: str | None = None
    """The accuracy curve; by default knn_accuracy (or accuracy)."""
    lag: int = 64
    """Steps before a dip in which an alarm is a warning."""
    false_alarms: float = 10.0
    """How many each signal may give, per 10,000 steps."""
    surrogates: int = 999
    """Shifted data sets that tell what chance gives."""
    alpha: float = 0.05
    """Level of the verdict."""
    seed: int = 0
    """Of the random numbers."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock leaderboard`; exit code 0 whatever the answer is."""
    command = tyro.cli(LeaderboardCommand, args=list(argv), prog="foreshock leaderboard")
    from ..probes import leaderboard
    from ._sources import curve_of, dips_of, open_source

    if not command.runs:
        raise ValueError("no run is given; give at least one folder or file")
    step_column, curve = command.step_column, command.accuracy_column
    sources = [open_source(run, step_column=step_column, curve=curve) for run in command.runs]
    board = leaderboard(
        sources,  # pyright: ignore[reportArgumentType]
        [dips_of(source, curve) for source in sources],
        signals=command.signal or None,
        layers=command.layer or None,
        curve=curve_of(sources[0], curve),
        lag=command.lag,
        false_alarms=command.false_alarms,
        surrogates=command.surrogates,
        alpha=command.alpha,
        seed=command.seed,
    )
    if command.json:
        print(board.to_json())
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..probes.lead_time import in_words

    console = Console()
    console.print(str(board), highlight=False, markup=False)
    table = Table(title=f"The first {MOST_ROWS}; all with --json", title_justify="left", header_style="bold")
    table.add_column("signal", no_wrap=True)
    for heading in ("warned", "by chance", "steps ahead", "skill", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for signal in board.signals[:MOST_ROWS]:
        numbers = (signal.expected * signal.warned.trials, signal.skill, signal.p)
        chance, skill, p = (
            "–" if value is None or value != value else f"{value:.{places}f}"
            for value, places in zip(numbers, (1, 2, 3), strict=True)
        )
        warned = f"{signal.warned.hits} of {signal.warned.trials}"
        table.add_row(escape(signal.name), warned, chance, in_words(signal.lead), skill, p)
    if board.signals:
        console.print(table)
    return 0
