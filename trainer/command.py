"""The command `foreshock train RECIPE [OPTIONS]`, the same as `python -m foreshock.trainer`."""

__all__ = ["main"]

import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .config import TrainConfig
from .recipes import load_recipe, recipe_names, summary

if TYPE_CHECKING:
    from .result import Result

USAGE = """usage: foreshock train RECIPE [OPTIONS]

Train MoCo v3 by a named recipe. Every field of its configuration is an option:

    foreshock train demo --trace runs/demo                       record every layer's gradient at every step
    foreshock train demo --data folder:PATH --optim.base-lr 0.02
    foreshock train demo --checkpoint-dir checkpoints/demo       Ctrl-C saves; --resume goes on from there
    foreshock train demo --help                                  every option of a recipe
    foreshock train --list                                       every recipe, and what it reproduces
"""


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv`; the result is the exit code.

    0: finished; 1: the loss is not finite, or the end could not be saved; 2: settings, data or files cannot be used
    (one sentence on stderr); 130: Ctrl-C. `--help` leaves by SystemExit(0).

    >>> main(["no-such-recipe"])
    2
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE + "\n" + _listing(), file=sys.stdout if argv else sys.stderr)
        if argv:
            raise SystemExit(0)
        return 2
    if argv[0] == "--list":
        print(_listing())
        return 0
    try:
        config = load_recipe(argv[0])
    except ValueError as error:
        return _refuse(error)
    return _train(argv, config)


def _train(argv: Sequence[str], default: TrainConfig) -> int:
    _spin_briefly()
    # Late, so that --list and a wrong name answer before torch is there.
    import torch
    import tyro

    from .data import DataError
    from .loop import train
    from .run import prepare

    name, *rest = argv
    try:
        config = tyro.cli(TrainConfig, default=default, args=rest, prog=f"foreshock train {name}")
    except SystemExit as stop:
        if not stop.code:
            raise
        return 2
    try:
        run = prepare(config)
    except (ValueError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return _refuse("interrupted before the first step.", 130)
    try:
        result = train(run)
    except DataError as error:
        return _refuse(error)
    except torch.OutOfMemoryError as error:
        return _refuse(f"{run.device} is out of memory ({str(error).splitlines()[0]}): lower --batch-size.", 1)
    except KeyboardInterrupt:
        return _refuse("interrupted at once: this step is lost.", 130)
    return _conclude(result, argv)


def _conclude(result: "Result", argv: Sequence[str]) -> int:
    """Print the report, and on stderr what a run that was cut short needs."""
    for line in result.lines():
        print(line)
    if result.status == "finished":
        return result.exit_code
    if result.status == "nonfinite":
        return _refuse(
            f"stopped: the loss is not finite since step {result.bad_since}; lower --optim.base-lr, freeze the patch "
            "projection (--method.patch-projection frozen), or record on with --nonfinite record.",
            result.exit_code,
        )
    again = shlex.join([*(a for a in argv if a not in ("--overwrite", "--resume")), "--resume"])
    remedy = (
        f"go on with: foreshock train {again}"
        if result.checkpoint
        else "nothing was saved: give --checkpoint-dir to be able to resume."
    )
    return _refuse(f"interrupted after {result.step} steps; {remedy}", result.exit_code)


def _spin_briefly() -> None:
    """Let torch's threads spin for microseconds, not milliseconds, while they wait for one another; before its import.

    On a machine that is busy otherwise, they keep one another off the cores: with two busy processes beside it on two
    cores, a step of the demo takes 3.0 s by default and 0.22 s so. On an idle machine both take 0.11 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _listing() -> str:
    names = recipe_names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {summary(name)}" for name in names)


def _refuse(reason: object, code: int = 2) -> int:
    print(f"foreshock train: {reason}", file=sys.stderr)
    return code
