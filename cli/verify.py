"""Check runs against the format of a trace: every chunk, every step, every cell of the overviews."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

__all__ = ["VerifyCommand", "main"]


@dataclass(frozen=True)
class VerifyCommand:
    """Check runs against the format of a trace: every chunk, every step, every cell of the overviews.

    Exit codes: 0, all is well; 1, some run has problems, each told with its place; 2, there is no run to check.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """The runs: folders that were given to --trace, or URLs."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock verify`; exit code 0 or 1, and 2 for bad input."""
    command = tyro.cli(VerifyCommand, args=list(argv), prog="foreshock verify")
    from ..traces.verify import verify

    if not command.runs:
        raise ValueError("no run is given; give at least one folder")
    found = {run: verify(run) for run in command.runs}
    if command.json:
        told = {run: [dataclasses.asdict(problem) for problem in problems] for run, problems in found.items()}
        print(json.dumps({"ok": not any(found.values()), "problems": told}))
    else:
        for run, problems in found.items():
            count = "1 problem" if len(problems) == 1 else f"{len(problems) or 'no'} problems"
            print("\n  ".join([f"{run}: {count}", *map(str, problems)]))
    return 1 if any(found.values()) else 0
