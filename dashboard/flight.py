"""Flight-recorder detail of one event: single parameters' gradient norms, as multiples of their own normal."""

from __future__ import annotations

__all__ = ["Detail", "detail_of"]

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..traces.flights import Flight
from ..traces.reader import Trace

NORMAL = 128  # steps before the onset whose median is the normal


@dataclass(frozen=True)
class Detail:
    """`ratio: f64[P, t]` at `offsets: f64[t]`, steps since the onset; NaN between windows and where unmeasured.

    A parameter's normal is its median in the 128 steps before the onset, or in fewer if there are no more. `layers` are
    the layers that the `parameters` belong to; `cut` is whether more of a spike was not kept.
    """

    offsets: NDArray[np.float64]
    ratio: NDArray[np.float64]
    parameters: tuple[str, ...]
    layers: tuple[str, ...]
    cut: bool
    cause: str

    @property
    def peaks(self) -> NDArray[np.float64]:
        """The highest ratio of each parameter at the onset and later, f64[P]; -inf without any."""
        shown = np.where(np.isnan(self.ratio) | (self.offsets < 0), -np.inf, self.ratio)
        return shown.max(axis=1, initial=-np.inf)


def detail_of(
    trace: Trace, onset: int, shown: tuple[int, int], layers: Collection[str], first: int | None = None
) -> Detail | None:
    """The parameters of `layers` in the windows that the steps `shown` (first, last) meet; None without a window.

    `first` is where the episode begins, if that is before the onset: its steps are no longer normal.
    """
    windows = [w for w in trace.flights if w.first_step <= shown[1] and w.last_step >= shown[0]]
    if not windows:
        return None
    chosen = [i for i, layer in enumerate(windows[0].layers) if layer in layers]
    if not chosen:
        return None
    steps, norms = _joined(windows, chosen)
    begin = onset if first is None else min(first, onset)
    before = norms[:, (steps >= begin - NORMAL) & (steps < begin)]
    normal = np.full(len(chosen), np.nan)
    measured = np.isfinite(before).any(axis=1)
    normal[measured] = np.nanmedian(np.where(np.isfinite(before[measured]), before[measured], np.nan), axis=1)
    seen = (steps >= shown[0]) & (steps <= shown[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = norms[:, seen] / np.where(normal > 0, normal, np.nan)[:, None]
    names = tuple(windows[0].parameters[i] for i in chosen)
    owners = tuple(dict.fromkeys(windows[0].layers[i] for i in chosen))
    causes = [window.cause for window in windows]
    cause = "error" if "error" in causes else "spike"
    return Detail(steps[seen] - onset, ratio, names, owners, any(w.cut for w in windows), cause)


def _joined(windows: list[Flight], chosen: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps f64[t] and norms f64[P, t] of several windows, with a column of NaN where steps are missing between."""
    steps: list[NDArray[np.float64]] = []
    norms: list[NDArray[np.float64]] = []
    for window in windows:
        if steps and window.first_step > steps[-1][-1] + 1:
            steps.append(steps[-1][-1:] + 0.5)
            norms.append(np.full((len(chosen), 1), np.nan))
        steps.append(window.steps.astype(np.float64))
        norms.append(window.grad_norm[chosen].astype(np.float64))
    return np.concatenate(steps), np.concatenate(norms, axis=1)
