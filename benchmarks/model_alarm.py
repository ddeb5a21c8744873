"""Does `model_events` keep its word? False alarms on noise with correlated layers, and planted events found.

    OMP_NUM_THREADS=1 python benchmarks/model_alarm.py

`noise` rows have no event at all. `held out`: m was calibrated on the falls of the first half and the second half is
counted, the figure that matters; `same run`: on the falls of the run itself, as `model_events(trace)` does; `live`: by
`ModelEventFinder`, which knows the past alone. `planted` rows are the mixture of benchmarks/synthetic_traces.py in 12
layers, and tell how many of its events were found, with the thresholds of the default and with lower ones (z 3.5,
ratio 1.5), which more layers then have to reach.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_traces import Planted, World, make

from foreshock.probes import ModelEventFinder, layers_needed, model_events
from foreshock.probes.model_alarm import _with_falls


def false_rates(world: World, seeds: Sequence[int], false_alarms: float) -> tuple[float, float, float, float]:
    """Held out, same run and live, per 10,000 steps, and the mean m."""
    held_out, same, live, needed, half = 0, 0, 0, [], world.steps // 2
    for seed in seeds:
        x = make(world, seed).values[:, world.warmup :]
        _, falls, layers, length = _with_falls(x[:, :half], "robust", {}, {"series": ""})
        m = layers_needed(falls, layers=layers, steps=length, false_alarms=false_alarms)
        held_out += sum(event.alarm >= half for event in model_events(x, needed=m))
        same += len(model_events(x, false_alarms=false_alarms))
        finder = ModelEventFinder([str(i) for i in range(layers)], false_alarms=false_alarms)
        live += len(finder.update(np.arange(x.shape[1]), x))
        needed.append(m)
    steps = world.steps - world.warmup
    return (
        1e4 * held_out / (len(seeds) * (steps - half)),
        1e4 * same / (len(seeds) * steps),
        1e4 * live / (len(seeds) * steps),
        float(np.mean(needed)),
    )


def found(
    world: World, seeds: Sequence[int], false_alarms: float, thresholds: dict[str, float]
) -> tuple[float, float, float]:
    """Precision, recall over planted events, and false events per 10,000 steps."""
    hits = planted = false = right = 0
    for seed in seeds:
        run = make(world, seed)
        events = model_events(run.values, false_alarms=false_alarms, **thresholds)
        events = [event for event in events if event.end >= world.warmup]
        spans = _spans(run.events, world.gap)
        touch = [[event.start <= end and event.end >= start for start, end in spans] for event in events]
        hits += int(np.any(touch, axis=0).sum()) if touch else 0
        planted += len(spans)
        right += sum(any(row) for row in touch)
        false += sum(not any(row) for row in touch)
    return right / max(1, right + false), hits / planted, 1e4 * false / (len(seeds) * (world.steps - world.warmup))


def _spans(planted: Sequence[Planted], gap: int) -> list[tuple[int, int]]:
    """First and last step of each event over all layers, and three steps around it."""
    spans: list[tuple[int, int]] = []
    for event in sorted(planted, key=lambda event: event.start):
        if spans and event.start - spans[-1][1] < gap / 2:
            spans[-1] = spans[-1][0], max(spans[-1][1], event.end + 3)
        else:
            spans.append((event.start - 3, event.end + 3))
    return spans


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print("noise          common  allowed  held out  same run  live    m")
    for sd, layers in ((0.22, 12), (0.4, 12), (0.4, 48)):
        for common in (0.0, 0.3, 0.7):
            for allowed in (1.0, 10.0):
                world = World(sd=sd, layers=layers, steps=20_000, common=common, rate=0.0)
                held_out, same, live, m = false_rates(world, seeds, allowed)
                told = f"{common:11.1f} {allowed:8.0f} {held_out:9.2f} {same:9.2f} {live:5.2f} {m:4.1f}"
                print(f"sd {sd:.2f} x {layers:2d} {told}", flush=True)
    print("\nplanted        common  allowed  precision  recall   false")
    for sd in (0.22, 0.4):
        for name, thresholds in {"default": {}, "z 3.5, ratio 1.5": {"z": 3.5, "ratio": 1.5}}.items():
            for allowed in (1.0, 3.0, 10.0):
                precision, recall, false = found(replace(World(), sd=sd, layers=12), seeds, allowed, thresholds)
                told = f"{0.3:11.1f} {allowed:8.0f} {precision:10.2f} {recall:7.2f} {false:7.2f}"
                print(f"sd {sd:.2f} x 12 {told}   {name}", flush=True)


if __name__ == "__main__":
    main()
