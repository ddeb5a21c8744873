"""Three checks on a precursor: the reverse direction, a layer in the middle, and shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coincidence import Rate, rate
from .sessions import Session

__all__ = ["Controls", "LayerContrast", "Shuffled", "caught", "layer_contrast", "shuffled_labels"]


@dataclass(frozen=True)
class LayerContrast:
    """Whether one layer warns of more dips than another.

    Attributes:
        layer: the first layer's name.
        control: the name of the block halfway down.
        rate: precursor rate of `layer`.
        control_rate: precursor rate of `control`.
        only_layer: dips that only `layer` has a spike before.
        only_control: dips that only `control` has one before.
        p: two-sided exact sign test on those two counts (McNemar 1947): 2·P(Bin(n, 1/2) >= the larger), at most 1.
    """

    layer: str
    control: str
    rate: Rate
    control_rate: Rate
    only_layer: int
    only_control: int
    p: float


@dataclass(frozen=True)
class Shuffled:
    """What remains when it is forgotten which events were spikes and which dips.

    Attributes:
        rate: mean precursor rate over the shuffles: all events of a run (spikes of one layer, dips) keep their steps,
            the labels are dealt anew. Events that come in bursts keep coming in bursts.
        p: (1 + #{shuffles with at least as many hits as the data}) / (shuffles + 1). A precursor should beat them.
    """

    rate: float
    p: float


@dataclass(frozen=True)
class Controls:
    """Attributes:
    reverse_rate: share of dips with a spike of the best layer within the best lag *after* them.
    reverse_p: p-value of the smallest reverse test over all layers and lags, by the same surrogates and the same
        correction. If spikes follow dips as much as they precede them, both may have a common cause.
    layers: the first layer against the middle one, at the best lag; None where they are the same.
    shuffled: the best layer and lag with shuffled labels.
    """

    reverse_rate: Rate
    reverse_p: float | None
    layers: LayerContrast | None
    shuffled: Shuffled


def caught(run: Session, layer: str, lag: int) -> np.ndarray:
    """Which dips of a run have a spike of `layer` in the `lag` steps before them: bool[D]."""
    onsets = run.onsets[layer]
    return np.searchsorted(onsets, run.by) > np.searchsorted(onsets, run.after + 1 - lag)


def layer_contrast(runs: Sequence[Session], layer: str, control: str, lag: int) -> LayerContrast:
    """Compare two layers dip by dip."""
    mine = np.concatenate([caught(run, layer, lag) for run in runs])
    other = np.concatenate([caught(run, control, lag) for run in runs])
    only_mine, only_other = int((mine & ~other).sum()), int((other & ~mine).sum())
    return LayerContrast(
        layer,
        control,
        rate(int(mine.sum()), len(mine)),
        rate(int(other.sum()), len(mine)),
        only_mine,
        only_other,
        _sign_test(only_mine, only_other),
    )


def shuffled_labels(runs: Sequence[Session], layer: str, lag: int, count: int, rng: np.random.Generator) -> Shuffled:
    """Deal the labels spike and dip anew over each run's events, `count` times."""
    hits, total, observed = np.zeros(count), 0, 0
    for run in runs:
        onsets = run.onsets[layer]
        after, by = np.concatenate([onsets - 1, run.after]), np.concatenate([onsets, run.by])
        # [i, j]: event i, were it a spike, is followed by event j, were it a dip.
        follows = (by[:, None] < by) & (by[:, None] > after - lag)
        is_dip = rng.permuted(np.tile(np.arange(len(by)) < len(run.by), (count, 1)), axis=1)
        hits += (is_dip & ((~is_dip).astype(np.float32) @ follows.astype(np.float32) > 0.5)).sum(axis=1)
        observed += int(caught(run, layer, lag).sum())
        total += len(run.by)
    return Shuffled(float(hits.mean() / total), (1 + int((hits >= observed).sum())) / (count + 1))


def _sign_test(a: int, b: int) -> float:
    n = a + b
    tail = sum(math.comb(n, k) for k in range(max(a, b), n + 1))
    return min(1.0, 2 * tail / 2**n)
