"""Model-level events: several layers spike within a few steps, more of them than noise brings at a stated rate.

One layer's spike may be that layer's noise, and with L layers false alarms add up L-fold. So an event of the model asks
for m layers within `within` steps, and m is the smallest number that noise reaches at most `false_alarms` times in
10,000 steps. What noise does is read off the run itself, mirrored: spikes are rises, so the *falls* of the same layers,
found by the same rule in 1/x, are noise, with its tails, its level and its correlation between layers (they all see
the same batch). Where falls are too few to count, a beta-binomial of the same mean and variance goes on from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .mirror import above_the_threshold, finders, mirrored
from .series import blocks, is_trace
from .spikes import NaN, Spike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["ModelEvent", "checked", "layers_needed", "model_events"]


@dataclass(frozen=True)
class ModelEvent:
    """Layers that spiked together. Steps are the trace's own, or indices of a bare array.

    Attributes:
        alarm: the step at which the last of the `needed` layers was flagged, and the event was sure.
        start, end: first and last flagged step of its spikes.
        layers: the layers, in the order in which they were flagged.
        needed: how many of them an event asks for.
        spikes: their spikes, in that order.
    """

    alarm: int
    start: int
    end: int
    layers: tuple[str, ...]
    needed: int
    spikes: tuple[Spike, ...]


def model_events(
    source: Trace | ArrayLike | Sequence[Spike],
    *,
    false_alarms: float = 1.0,
    within: int = 16,
    needed: int | None = None,
    series: str = "grad_norm",
    layer: str | Sequence[str] | None = None,
    steps: ArrayLike | None = None,
    layers: Sequence[str] | None = None,
    detector: str = "robust",
    **thresholds: float,
) -> list[ModelEvent]:
    """Find where the model as a whole spikes.

    Args:
        source: a trace, or values >= 0, f[L, T]; or spikes that were found already. For spikes alone the noise is
            unknown: m is then the number of layers that would meet by chance if each had its spikes on its own.
        false_alarms: how many events noise may cause in 10,000 steps.
        within: steps that hold the first flagged steps of the layers of an event.
        needed: m itself, such as `layers_needed` told of an earlier run or the run so far; `false_alarms` is not used.
        series, layer, steps, layers, detector, thresholds: as `find_spikes` takes them; with spikes, `layers` is all
            that were looked at (default: those that spiked).

    Returns:
        Events by their alarm; warm-up spikes don't count. Nothing where noise alone, at this rate, reaches all layers.

    Raises:
        ValueError: `false_alarms` or `within` out of range, and what `find_spikes` raises.

    >>> x = np.exp(np.random.default_rng(0).normal(0, 0.1, (6, 3000))); x[:4, 2000:2003] *= 6; x[5, 1000] *= 6
    >>> event, = model_events(x)
    >>> event.alarm, event.layers, event.needed
    (2000, ('0', '1', '2', '3'), 2)
    """
    checked(false_alarms, within, needed)
    rule = {"within": within, "false_alarms": false_alarms}
    if not is_trace(source) and len(source) and isinstance(source[0], Spike):  # type: ignore[index,arg-type]
        spikes = [spike for spike in source if not spike.warmup]  # type: ignore[union-attr]
        names = sorted({spike.layer for spike in spikes}) if layers is None else list(layers)
        span = max(spike.end for spike in spikes) - min(spike.start for spike in spikes) + 1 if spikes else 1
        needed = needed or _by_chance(spikes, len(names), span, **rule)
    else:
        options = {"series": series, "layer": layer, "steps": steps, "layers": layers}
        spikes, falls, layers_seen, length = _with_falls(source, detector, thresholds, options)
        needed = needed or layers_needed(falls, layers=layers_seen, steps=length, **rule)
    return _grouped(spikes, needed, within)


def layers_needed(
    noise: Iterable[Spike],
    *,
    layers: int,
    steps: int,
    within: int = 16,
    false_alarms: float = 1.0,
    unseen: float = 0.25,
) -> int:
    """The smallest number of layers that noise brings together at most `false_alarms` times in 10,000 steps.

    Args:
        noise: spikes that are known to be none: of a calm run, of 1/x, of layers before anything happened.
        layers: how many layers were looked at.
        steps: and over how many steps.
        within, false_alarms: see `model_events`.
        unseen: share of the layers in one window of noise more, which was not seen: what the next run may bring.

    Returns:
        At least 2 (1 for a single layer); `layers` + 1 if noise reaches all layers more often than that.

    >>> from .spikes import find_spikes
    >>> spikes = find_spikes(np.exp(np.random.default_rng(0).normal(0, 0.3, (20, 3000))), z=3.5)
    >>> len(spikes), layers_needed(spikes, layers=20, steps=3000)
    (15, 6)
    """
    noise = sorted(noise, key=lambda spike: spike.start)
    allowed = false_alarms * steps / 10_000
    least = min(2, layers)
    counts = _layers_by_window(noise, steps, within)
    counts = np.append(counts, unseen * layers) if unseen else counts
    for needed in range(least, layers + 1):
        # Windows that slide hold about twice as many different sets of steps as those that stand side by side.
        expected = 2 * steps / within * _tail(counts, needed, layers)
        # One more than were seen: the next run of this length may well have it.
        if len(_grouped(noise, needed, within)) + 1 <= max(1.0, allowed) and expected <= allowed:
            return needed
    return layers + 1


def checked(false_alarms: float, within: int, needed: int | None) -> None:
    """ValueError unless these are what `model_events` takes."""
    if not (math.isfinite(false_alarms) and false_alarms > 0):
        raise ValueError(f"false_alarms={false_alarms!r} must be a number above 0, events of noise per 10,000 steps")
    if within < 1 or (needed is not None and needed < 1):
        raise ValueError(f"within={within!r} and needed={needed!r} must be whole numbers of at least 1")


def _with_falls(
    source: Any, detector: str, thresholds: dict[str, float], options: dict[str, Any]
) -> tuple[list[Spike], list[Spike], int, int]:
    """Spikes after the warm-up, those of 1/x, the number of layers, and of steps after the warm-up."""
    warmup = int(source.meta.get("warmup_steps") or 0) if is_trace(source) else 0
    rises = falls = None
    spikes: list[Spike] = []
    noise: list[Spike] = []
    length = 0
    for rows in blocks(source, **options):
        if rises is None or falls is None:
            nan: NaN = "nonfinite" if rows.every_step else "gap"
            rises, falls = finders(rows.names, detector, thresholds, nan, warmup)
        spikes += rises.update(rows.steps, rows.values)
        noise += falls.update(rows.steps, mirrored(np.asarray(rows.values, float)))
        length += int(np.count_nonzero(rows.steps >= warmup))
    assert rises is not None  # there is always a block
    assert falls is not None
    spikes, noise = spikes + rises.close(), noise + falls.close()
    noise = above_the_threshold(noise, rises)
    spikes, noise = ([spike for spike in found if not spike.warmup] for found in (spikes, noise))
    return spikes, noise, len(rises.layers), max(1, length)


def _grouped(spikes: Sequence[Spike], needed: int, within: int) -> list[ModelEvent]:
    """Sets of spikes in which some window of `within` steps holds first flagged steps of `needed` layers."""
    ordered = sorted(spikes, key=lambda spike: spike.start)
    events: list[ModelEvent] = []
    group: list[Spike] = []
    alarm, first = None, 0
    for i, spike in enumerate(ordered):
        while spike.start - ordered[first].start >= within:
            first += 1
        window = ordered[first : i + 1]
        sure = len({one.layer for one in window}) >= needed
        if alarm is not None and spike.start - group[-1].start < within:
            group.append(spike)
        else:
            if alarm is not None:
                events.append(_event(group, alarm, needed))
            group, alarm = (window, spike.start) if sure else ([], None)
    return events if alarm is None else [*events, _event(group, alarm, needed)]


def _event(group: Sequence[Spike], alarm: int, needed: int) -> ModelEvent:
    layers = tuple(dict.fromkeys(spike.layer for spike in group))
    return ModelEvent(alarm, group[0].start, max(spike.end for spike in group), layers, needed, tuple(group))


def _layers_by_window(noise: Sequence[Spike], steps: int, within: int) -> np.ndarray:
    """How many layers were flagged in each window of `within` steps, side by side."""
    counts = np.zeros(max(1, math.ceil(steps / within)))
    if noise:
        first = noise[0].start
        for window in {((spike.start - first) // within, spike.layer) for spike in noise}:
            counts[min(window[0], len(counts) - 1)] += 1
    return counts


def _tail(counts: np.ndarray, needed: int, layers: int) -> float:
    """P(K >= needed) of a beta-binomial with the mean and variance of the counts, half a layer added to the sum."""
    mean = (counts.sum() + 0.5) / len(counts)
    p = min(mean / layers, 0.999)
    spread = float(np.square(counts - mean).mean()) / (layers * p * (1 - p))  # 1 for independent layers
    rho = min(max((spread - 1) / max(layers - 1, 1), 1e-6), 0.99)
    a, b = p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho
    k = np.arange(needed, layers + 1)
    log_choose = np.array([math.lgamma(layers + 1) - math.lgamma(i + 1) - math.lgamma(layers - i + 1) for i in k])
    log_beta = np.array([_log_beta(i + a, layers - i + b) for i in k]) - _log_beta(a, b)
    return float(np.exp(log_choose + log_beta).sum())


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _by_chance(spikes: Sequence[Spike], layers: int, steps: int, within: int, false_alarms: float) -> int:
    """m for spikes alone: the binomial tail at the layers' mean rate."""
    p = min(0.999, len(spikes) * within / max(1, layers) / steps)
    for needed in range(min(2, layers), layers + 1):
        tail = sum(math.comb(layers, k) * p**k * (1 - p) ** (layers - k) for k in range(needed, layers + 1))
        if 2 * steps / within * tail <= false_alarms * steps / 10_000:
            return needed
    return layers + 1
