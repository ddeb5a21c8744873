"""Noise, read off the run itself: its falls, found by the rule that finds its spikes, in 1/x.

Spikes are rises, so what falls is noise, with the tails and the level that the run has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .detectors import detector as load_detector
from .spikes import NaN, Spike, SpikeFinder

__all__ = ["above_the_threshold", "finders", "mirrored"]


def finders(
    layers: Sequence[str], detector: str, thresholds: dict[str, float], nan: NaN, warmup_steps: int = 0
) -> tuple[SpikeFinder, SpikeFinder]:
    """The finder of spikes, and the one that finds falls in what `mirrored` makes of the values."""
    # The default's threshold follows the lower tail, and in 1/x that is the spikes: there it must not follow anything.
    fixed = thresholds | ({"lift": 0.0} if _adapts(detector) else {})
    rises = SpikeFinder(layers, detector, warmup_steps, nan=nan, **thresholds)
    return rises, SpikeFinder(layers, detector, warmup_steps, nan="gap", **fixed)


def mirrored(values: np.ndarray) -> np.ndarray:
    """1/x, in which falls are rises; NaN for what has none.

    >>> mirrored(np.array([0.5, 0.0, np.inf])).tolist()
    [2.0, nan, nan]
    """
    usable = np.isfinite(values) & (values > 0)
    return np.divide(1.0, values, out=np.full(values.shape, np.nan), where=usable)


def above_the_threshold(noise: list[Spike], rises: SpikeFinder) -> list[Spike]:
    """Without falls of one or two steps that the threshold, where the run lifted it, would not have let through."""
    settings = rises.state_dict()
    if not _adapts(settings["detector"]):
        return noise
    states = zip(rises.layers, settings["states"], strict=True)
    reached = {name: state["detector"]["threshold"] if state["detector"] else 0.0 for name, state in states}
    return [spike for spike in noise if spike.duration > 2 or spike.z >= reached[spike.layer]]


def _adapts(detector: str) -> bool:
    return "lift" in load_detector(detector).Thresholds.__dataclass_fields__
