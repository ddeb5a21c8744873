"""One line for a run, to compare runs by: how often and how long it spiked, where most, and what its dips cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .detectors import FLAGGED, State
from .detectors import detector as load_detector
from .dips import Dip, find_dips
from .series import blocks, is_trace
from .spikes import Spike, find_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["RunScores", "run_scores", "spike_score"]


@dataclass(frozen=True)
class RunScores:
    """Scores of a run, warm-up left out.

    Attributes:
        steps, layers: what was looked at.
        spikes_per_10k: spikes in 10,000 steps, mean over layers.
        share_in_spike: share of the run, from 0 to 1, in which at least one layer is between a start and an end.
        worst_layer: the layer with most spikes, None if there is no spike; `worst_per_10k`: its spikes in 10,000 steps.
        dips: how many; None where there is no accuracy curve.
        dip_mass: sum of their areas, accuracy (fractions) times steps: 1 is a whole step's accuracy lost.
        olmo2, olmo_core: OLMo's spike score, see `spike_score`, under both definitions; None if not asked for.
    """

    steps: int
    layers: int
    spikes_per_10k: float
    share_in_spike: float
    worst_layer: str | None
    worst_per_10k: float
    dips: int | None
    dip_mass: float | None
    olmo2: float | None
    olmo_core: float | None


def run_scores(
    source: Trace | ArrayLike,
    *,
    series: str = "grad_norm",
    spikes: Sequence[Spike] | None = None,
    dips: Sequence[Dip] | None = None,
    olmo: bool = True,
) -> RunScores:
    """Work out a run's scores.

    Args:
        source: a trace, or values >= 0, f[T] or f[L, T].
        series: which series of a trace.
        spikes, dips: those found already (default: found here, dips only of a trace that has a kNN curve).
        olmo: also OLMo's spike score, which takes longer than all the rest.

    >>> x = np.tile([0.9, 1.1], (2, 2500)); x[1, 2000:2010] = 9.0
    >>> scores = run_scores(x)
    >>> scores.spikes_per_10k, scores.share_in_spike, scores.worst_layer, scores.olmo2
    (1.0, 0.002, '1', 0.001)
    """
    spikes = find_spikes(source, series=series) if spikes is None else spikes
    names, steps = _names_and_steps(source, series)
    warmup = int(source.meta.get("warmup_steps") or 0) if is_trace(source) else 0
    kept = [spike for spike in spikes if not spike.warmup]
    judged = steps[steps >= warmup]
    if dips is None and is_trace(source) and "knn_accuracy" in source.scalars:
        dips = find_dips(source)
    most = Counter(spike.layer for spike in kept).most_common(1)
    n = max(1, len(judged))
    return RunScores(
        steps=len(judged),
        layers=len(names),
        spikes_per_10k=10_000 * len(kept) / n / max(1, len(names)),
        share_in_spike=_covered(kept, judged) / n,
        worst_layer=most[0][0] if most else None,
        worst_per_10k=10_000 * most[0][1] / n if most else 0.0,
        dips=None if dips is None else len(dips),
        dip_mass=None if dips is None else float(sum(dip.area for dip in dips)),
        olmo2=spike_score(source, "olmo2", series=series) if olmo else None,
        olmo_core=spike_score(source, "olmo_core", series=series) if olmo else None,
    )


def spike_score(source: Trace | ArrayLike, rule: str = "olmo2", *, series: str = "grad_norm") -> float:
    """OLMo's spike score: the share of measured values that a rule flags, from 0 to 1, over all layers.

    Args:
        source: a trace, or values >= 0, f[T] or f[L, T].
        rule: `olmo2`, 7 σ from the mean of the last 1,000 on either side (arXiv 2501.00656); `olmo_core`, more than 6 σ
            above the mean of the last 128; or another detector.
        series: which series of a trace.

    >>> x = np.tile([0.9, 1.1], 1000); x[1500] = 9.0
    >>> spike_score(x), spike_score(x, "olmo_core")
    (0.0005, 0.0005)
    """
    detector = load_detector(rule)
    thresholds = detector.configure({})
    states: list[State | None] = []
    flagged = measured = 0
    for rows in blocks(source, series):
        states = states or [None] * len(rows.names)
        for i, row in enumerate(np.asarray(rows.values, float)):
            values = row[~np.isnan(row)]
            scores, states[i] = detector.detect(values, states[i], thresholds)
            flagged += int(np.count_nonzero(scores.flags == FLAGGED))
            measured += len(values)
    for state in states if detector.finish is not None else []:
        flagged += int(np.count_nonzero(detector.finish(state, thresholds)[0].flags == FLAGGED))  # type: ignore[misc]
    return flagged / max(1, measured)


def _names_and_steps(source: Any, series: str) -> tuple[Sequence[str], np.ndarray]:
    if is_trace(source):
        return ([series] if series in source.scalars else source.layers), source.steps
    rows = next(blocks(source, series))
    return rows.names, rows.steps


def _covered(spikes: Sequence[Spike], steps: np.ndarray) -> int:
    """How many of these steps lie in some spike."""
    inside = np.zeros(len(steps) + 1, int)
    for spike in spikes:
        inside[np.searchsorted(steps, spike.start)] += 1
        inside[np.searchsorted(steps, spike.end, side="right")] -= 1
    return int(np.count_nonzero(np.cumsum(inside[:-1]) > 0))
