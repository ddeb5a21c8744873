"""The command `foreshock train RECIPE [OPTIONS]`, the same as `python -m foreshock.trainer`."""

__all__ = ["main", "spin_briefly"]

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from .config import TrainConfig
from .recipes import load_recipe, recipe_groups, recipe_names

if TYPE_CHECKING:
    from .result import Result

USAGE = """usage: foreshock train RECIPE [OPTIONS]

Train MoCo v3, SimCLR, BYOL or SwAV by a named recipe. Every field of its configuration is an option:

    foreshock train demo --trace runs/demo                       record every layer's gradient at every step
    foreshock train demo --data folder:PATH --optim.base-lr 0.02
    foreshock train demo --checkpoint-dir checkpoints/demo       Ctrl-C saves; --resume goes on from there
    foreshock train demo --help                                  every option of a recipe
    foreshock train --list [TEXT]                                every recipe (with TEXT in it), and what it reproduces

demo and the recipes called fashion-* suit a CPU; the others reproduce the figures and tables of arXiv 2104.02057.
Several GPUs or machines: torchrun --nproc-per-node 8 -m foreshock.trainer RECIPE [OPTIONS]."""


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv`; the result is the exit code.

    0: finished; 1: the loss is not finite, the end could not be saved, or another process is lost; 2: settings, data or
    files cannot be used (one sentence on stderr); 130: Ctrl-C. `--help` leaves by SystemExit(0). Of several processes
    rank 0 speaks, and whichever fails.

    >>> main(["no-such-recipe"])
    2
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if argv else sys.stderr)
        if argv:
            raise SystemExit(0)
        return 2
    if argv[0] == "--list":
        return _list(" ".join(argv[1:]))
    try:
        config = load_recipe(argv[0])
    except ValueError as error:
        return _refuse(error)
    return _train(argv, config)


def _train(argv: Sequence[str], default: TrainConfig) -> int:
    spin_briefly()
    # Late, so that --list and a wrong name answer before torch is there.
    import torch
    import tyro

    from .data import DataError
    from .distributed import PeerError, leave, lost_peer
    from .loop import train
    from .run import prepare

    name, *rest = argv
    try:
        with _rank_0_speaks():
            config = tyro.cli(TrainConfig, default=default, args=rest, prog=f"foreshock train {name}")
    except SystemExit as stop:
        if not stop.code:
            raise
        return 2
    try:
        run = prepare(config)
    except PeerError:
        return 2
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
    except RuntimeError as error:
        reason = lost_peer(error) if run.processes.count > 1 else None
        if reason is None:
            raise
        return _refuse(
            f"process {run.processes.rank} has lost another one ({reason}): look for its message, and go on by "
            "--resume from the last checkpoint.",
            1,
        )
    except KeyboardInterrupt:
        return _refuse("interrupted at once: this step is lost.", 130)
    main = run.processes.main
    del run
    leave()
    return _conclude(result, argv) if main else result.exit_code


def _conclude(result: "Result", argv: Sequence[str]) -> int:
    """Print the report, and on stderr what a run that was cut short needs."""
    for line in result.lines():
        print(line)
    if result.status == "finished":
        return result.exit_code
    if result.status == "nonfinite":
        return _refuse(
            f"stopped: {result.trouble}; lower --optim.base-lr, freeze the patch "
            "projection (--method.patch-projection frozen), or go on with --nonfinite skip or record.",
            result.exit_code,
        )
    again = shlex.join([*(a for a in argv if a not in ("--overwrite", "--resume")), "--resume"])
    remedy = (
        f"go on with: {_command()} {again}"
        if result.checkpoint
        else "nothing was saved: give --checkpoint-dir to be able to resume."
    )
    return _refuse(f"interrupted after {result.step} steps; {remedy}", result.exit_code)


@contextmanager
def _rank_0_speaks() -> Iterator[None]:
    """Of several processes that would all print the same only the first does."""
    if os.environ.get("RANK", "0") == "0":
        yield
    else:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield


def _command() -> str:
    """How this command was started."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return "foreshock train"
    return f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', 1)} -m foreshock.trainer"


def spin_briefly() -> None:
    """Let torch's threads spin for microseconds, not milliseconds, while they wait for one another; before its import.

    On a machine that is busy otherwise, they keep one another off the cores: with two busy processes beside it on two
    cores, a step of the demo takes 3.0 s by default and 0.22 s so. On an idle machine both take 0.11 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _list(text: str) -> int:
    """Print the recipes with `text` in their name, group or description, a table a group."""
    from rich.console import Console
    from rich.table import Table

    found = False
    # A pipe gets every column whole; a terminal wraps them.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    width = max(map(len, recipe_names()))
    for title, group in recipe_groups().items():
        rows = [(name, r) for name, r in group.items() if text.lower() in f"{title} {name} {r.reproduces}".lower()]
        if not rows:
            continue
        table = Table(box=None, show_header=not found, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("recipe", width=width, no_wrap=True)
        for name, size in (("reproduces", 62), ("took", 26), ("published, %", 24)):
            table.add_column(name, width=size)
        for name, recipe in rows:
            table.add_row(name, recipe.reproduces, recipe.hardware or "-", recipe.published or "-")
        console.print(f"\n{title}", style="bold", markup=False)
        console.print(table)
        found = True
    return 0 if found else _refuse(f"no recipe has {text!r} in it: `foreshock train --list` shows all.")


def _refuse(reason: object, code: int = 2) -> int:
    print(f"foreshock train: {reason}", file=sys.stderr)
    return code
