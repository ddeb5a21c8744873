"""Which layer spiked first, and by how many steps a layer: onsets against depth, over model-level events.

Depth is a layer's place in the order of the forward pass, counted from 0. The paper's claim is that gradients spike
first in the first layer and tens of iterations later in the last (Chen, Xie and He, Sec. 4.2, arXiv 2104.02057).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .all_at_once import simulate
from .lead_time import bootstrap_median
from .onset_report import OnsetOrder
from .rank_tests import Trend, trend
from .rises import Rise, events_of, rises
from .series import Rows, is_trace, read_rows
from .spikes import Spike, find_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["MIN_EVENTS", "onset_order"]

MIN_EVENTS = 5
_LEAST_LAYERS = 3  # an event in which fewer layers rise has no order


def onset_order(
    source: Trace | ArrayLike,
    events: Iterable[Spike | int] | None = None,
    *,
    series: str = "grad_norm",
    layer: Sequence[str] | None = None,
    steps: ArrayLike | None = None,
    layers: Sequence[str] | None = None,
    within: int = 32,
    surrogates: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> OnsetOrder:
    """Find in which order the layers rise, free of the amplitude trap.

    A layer's onset in an event is where it reaches half of its own log peak; slopes and ranks over depth are compared
    with those of simulated data that have the run's own heights and noise, but in which all layers rise at once: once
    all of one shape, once each falling in its own way, and the larger p counts.

    Args:
        source: a trace; or values > 0, f[L, T], layers in the order of the forward pass.
        events: spikes of any layers, or steps; those near each other form one event (default: `find_spikes(source)`
            beyond the warm-up).
        series: which of a trace's layer series.
        layer: keep only these layers. Depth is then counted among them.
        steps: i64[T], an array's step numbers.
        layers: L names of an array's rows.
        within: an onset at most this many steps after the one before belongs to the same event, in steps.
        surrogates: N simulated data sets; p = (1 + #{T* >= T}) / (N + 1).
        alpha: the level of the verdict.
        seed: of the random numbers.

    Returns:
        The order. With fewer than 5 events in which at least 3 layers rise, `testable=False` and only the description.

    Raises:
        ValueError: `within`, `surrogates` or `alpha` out of range, and what `find_spikes` raises.

    >>> x = np.full((4, 3000), 0.5)
    >>> for event in range(500, 3000, 500):
    ...     for depth in range(4):
    ...         x[depth, event + 2 * depth : event + 2 * depth + 5] = 6.0 - depth
    >>> order = onset_order(x, range(500, 3000, 500))
    >>> order.steps_per_layer, order.first_to_last, order.correlation
    (2.0, 6.0, (1.0, 1.0, 1.0, 1.0, 1.0))
    """
    _check(within, surrogates, alpha)
    rows = read_rows(source, series, layer=layer, steps=steps, layers=layers)
    if events is None:
        events = _spikes(source, rows, series)
    joined = events_of(events, within)
    found = rises(rows.values, rows.steps, joined, within)
    found = [event for event in found if np.isfinite(event.rows).sum() >= _LEAST_LAYERS]
    rng = np.random.default_rng(seed)
    onsets = np.array([event.onsets for event in found]).reshape(len(found), len(rows.names))
    rose = np.flatnonzero(np.isfinite(onsets).any(axis=0))
    seen = _against_chance(found, onsets, surrogates, rng) if found else None
    return _report(onsets[:, rose], tuple(rows.names[k] for k in rose), seen, len(joined), surrogates, alpha, seed)


def _check(within: int, surrogates: int, alpha: float) -> None:
    if isinstance(within, bool) or within < 1:
        raise ValueError(f"within={within!r}; the reach of an event is a whole number of steps, at least 1")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}; give a level between 0 and 1, such as 0.05")
    if surrogates + 1 < 1 / alpha:
        raise ValueError(
            f"surrogates={surrogates} can't reach p = {alpha}; give at least {1 / alpha - 1:.0f}, best 999"
        )


def _against_chance(found: Sequence[Rise], onsets: np.ndarray, count: int, rng: np.random.Generator) -> Trend:
    """The trend and its bias under one shape of all layers, with the larger p-values of the two nulls."""
    nulls = [trend(onsets, simulate(found, count, rng, own_falls=own), rng) for own in (False, True)]
    larger = {
        name: tuple(max(ends) for ends in zip(*(getattr(null, name) for null in nulls), strict=True))
        for name in ("p_layers", "p_events")
    }
    return replace(nulls[0], **larger)


def _spikes(source: Trace | ArrayLike, rows: Rows, series: str) -> list[Spike]:
    if is_trace(source):
        found = find_spikes(source, series=series, layer=rows.names)
    else:
        found = find_spikes(rows.values, steps=rows.steps, layers=rows.names)
    return [spike for spike in found if not spike.warmup]


def _report(
    onsets: np.ndarray,
    names: tuple[str, ...],
    seen: Trend | None,
    events: int,
    surrogates: int,
    alpha: float,
    seed: int,
) -> OnsetOrder:
    enough = seen is not None and len(onsets) >= MIN_EVENTS
    slopes = np.empty(0) if seen is None else seen.slopes
    middle = float(np.median(slopes)) if len(slopes) else math.nan
    low, high = bootstrap_median(slopes, np.random.default_rng(seed))
    ends = [None, None] if not enough or seen is None else [max(seen.p_layers[i], seen.p_events[i]) for i in (0, 1)]
    return OnsetOrder(
        testable=enough,
        reason="" if enough else f"{len(onsets)} events in which {_LEAST_LAYERS} layers rise, {MIN_EVENTS} are needed",
        p=ends[0],
        p_reverse=ends[1],
        p_layers=seen.p_layers[0] if enough and seen else None,
        p_events=seen.p_events[0] if enough and seen else None,
        alpha=alpha,
        layers=names,
        onsets=tuple(tuple(None if math.isnan(at) else int(at) for at in row) for row in onsets.tolist()),
        correlation=() if seen is None else tuple(None if math.isnan(r) else r for r in seen.correlation.tolist()),
        slopes=tuple(slopes.tolist()),
        steps_per_layer=middle,
        low=low,
        high=high,
        first_to_last=middle * max(len(names) - 1, 0),
        bias=math.nan if seen is None else float(seen.bias.mean()),
        page_l=math.nan if seen is None else seen.page_l,
        ties=_ties(onsets),
        first=dict(zip(names, _first(onsets).tolist(), strict=True)),
        left_out=events - len(onsets),
        surrogates=surrogates,
        seed=seed,
    )


def _ties(onsets: np.ndarray) -> float:
    upper = np.triu(np.ones((onsets.shape[1],) * 2, bool), 1)
    both = ~np.isnan(onsets[:, :, None] + onsets[:, None, :]) & upper
    same = (onsets[:, :, None] == onsets[:, None, :]) & upper
    return float(same.sum() / both.sum()) if both.any() else math.nan


def _first(onsets: np.ndarray) -> np.ndarray:
    if not len(onsets):
        return np.zeros(onsets.shape[1])
    leading = onsets == np.nanmin(onsets, axis=1, keepdims=True)
    return (leading / leading.sum(axis=1, keepdims=True)).mean(axis=0)
