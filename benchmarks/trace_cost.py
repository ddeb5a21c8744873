"""The demo's step time with and without `--trace`, in ms, from pairs of short runs side by side; bytes a step on disk.

Each pair is one run with and one without the trace, the first of a pair in turn, so that a change of the machine's
speed meets both. The kNN monitor is part of what `--trace` adds, evaluated at every step as in the demo.

    python benchmarks/trace_cost.py --pairs 5 --steps 60
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console

from foreshock.trainer.config import TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.recipes import load_recipe
from foreshock.trainer.run import prepare


def step_ms(config: TrainConfig) -> float:
    """Mean ms a step of one run, its preparation left out."""
    run = prepare(config)
    start = time.perf_counter()
    train(run, Console(quiet=True))
    return 1e3 * (time.perf_counter() - start) / (config.steps or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    recipe = load_recipe("demo")
    optim = dataclasses.replace(recipe.optim, warmup_steps=10)
    plain = dataclasses.replace(recipe, steps=args.steps, optim=optim)
    step_ms(plain)  # the first run pays for the caches of the process
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "run"
        traced = dataclasses.replace(plain, trace=str(trace), overwrite=True)
        for pair in range(args.pairs):
            order = (plain, traced) if pair % 2 else (traced, plain)
            times = {config.trace is not None: step_ms(config) for config in order}
            pairs.append((times[False], times[True]))
            print(f"pair {pair}: without {times[False]:.1f} ms, with {times[True]:.1f} ms")
        size = sum(file.stat().st_size for file in trace.rglob("*") if file.is_file())
    without, with_trace = median(a for a, _ in pairs), median(b for _, b in pairs)
    ratio = median(b / a for a, b in pairs)
    print(f"median: without {without:.1f} ms, with {with_trace:.1f} ms a step, ratio {ratio:.3f}")
    print(f"on disk: {size / args.steps:.0f} bytes a step over {args.steps} steps (fixed files included)")


if __name__ == "__main__":
    main()
