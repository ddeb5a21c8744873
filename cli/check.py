"""Hold runs against limits on spikes, dips and accuracy; exit code 1 if one is exceeded, for a CI job."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["CheckCommand", "main"]


@dataclass(frozen=True)
class CheckCommand:
    """Hold runs against limits on spikes, dips and accuracy.

    Exit codes: 0, every limit holds in every run; 1, some limit is exceeded; 2, bad input, or something that a limit is
    on was not measured. Spikes in the warm-up don't count.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs: folders that were given to --trace, or .csv or .npy files."""
    max_spikes: int | None = None
    """Most spikes, summed over the layers looked at."""
    max_ratio: float | None = None
    """Largest rise of a spike over its baseline (times)."""
    max_nonfinite: int | None = None
    """Most events with a gradient that is infinite or not a number."""
    max_spike_score: float | None = None
    """Largest share of steps that lie in a spike of some layer, from 0 to 1."""
    max_dips: int | None = None
    """Most dips of the accuracy."""
    max_dip: float | None = None
    """Deepest dip (fraction: 0.05 is five points)."""
    min_accuracy: float | None = None
    """Least accuracy at the end: median of the last five evaluations (fraction)."""
    finished: bool = False
    """The run must have ended as planned: neither failed nor stalled nor still running."""
    layer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Only this layer's spikes (give it several times for several)."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of a file: a column to search for spikes; by default all but steps and accuracy. Of a run: a series."""
    step_column: str | None = None
    """Of a CSV file: the column with the step numbers; by default the one called step or iteration."""
    accuracy_column: str | None = None
    """The accuracy curve; by default knn_accuracy (or accuracy)."""
    detector: str = "robust"
    """Rule that finds the spikes."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock check`; exit code 0 or 1, and 2 for bad input."""
    command = tyro.cli(CheckCommand, args=list(argv), prog="foreshock check")
    from ..probes.records import plain
    from ._limits import check

    if not command.runs:
        raise ValueError("no run is given; give at least one folder or file")
    checks = [one for run in command.runs for one in check(run, command)]
    ok = all(one.ok for one in checks)
    if command.json:
        told = {"ok": ok, "checks": [dataclasses.asdict(one) for one in checks]}
        print(json.dumps(plain(told), allow_nan=False))
    else:
        from ._limits import print_checks

        print_checks(checks)
    return 0 if ok else 1
