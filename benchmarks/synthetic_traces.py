"""Made-up gradient norms with known events: what a detector is measured on where nobody has labelled, in steps.

    ln x[layer, t] = baseline(t) + scale[layer] + noise[layer, t] + sum of events' heights

The noise is AR(1) with Student-t innovations, partly common to all layers, its level breathing slowly; the baseline has
a warm-up transient and a smooth drift. Every number is a field of `World`. Events come at a rate that follows the
learning rate, arrive `lag` steps later from layer to layer, and are lower in the later layers.

    python benchmarks/synthetic_traces.py            # prints the worlds and what is in them
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np

__all__ = ["WORLDS", "Planted", "Run", "World", "make", "shape"]

KINDS = ("glitch", "spike", "burst", "slow")
"""One step; a rise of 1 to 3 steps and a decay, 3 to 12 in all; 3 to 6 of these in a row; a rise over 8 to 30."""


@dataclass(frozen=True)
class World:
    """What a run is drawn from.

    Attributes:
        steps, layers: its size.
        sd: standard deviation of the noise on ln x.
        ar: lag-1 correlation of the noise, drawn per layer between these (0 to .5 in the real runs).
        dof: degrees of freedom of the innovations; inf for normal ones.
        common: share of the innovations' variance that all layers have in common (they see the same batch).
        breathing: the noise level rises and falls by this factor over the run.
        drift: size of the slow movement of the baseline, in log units over the run.
        warmup: steps of warm-up, in which ln x falls by `transient`; not scored, and without events.
        rate: events per 10,000 steps, on average.
        follows_lr: whether the rate follows a cosine schedule (so most events are early) or is constant.
        mix: shares of KINDS.
        ratio: peak over baseline in the first layer, log-uniform between these.
        lag: delay from one layer to the next, in steps (a glitch hits all at once).
        last: share of the log height that reaches the last layer.
        gap: calm steps between the end of an event and the start of the next, at least.
    """

    steps: int = 10_000
    layers: int = 4
    sd: float = 0.22
    ar: tuple[float, float] = (0.0, 0.6)
    dof: float = 5.0
    common: float = 0.3
    breathing: float = 1.25
    drift: float = 0.5
    warmup: int = 500
    transient: float = 2.0
    rate: float = 25.0
    follows_lr: bool = True
    mix: tuple[float, float, float, float] = (0.2, 0.45, 0.15, 0.2)
    ratio: tuple[float, float] = (3.0, 15.0)
    lag: float = 1.0
    last: float = 0.8
    gap: int = 40


@dataclass(frozen=True)
class Planted:
    """One event as one layer has it: steps `start` to `end` reach a quarter of its height, `onset` on half of it."""

    layer: int
    kind: str
    start: int
    onset: int
    peak: int
    end: int
    ratio: float


@dataclass(frozen=True)
class Run:
    """values f64[L, T] and what is in them."""

    world: World
    values: np.ndarray
    events: tuple[Planted, ...]


WORLDS = {
    "low noise": World(sd=0.08),
    "sd .22": World(),
    "sd .40": World(sd=0.40),
    "sd .40, AR .7": World(sd=0.40, ar=(0.7, 0.7)),
    "sd .40, white": World(sd=0.40, ar=(0.0, 0.0)),
    "sd .40, normal": World(sd=0.40, dof=math.inf),
    "sd .40, drift": World(sd=0.40, drift=2.0, breathing=1.6),
    "sd .40, t3": World(sd=0.40, dof=3.0),
    "sd .40, 3+ steps": World(sd=0.40, mix=(0.0, 0.6, 0.2, 0.2)),
    "sd .22, 3+ steps": World(sd=0.22, mix=(0.0, 0.6, 0.2, 0.2)),
}
"""The worlds of the table; the plain ones mix all four kinds of event."""


def make(world: World, seed: int) -> Run:
    """Draw a run; the same seed gives the same run.

    >>> run = make(World(steps=2000), seed=1)
    >>> run.values.shape, {event.kind for event in run.events} <= set(KINDS)
    ((4, 2000), True)
    """
    rng = np.random.default_rng([20260, seed])
    y = _noise(world, rng) + _baseline(world, rng) + rng.normal(0, 1, world.layers)[:, None]
    events: list[Planted] = []
    free = world.warmup + 100
    for start in _starts(world, rng):
        if start < free:
            continue
        kind = KINDS[rng.choice(4, p=world.mix)]
        height = math.log(world.ratio[0]) + rng.random() * math.log(world.ratio[1] / world.ratio[0])
        form = height * shape(kind, rng)
        free = start + len(form) + math.ceil(world.lag * world.layers) + world.gap
        for layer in range(world.layers):
            depth = layer / max(1, world.layers - 1)
            at = start + (0 if kind == "glitch" else round(layer * world.lag))
            part = form[: max(0, world.steps - at)] * (1 - (1 - world.last) * depth)
            if len(part) and part.max() > 0:
                y[layer, at : at + len(part)] += part
                events.append(_told(layer, kind, at, part))
    return Run(world, np.exp(y), tuple(events))


def shape(kind: str, rng: np.random.Generator) -> np.ndarray:
    """The heights of an event of this kind, 1 at its peak.

    >>> shape("glitch", np.random.default_rng(0)).tolist()
    [1.0]
    """
    if kind == "glitch":
        return np.ones(1)
    if kind == "spike":
        rise, length = int(rng.integers(1, 4)), int(rng.integers(3, 13))
        up = np.arange(1, rise + 1) / rise
        fall = np.exp(-np.arange(1, max(2, length - rise + 1)) / max(1.0, (length - rise) / 1.5))
        return np.concatenate([up, fall])
    if kind == "slow":
        rise = int(rng.integers(8, 31))
        up = np.sin(np.pi / 2 * np.arange(1, rise + 1) / rise) ** 2
        return np.concatenate([up, np.exp(-np.arange(1, int(rng.integers(3, 16))) / 4)])
    form = np.zeros(90)
    at = 0
    for part in range(int(rng.integers(3, 7))):
        piece = shape("spike" if rng.random() < 0.6 else "glitch", rng) * (1 if part == 0 else rng.uniform(0.6, 1))
        form[at : at + len(piece)] = np.maximum(form[at : at + len(piece)], piece)
        at += int(rng.integers(4, 13))
    return np.trim_zeros(form, "b")


def _told(layer: int, kind: str, at: int, height: np.ndarray) -> Planted:
    top = float(height.max())
    seen = np.flatnonzero(height >= top / 4)
    onset = int(np.flatnonzero(height >= top / 2)[0])
    ends = at + int(seen[0]), at + onset, at + int(height.argmax()), at + int(seen[-1])
    return Planted(layer, kind, *ends, math.exp(top))


def _noise(world: World, rng: np.random.Generator) -> np.ndarray:
    ar = rng.uniform(*world.ar, world.layers)
    shared, own = (_innovations(world, rng, rows) for rows in (1, world.layers))
    innovations = math.sqrt(world.common) * shared + math.sqrt(1 - world.common) * own
    noise = np.empty((world.layers, world.steps))
    last = innovations[:, 0]
    for t in range(world.steps):
        last = noise[:, t] = ar * last + np.sqrt(1 - ar**2) * innovations[:, t]
    phase = 2 * np.pi * (rng.random() + np.arange(world.steps) / world.steps)
    return world.sd * noise * world.breathing ** np.sin(phase)


def _innovations(world: World, rng: np.random.Generator, rows: int) -> np.ndarray:
    """Variance 1 whatever the degrees of freedom."""
    if math.isinf(world.dof):
        return rng.standard_normal((rows, world.steps))
    return rng.standard_t(world.dof, (rows, world.steps)) * math.sqrt((world.dof - 2) / world.dof)


def _baseline(world: World, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(world.steps)
    wave = sum(rng.normal() / k * np.sin(2 * np.pi * (k * t / world.steps + rng.random())) for k in (1, 2, 3))
    return world.transient * np.exp(-t / max(1.0, world.warmup / 4)) + world.drift / 2 * wave


def _starts(world: World, rng: np.random.Generator) -> list[int]:
    """Steps at which events would begin: a Poisson process whose rate follows the schedule."""
    t = np.arange(world.steps)
    density = 1 + np.cos(np.pi * t / world.steps) if world.follows_lr else np.ones(world.steps)
    density[: world.warmup + 100] = 0
    wanted = 1.25 * world.rate * world.steps / 10_000  # about a fifth falls into an earlier event, and is dropped
    return np.flatnonzero(rng.random(world.steps) < wanted * density / density.sum()).tolist()


def main() -> None:
    """Print each world's parameters and what one run of it holds."""
    plain = World()
    print("every world:", ", ".join(f"{f.name}={getattr(plain, f.name)}" for f in fields(World)))
    for name, world in WORLDS.items():
        differs = {f.name: getattr(world, f.name) for f in fields(World) if getattr(world, f.name) != f.default}
        run = make(replace(world), seed=0)
        counts = Counter(event.kind for event in run.events if event.layer == 0)
        print(f"{name:18s} {differs}: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS))


if __name__ == "__main__":
    main()
