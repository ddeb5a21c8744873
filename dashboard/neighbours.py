"""Every layer around one event: relative gradient norm against steps since the onset, and each layer's own onset."""

from __future__ import annotations

__all__ = ["Neighbours", "Slope", "neighbours"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..probes.quantiles import t_quantile
from ..probes.rises import events_of, rises
from ..probes.spikes import Spike
from ..traces.reader import Trace
from .columns import median_rows

BEFORE, AFTER = 24, 72  # steps shown around the onset
NORMAL_ROWS = 256
WITHIN = 32  # steps: spikes whose onsets follow each other so closely are one event, as in `onset_order`


@dataclass(frozen=True)
class Slope:
    """Steps a layer: least squares of onset on depth, with its 95 % interval (Student's t on the residuals)."""

    steps: float
    low: float
    high: float


@dataclass(frozen=True)
class Neighbours:
    """`offsets` i64[m] steps from the onset; `ratio` f64[L, m]; f64[L] `onset` (offset) and `height` (ratio),
    NaN where the layer did not rise.
    """

    layer: str
    step: int
    layers: tuple[str, ...]
    offsets: NDArray[np.int64]
    ratio: NDArray[np.float64]
    onset: NDArray[np.float64]
    height: NDArray[np.float64]
    early: bool = False  # too few steps before it to tell onsets

    @property
    def rose(self) -> NDArray[np.bool_]:
        """Which layers rose by half at least, and clearly above their noise."""
        return np.isfinite(self.onset)

    @property
    def order(self) -> list[int]:
        """The layers that rose, by onset, then depth."""
        return sorted(np.flatnonzero(self.rose).tolist(), key=lambda i: (self.onset[i], i))

    @property
    def depth_correlation(self) -> float:
        """Spearman's rank correlation between depth and onset over the layers that rose; NaN below four of them."""
        rose = np.flatnonzero(self.rose)
        if len(rose) < 4 or np.ptp(self.onset[rose]) == 0:
            return float("nan")
        return float(np.corrcoef(_ranks(rose.astype(float)), _ranks(self.onset[rose]))[0, 1])

    @cached_property
    def slope(self) -> Slope | None:
        """How many steps later each deeper layer rises; None below four layers that rose."""
        depth = np.flatnonzero(self.rose).astype(float)
        if len(depth) < 4:
            return None
        x, y = depth - depth.mean(), self.onset[self.rose]
        slope = float(x @ y / (x @ x))
        rest = y - y.mean() - slope * x
        error = math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x)) * t_quantile(0.975, len(x) - 2)
        return Slope(slope, slope - error, slope + error)


def neighbours(
    trace: Trace,
    layer: str,
    step: int,
    *,
    series: str = "grad_norm",
    spikes: Sequence[Spike] = (),
    after: int = AFTER,
) -> Neighbours:
    """The surroundings of the spike of `layer` with its onset at `step`, to `after` steps behind it.

    A layer's normal is the median of the 256 rows before the picture; its onset is where it reaches half of its own
    log peak (`foreshock.probes.rises`), so a strong layer does not seem early because it is strong. `spikes` are the
    run's: those near `step` say how long the event lasts.
    """
    steps = trace.steps
    centre = int(np.searchsorted(steps, step))
    begin, end = (int(np.searchsorted(steps, step - BEFORE)), int(np.searchsorted(steps, step + after, "right")))
    start = max(0, begin - NORMAL_ROWS)
    values = np.asarray(trace.read(series, start=start, stop=end), dtype=np.float64)
    shown = values[:, begin - start :]
    before = values[:, : begin - start] if begin - start >= 16 else values[:, : max(1, centre - start)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shown / median_rows(before)[:, None]
    offsets = steps[begin:end] - step
    found = rises(values, steps[start:end], [_lasts(spikes, step)], WITHIN) if end > start else []
    onset = found[0].onsets - step if found else np.full(len(trace.layers), np.nan)
    onset = np.where((onset >= -BEFORE) & (onset <= after), onset, np.nan)
    height = np.full(len(onset), np.nan)
    if found:
        log, rose = found[0].height, np.isfinite(onset)
        height[rose] = np.exp(log[rose].max(axis=1))
    return Neighbours(layer, step, trace.layers, offsets, ratio, onset, height, early=not found)


def _lasts(spikes: Sequence[Spike], step: int) -> tuple[int, int]:
    """First onset and last peak of the event around `step`."""
    near = [spike for spike in spikes if abs(spike.onset - step) <= 4 * WITHIN]
    for first, last in events_of(near, WITHIN):
        if first <= step <= last:
            return max(first, step - BEFORE), min(last, step + AFTER)
    return step, step


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[inverse]
