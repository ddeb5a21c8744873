"""Several runs over each other: curves by group with bands over the seeds, event rates with exact intervals.

Steps are the traces' own (or epochs, where every run tells how many steps one has), accuracies 0..1, rates per 10,000
steps beyond the warm-up.
"""

from __future__ import annotations

__all__ = ["Band", "Comparison", "Group", "Member", "compare_runs", "member_of"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probes.compare import final_accuracy
from ..probes.layers import first_layer
from ..probes.rate_ratio import clopper_pearson, rate_ratio
from ..probes.rises import events_of
from ..probes.spikes import Spike
from ..traces.reader import Trace
from .columns import columns_of, grid
from .configs import differing, flat, shown
from .event import CURVE
from .follow import Snapshot
from .words import times

POINTS = 400
WITHIN = 32  # spikes with onsets at most so many steps apart are one event, as in `foreshock.probes.compare`
PER_STEPS = 10_000
CURVES = (CURVE, "loss")


@dataclass(frozen=True)
class Member:
    """One run: `curves` f64[n] at `steps` f64[n], among them `gradient`, the first layer's as a multiple of normal."""

    run: str
    state: str
    steps: NDArray[np.float64]
    curves: dict[str, NDArray[np.floating]]
    counted: int  # steps beyond the warm-up
    epoch: float | None
    found: tuple[Spike, ...] | None = None  # beyond the warm-up; None while they are looked for
    measured: frozenset[str] = frozenset()
    spikes: int | None = None  # events of the layers that every compared run measured
    dips: int | None = None
    final: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Band:
    """Mean, lowest and highest of a group's runs, f64[n] at `at` f64[n]; NaN where no run was measured."""

    at: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Runs that share the value of the field."""

    name: str
    members: tuple[Member, ...]

    def rate(self, of: str) -> tuple[int, float, float, float] | None:
        """Events of "spikes" or "dips", their rate per 10,000 steps and its exact 95 % interval; None if not counted.

        Clopper and Pearson's interval, each step taken for a trial: right where events do not come in bursts. Runs that
        could not have any, without a kNN curve or a measured layer, do not count; nor does any while one is searched.
        """
        found = [(getattr(member, of), member.counted) for member in self.members]
        counts, steps = [n for n, _ in found if n is not None], sum(rows for n, rows in found if n is not None)
        if not steps or (of == "spikes" and any(member.found is None for member in self.members)):
            return None
        low, high = clopper_pearson(sum(counts), steps, 0.95)
        return sum(counts), PER_STEPS * sum(counts) / steps, PER_STEPS * low, PER_STEPS * high

    def band(self, curve: str, epochs: bool) -> Band | None:
        """The runs' curve on common points; None if no run has it."""
        found = [member for member in self.members if curve in member.curves and len(member.steps)]
        if not found:
            return None
        axes = [member.steps / (member.epoch or 1.0) if epochs else member.steps for member in found]
        at = np.linspace(0, max(axis[-1] for axis in axes), POINTS)
        rows = np.array([_on(at, axis, member.curves[curve]) for axis, member in zip(axes, found, strict=True)])
        seen = np.isfinite(rows)
        any_seen, count = seen.any(axis=0), np.maximum(seen.sum(axis=0), 1)
        mean = np.where(any_seen, np.where(seen, rows, 0).sum(axis=0) / count, np.nan)
        low = np.where(any_seen, np.where(seen, rows, np.inf).min(axis=0), np.nan)
        high = np.where(any_seen, np.where(seen, rows, -np.inf).max(axis=0), np.nan)
        return Band(at, mean, low, high)


@dataclass(frozen=True)
class Comparison:
    """Groups of runs by the setting `by` ("run": each on its own); `fields` are the settings that could be taken."""

    groups: tuple[Group, ...]
    by: str
    fields: tuple[str, ...]
    epochs: bool = False
    pending: int = 0  # runs whose spikes are still looked for
    left_out: tuple[str, ...] = ()  # layers that some run did not measure: their spikes are not counted
    apart: bool = False  # no layer was measured in every run: no spikes are counted

    @property
    def verdict(self) -> str:
        """Spike rates of two groups against each other, or what there is to see."""
        if not self.groups:
            return "Choose runs to compare."
        told = f"{sum(len(group.members) for group in self.groups)} runs in {len(self.groups)} groups by {self.by}"
        if len(self.groups) != 2 or any(group.rate("spikes") is None for group in self.groups):
            return f"{told}."
        a, b = ([m for m in group.members if m.counted and m.spikes is not None] for group in self.groups)
        if not a or not b:
            return f"{told}."
        sides = [([m.spikes or 0 for m in side], [m.counted for m in side]) for side in (a, b)]
        found = rate_ratio(*sides[0], *sides[1])
        if not sum(found.events):
            return f"{told}: no spike events in either."
        interval = f"[{found.low:.2f}, {found.high:.2f}], p = {found.p:.2g}"
        names = f"{self.groups[0].name} has {times(found.ratio)} the spike events of {self.groups[1].name}"
        return f"{names} {interval}."


def _on(at: NDArray[np.float64], axis: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values between their measured places; NaN outside of them."""
    seen = np.isfinite(values)
    if seen.sum() < 2:
        return np.full(len(at), np.nan)
    return np.interp(at, axis[seen], values[seen], left=np.nan, right=np.nan)


def member_of(snapshot: Snapshot) -> Member | None:
    """One run for a comparison; its events only once it has been searched. None if it cannot be read."""
    trace = snapshot.trace
    if trace is None:
        return None
    columns = columns_of(trace, grid(len(trace), POINTS), scalars=CURVES)
    curves = {name: found.mean for name, found in columns.scalars.items()}
    if trace.layers and "grad_norm" in trace.series:
        curves["gradient"] = columns.ratio.high[trace.layers.index(first_layer(trace.layers))]
    seen = np.isfinite(columns.ratio.high).any(axis=1)
    found: dict[str, Any] = {"measured": frozenset(np.array(trace.layers, dtype=object)[seen])}
    warmup = _number(trace.meta.get("warmup_steps")) or 0
    counted = int((trace.steps >= warmup).sum())
    if snapshot.searched >= 1:
        usual = [spike for spike in snapshot.spikes if not spike.warmup]
        found["found"] = tuple(usual)
    if CURVE in trace.scalars:
        found["dips"] = sum(dip.onset_by >= warmup for dip in snapshot.dips)
        found["final"] = _final(trace)
    epoch = _number(trace.meta.get("steps_per_epoch"))
    return Member(snapshot.run, snapshot.state, columns.steps, curves, counted, epoch, config=trace.config, **found)


def _final(trace: Trace) -> float | None:
    tail = trace.read(CURVE, start=max(0, len(trace) - 4096))
    return final_accuracy(tail) if np.isfinite(tail).any() else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and value == value and value > 0 else None


def compare_runs(members: Sequence[Member], by: str = "", epochs: bool = False) -> Comparison:
    """Group `members` by the setting `by`; without one, by the first that differs and is not the seed."""
    every = [member.measured for member in members if member.measured]  # a run without a step says nothing yet
    common, known = frozenset.intersection(*every) if every else frozenset(), frozenset().union(*every)
    members = [_counted(member, common) for member in members]
    fields = differing([member.config for member in members])
    usual = next((name for name in fields if name.rpartition(".")[2] != "seed"), "run")
    chosen = by if by in (*fields, "run") else usual
    groups: dict[str, list[Member]] = {}
    for member in members:
        value = flat(member.config).get(chosen)
        name = member.run if chosen == "run" else "not set" if value is None else shown(value)
        groups.setdefault(name, []).append(member)
    made = tuple(Group(name, tuple(groups[name])) for name in sorted(groups, key=_order))
    pending = sum(member.found is None for member in members)
    possible = epochs and bool(members) and all(member.epoch for member in members)
    left_out, apart = tuple(sorted(known - common)), bool(known) and not common
    return Comparison(made, chosen, (*fields, "run"), possible, pending, left_out, apart)


def _counted(member: Member, layers: frozenset[str]) -> Member:
    """The run with its spike events of `layers`: a frozen layer, counted on one side only, would look like a cure."""
    if member.found is None or not member.measured or not layers:
        return member
    return replace(member, spikes=len(events_of([s for s in member.found if s.layer in layers], WITHIN)))


def _order(name: str) -> tuple[int, float, str]:
    """Numbers by size before words."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
