"""The demo's step time with and without `--trace`, in ms, from pairs of short runs side by side; bytes a step on disk.

Each pair is one run with and one without the trace, the first of a pair in turn, so that a change of the machine's
speed meets both. The kNN monitor is part of what `--trace` adds, evaluated at every step as in the demo.

    python benchmarks/trace_cost.py --pairs 5 --steps 60

`--knn` tells the monitor's share instead, from the CPU time of the loop's own thread, which other programs disturb
less: in one run, of every step, what the monitor took and what the rest took. The steps before its queue is full are
left out.

    OMP_NUM_THREADS=1 python benchmarks/trace_cost.py --knn --steps 60
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

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


def tenth(values: list[float]) -> float:
    """The value that a tenth of them is below: what a step takes when nothing else disturbs it."""
    return quantiles(values, n=10)[0]


def knn_ms(config: TrainConfig) -> tuple[list[float], list[float]]:
    """CPU ms of the kNN monitor and of all else, for each step with a full queue."""
    run = prepare(config)
    assert run.tracing is not None
    assert run.tracing.knn is not None
    knn, spent, begun = run.tracing.knn, [0.0], [time.thread_time()]
    ours: list[float] = []
    rest: list[float] = []
    feed, observe = knn.feed, knn.observe

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            result = call(*args, **options)
            spent[0] += time.thread_time() - start
            return result

        return timed_call

    def ended() -> dict[str, Any]:
        full = knn._filled == len(knn._labels)
        values = timed(observe)()
        now = time.thread_time()
        if full:
            ours.append(1e3 * spent[0])
            rest.append(1e3 * (now - begun[0] - spent[0]))
        spent[0], begun[0] = 0.0, time.thread_time()
        return values

    knn.feed, knn.observe = timed(feed), ended
    train(run, Console(quiet=True))
    return ours, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--knn", action="store_true", help="the share of the kNN monitor alone")
    args = parser.parse_args()
    recipe = load_recipe("demo")
    optim = dataclasses.replace(recipe.optim, warmup_steps=10)
    plain = dataclasses.replace(recipe, steps=args.steps, optim=optim)
    if args.knn:
        with tempfile.TemporaryDirectory() as folder:
            ours, rest = knn_ms(dataclasses.replace(plain, trace=str(Path(folder) / "run")))
        share = 100 * median(ours) / median(rest)
        print(f"CPU ms of a step, median of {len(ours)}: kNN monitor {median(ours):.2f}, all else {median(rest):.1f}")
        print(
            f"The monitor adds {share:.1f} % to a step; with its fastest tenth {100 * tenth(ours) / tenth(rest):.1f} %"
        )
        return
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
