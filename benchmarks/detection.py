"""How well each detector finds known spikes: on made-up noise with planted events, and on labelled real runs.

    python benchmarks/detection.py                              # everything, seeds 1000 to 1005
    python benchmarks/detection.py --detectors robust --worlds "sd .40" --seeds 20 --kinds

A found spike is right if its flagged steps come within 3 steps of a planted event of its layer; events begun in the
warm-up don't count. Columns: precision, recall and F1; false alarms per 10,000 steps of a layer; error of the onset
(median of |found - true|, in steps); delay to the alarm (median of first flagged step - true onset). Seeds below 1000
were used while the rules were made, and are not part of the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_traces import KINDS, WORLDS, Planted, World, make

from foreshock.probes import Spike, find_spikes
from foreshock.probes.detectors import known

TOLERANCE = 3
REAL_RUNS = Path(__file__).resolve().parents[2] / "shared" / "real-runs"
Find = Callable[..., list[Spike]]


@dataclass
class Tally:
    """Counts over any number of layers, and what they say."""

    steps: int = 0
    right: int = 0
    false: int = 0
    missed: int = 0
    found: dict[str, int] = field(default_factory=dict)
    planted: dict[str, int] = field(default_factory=dict)
    onset_errors: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)

    def add(self, spikes: Sequence[Spike], events: Sequence[Planted], steps: int, first: int) -> None:
        """Score one layer: `spikes` against `events` over `steps` steps, of which those before `first` don't count."""
        self.steps += steps
        spikes = [spike for spike in spikes if spike.end >= first]
        hits = [[spike for spike in spikes if _touch(spike, event)] for event in events]
        for event, own in zip(events, hits, strict=True):
            self.planted[event.kind] = self.planted.get(event.kind, 0) + 1
            self.found[event.kind] = self.found.get(event.kind, 0) + bool(own)
            self.missed += not own
            if own:
                self.onset_errors.append(min(abs(spike.onset - event.onset) for spike in own))
                self.delays.append(own[0].start - event.onset)
        right = sum(any(_touch(spike, event) for event in events) for spike in spikes)
        self.right += right
        self.false += len(spikes) - right

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / max(1, sum(self.planted.values()))

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.false)

    @property
    def false_rate(self) -> float:
        return 10_000 * self.false / self.steps

    def row(self) -> str:
        """The columns of the table."""
        p, r = self.precision, self.recall
        error = f"{median(self.onset_errors):5.1f}" if self.onset_errors else "    -"
        delay = f"{median(self.delays):5.1f}" if self.delays else "    -"
        return f"{p:9.2f} {r:7.2f} {2 * p * r / max(1e-9, p + r):6.2f} {self.false_rate:9.1f} {error:>6s} {delay:>6s}"


def _touch(spike: Spike, event: Planted) -> bool:
    return spike.start <= event.end + TOLERANCE and spike.end >= event.start - TOLERANCE


def on_synthetic(find: Find, world: World, seeds: Sequence[int]) -> Tally:
    """Score a finder over runs of a world.

    >>> on_synthetic(find_spikes, World(sd=0.08, steps=3000), [1]).recall
    1.0
    """
    tally = Tally()
    for seed in seeds:
        run = make(world, seed)
        spikes = find(run.values)
        for layer in range(world.layers):
            own = [spike for spike in spikes if spike.layer == str(layer)]
            events = [event for event in run.events if event.layer == layer]
            tally.add(own, events, world.steps - world.warmup, world.warmup)
    return tally


@dataclass(frozen=True)
class RealScore:
    """Sure labels found and missed, and spikes where there is no label, over the scored part of the runs."""

    found: int
    missed: list[tuple[str, int]]
    false: list[tuple[str, int, float]]
    points: int


def on_real(find: Find, folder: Path, series: str) -> RealScore:
    """Score a finder on the labelled runs as their README says: sure spikes and bursts, three logging intervals."""
    with (folder / "labels.csv").open() as file:
        labels = [row for row in csv.DictReader(file) if row["series"] == series]
    calm = json.loads((folder / "calm.json").read_text())
    found, missed, false, points = 0, [], [], 0
    for run in sorted({row["run"] for row in labels} | set(calm)):
        steps, values = logged(folder / f"{run}.csv", series)
        if not len(steps):
            continue
        own = [(int(row["start"]), int(row["end"]), row) for row in labels if row["run"] == run]
        first, slack = _first_scored(run, steps), 3 * float(np.median(np.diff(steps)))
        spikes = [spike for spike in find(values, steps=steps) if spike.end >= first]
        points += int(np.count_nonzero(steps >= first))
        near = [[s for s in spikes if s.start <= end + slack and s.end >= start - slack] for start, end, _ in own]
        for (start, _, row), hits in zip(own, near, strict=True):
            if row["grade"] == "sure" and row["type"] in ("spike", "burst"):
                found += bool(hits)
                missed += [] if hits else [(run, start)]
        known_ones = {id(spike) for hits in near for spike in hits}
        false += [(run, s.start, round(s.ratio, 2)) for s in spikes if id(s) not in known_ones]
    return RealScore(found, missed, false, points)


def logged(path: Path, series: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the cells of a run's CSV that are not empty; nothing if it lacks the series."""
    with path.open() as file:
        rows = [(row["step"], row.get(series) or "") for row in csv.DictReader(file)]
    cells = [(int(float(step)), float(value)) for step, value in rows if value]
    return np.array([step for step, _ in cells], int), np.array([value for _, value in cells], float)


def _first_scored(run: str, steps: np.ndarray) -> float:
    if run == "hector_llmc_750":
        return 100
    return 1000 if run.startswith(("hector", "agndm")) else 0.05 * steps[-1]


def _finder(name: str) -> Find:
    def find(values: np.ndarray, **options: object) -> list[Spike]:
        return find_spikes(values, detector=name, **options)  # type: ignore[arg-type]

    return find


def _print_synthetic(options: argparse.Namespace) -> None:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for world_name in options.worlds:
        world = WORLDS[world_name]
        print(f"\n{world_name}: {options.seeds} runs x {world.layers} layers x {world.steps:,} steps")
        print("detector       precision  recall     F1 false/1e4  onset  delay")
        for name in options.detectors:
            tally = on_synthetic(_finder(name), world, seeds)
            kinds = [f"{k} {tally.found.get(k, 0)}/{tally.planted[k]}" for k in KINDS if tally.planted.get(k)]
            print(f"{name:14s} {tally.row()}" + (f"   {', '.join(kinds)}" if options.kinds else ""), flush=True)


def _print_real(options: argparse.Namespace) -> None:
    if not (options.real / "labels.csv").exists():
        print(f"\nthe labelled real runs are not at {options.real}")
        return
    for series in ("grad_norm", "loss"):
        print(f"\nreal runs, {series}: sure spikes and bursts")
        print("detector        found  missed  false false/1e4")
        for name in options.detectors:
            score = on_real(_finder(name), options.real, series)
            rate = 10_000 * len(score.false) / score.points
            print(f"{name:14s} {score.found:6d} {len(score.missed):7d} {len(score.false):6d} {rate:9.1f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["robust", *(n for n in known() if n != "robust")])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--real", type=Path, default=REAL_RUNS)
    parser.add_argument("--kinds", action="store_true", help="tell the recall of each kind of event")
    options = parser.parse_args()
    began = time.perf_counter()
    _print_synthetic(options)
    _print_real(options)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
