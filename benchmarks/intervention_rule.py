"""How often does the rule of the interventions act on noise, and how many planted events? In steps of a layer.

    OMP_NUM_THREADS=1 python benchmarks/intervention_rule.py

The runs are those of benchmarks/synthetic_traces.py, from seeds that nothing was chosen on. `noise` has no event: the
number is per 10,000 steps of one layer. `events`: the share of planted events (3 to 15 times the baseline in the first
layer) with at least one step acted on, and of those that last a single step. Last, what a step costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_traces import World, make

from foreshock.probes.interventions._rule import SpikeRule, Thresholds


def acted(values: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """bool[L, T] of values f64[L, T]."""
    rule = SpikeRule(len(values), thresholds)
    return torch.stack([rule.judge(column).spikes for column in torch.from_numpy(values).unbind(1)], 1).numpy()


def measure(world: World, seeds: range, thresholds: Thresholds) -> tuple[float, float, float]:
    """False per 10,000 layer-steps, share of events acted on, share of one-step events acted on."""
    quiet = replace(world, rate=0.0)
    noise = acted(np.concatenate([make(quiet, seed).values[:, world.warmup :] for seed in seeds]), thresholds)
    runs = [make(world, seed) for seed in seeds]
    flags = acted(np.concatenate([run.values for run in runs]), thresholds)
    hits: dict[bool, list[bool]] = {False: [], True: []}
    for first, run in zip(range(0, len(flags), world.layers), runs, strict=True):
        for event in run.events:
            found = bool(flags[first + event.layer, event.start : event.end + 1].any())
            hits[event.kind == "glitch"].append(found)
    return 1e4 * float(noise.mean()), float(np.mean(hits[False] + hits[True])), float(np.mean(hits[True]))


def cost(layers: int) -> float:
    """ms a step, the median of 500, with a full window."""
    rule, norms, times = SpikeRule(layers), torch.rand(layers), []
    for step in range(800):
        start = time.perf_counter()
        rule.judge(norms)
        if step >= 300:
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=8000)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print("noise sd  ratio    z   false / 10,000   events   of one step")
    for sd in (0.08, 0.22, 0.40):
        for ratio, z in ((2.0, 4.5), (2.0, 6.0), (3.0, 6.0), (2.0, 8.0)):
            false, events, glitches = measure(World(sd=sd, steps=options.steps), seeds, Thresholds(ratio=ratio, z=z))
            print(f"     {sd:.2f} {ratio:6.1f} {z:4.1f} {false:16.2f} {events:8.2f} {glitches:13.2f}", flush=True)
    print("a step of", ", ".join(f"{n} layers: {cost(n):.2f} ms" for n in (1, 15, 150)))


if __name__ == "__main__":
    main()
