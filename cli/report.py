"""Write a run as one self-contained HTML file that opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["ReportCommand", "main"]


@dataclass(frozen=True)
class ReportCommand:
    """Write a run as one self-contained HTML file that opens offline."""

    run: tyro.conf.Positional[Path]
    """The run: the folder that was given to --trace."""
    out: Path | None = None
    """File to write; by default the run's name with -report.html beside the run."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock report`."""
    command = tyro.cli(ReportCommand, args=list(argv), prog="foreshock report")
    from ..dashboard.report import write_report
    from ..traces import open_trace

    trace = open_trace(command.run)
    out = command.out or trace.path.with_name(f"{trace.path.name}-report.html")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"{out} cannot be written, since {out.absolute().parent} is not a folder: make it first.")
    write_report(trace, out)
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB, opens offline)")
    return 0
