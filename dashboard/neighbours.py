"""Every layer around one spike: relative gradient norm against steps since the onset, and each layer's own onset."""

from __future__ import annotations

__all__ = ["Neighbours", "neighbours"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..traces.reader import Trace
from .columns import median_rows

BEFORE, AFTER = 24, 72  # steps shown around the onset
NORMAL_ROWS = 256
ROSE = 1.5  # a layer has risen when it is this many times its normal


@dataclass(frozen=True)
class Neighbours:
    """`offsets` i64[m] steps from the onset; `ratio` f64[L, m]; f64[L] `onset`, `peak` (offsets) and `height` (ratio),
    NaN where the layer did not rise.
    """

    layer: str
    step: int
    layers: tuple[str, ...]
    offsets: NDArray[np.int64]
    ratio: NDArray[np.float64]
    onset: NDArray[np.float64]
    peak: NDArray[np.float64]
    height: NDArray[np.float64]

    @property
    def rose(self) -> NDArray[np.bool_]:
        """Which layers reached 1.5 times their normal."""
        return np.isfinite(self.onset)

    @property
    def depth_correlation(self) -> float:
        """Spearman's rank correlation between depth and onset over the layers that rose; NaN below four of them."""
        rose = np.flatnonzero(self.rose)
        if len(rose) < 4 or np.ptp(self.onset[rose]) == 0:
            return float("nan")
        return float(np.corrcoef(_ranks(rose.astype(float)), _ranks(self.onset[rose]))[0, 1])


def neighbours(trace: Trace, layer: str, step: int, *, series: str = "grad_norm") -> Neighbours:
    """The surroundings of the spike of `layer` with its onset at `step`.

    A layer's normal is the median of the 256 rows before the picture; its onset is the first step of the rise at 50 %
    of its own log peak, so a strong layer does not seem early because it is strong.
    """
    steps = trace.steps
    centre = int(np.searchsorted(steps, step))
    begin, end = (int(np.searchsorted(steps, step - BEFORE)), int(np.searchsorted(steps, step + AFTER, "right")))
    start = max(0, begin - NORMAL_ROWS)
    values = np.asarray(trace.read(series, start=start, stop=end), dtype=np.float64)
    shown = values[:, begin - start :]
    before = values[:, : begin - start] if begin - start >= 16 else values[:, : max(1, centre - start)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shown / median_rows(before)[:, None]
    offsets = steps[begin:end] - step
    found = [_rise(row, offsets) for row in ratio]
    onset, peak, height = (np.array(part, dtype=np.float64) for part in zip(*found, strict=True))
    return Neighbours(layer, step, trace.layers, offsets, ratio, onset, peak, height)


def _rise(ratio: NDArray[np.float64], offsets: NDArray[np.int64]) -> tuple[float, float, float]:
    """Onset and peak (offsets) and height of one layer's rise; the peak is looked for from 16 steps before on."""
    usable = np.where(np.isnan(ratio) | (offsets < -16), 0.0, ratio)
    if not len(usable) or usable.max() < ROSE:
        return float("nan"), float("nan"), float("nan")
    peak = int(np.argmax(usable))
    below = np.flatnonzero(~(usable[:peak] >= np.sqrt(usable[peak])))
    onset = int(below[-1]) + 1 if len(below) else 0
    return float(offsets[onset]), float(offsets[peak]), float(usable[peak])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[inverse]
