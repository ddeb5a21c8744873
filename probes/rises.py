"""Model-level events, and when each layer rose in them: steps, at half of each layer's own log peak.

Fixed-threshold onsets are a trap: of layers that rise together the one that rises higher crosses the threshold first.
Half of its own peak is at the same place of every layer's rise. In noise the first crossing of that half is early and
the last one late; the number of values below it on the way to the peak is neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .spikes import Spike

__all__ = ["Rise", "events_of", "half_rises", "rises"]

_LOOK_BACK = 32  # steps before an event's first onset that may belong to some layer's rise
_CALM = 64  # rows before that, which tell a layer's calm level and its noise, ...
_LEAST_CALM = 32  # ... of which so many are needed
_LEAST_RATIO = math.log(1.5)  # a rise is at least so high in log units, ...
_LEAST_Z = 4.5  # ... and so many noise units, of which ...
_LEAST_NOISE = 0.05  # ... one is at least this, as in the detector
_CONSISTENT = 1.4826  # the MAD of normal noise times this is its standard deviation


@dataclass(frozen=True)
class Rise:
    """One event.

    Attributes:
        steps: i64[W], the steps in which layers may rise.
        height: f64[L, W], log values above each layer's calm level; NaN for a layer that was not measured.
        noise: f64[L], standard deviation of the calm rows, from their MAD, at least .05.
        calm: f64[C, L], the calm rows' distances to their level, in units of `noise`; NaN likewise.
        rows: f64[L], the row of `steps` at which a layer reached half of its peak; NaN where it did not rise.
    """

    steps: np.ndarray
    height: np.ndarray
    noise: np.ndarray
    calm: np.ndarray
    rows: np.ndarray

    @property
    def onsets(self) -> np.ndarray:
        """f64[L], the steps of `rows`."""
        rose = ~np.isnan(self.rows)
        found = np.full(len(self.rows), np.nan)
        found[rose] = self.steps[self.rows[rose].astype(int)]
        return found


def events_of(events: Iterable[Spike | int], within: int) -> list[tuple[int, int]]:
    """Join spikes of any layers into model-level events.

    Args:
        events: spikes, or steps.
        within: onsets at most this many steps after the last one belong to the same event.

    Returns:
        (first onset, last peak) of each event, in order.

    >>> events_of([500, 508, 900], within=32)
    [(500, 508), (900, 900)]
    """
    pairs = [(e.onset, max(e.peak, e.onset)) if isinstance(e, Spike) else (int(e), int(e)) for e in events]
    joined: list[tuple[int, int, int]] = []
    for onset, peak in sorted(pairs):
        if joined and onset - joined[-1][1] <= within:
            first, _, last = joined[-1]
            joined[-1] = (first, onset, max(last, peak))
        else:
            joined.append((onset, onset, peak))
    return [(first, last) for first, _, last in joined]


def rises(values: np.ndarray, steps: np.ndarray, events: Sequence[tuple[int, int]], within: int) -> list[Rise]:
    """Tell when each layer rose in each event.

    A layer's level is the median log value of the 64 rows before the event; its peak is the largest value from 32
    steps before the first onset (but not before the end of the event before) to `within` steps after the last peak.

    Args:
        values: f[L, T], positive series; zeros, NaN and Inf are bridged by a straight line between their neighbours.
        steps: i64[T].
        events: (first onset, last peak) of each, in order.
        within: steps.

    Returns:
        One entry for each event that has 32 rows before it.

    >>> x = np.full((2, 200), 0.5); x[0, 100:104] = 6.0; x[1, 105:109] = 2.0
    >>> rises(x, np.arange(200), [(100, 105)], 32)[0].onsets
    array([100., 105.])
    """
    found = []
    before = -math.inf
    for e, (first, last) in enumerate(events):
        start = int(np.searchsorted(steps, max(first - _LOOK_BACK, before + 1)))
        stop = int(np.searchsorted(steps, last + within, side="right"))
        if e + 1 < len(events):
            stop = min(stop, int(np.searchsorted(steps, max(events[e + 1][0] - _LOOK_BACK, last + 1))))
        before = last
        if min(start, _CALM) >= _LEAST_CALM and stop > start:
            found.append(_rise(values[:, max(0, start - _CALM) : stop], steps[start:stop]))
    return found


def half_rises(height: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Find the half of each rise.

    Args:
        height: f[..., W], log values above the calm level.
        noise: f[...], standard deviation of the calm rows.

    Returns:
        f64[...], the number of rows up to the peak that lie below half of it, which is the row at which the half is
        reached; NaN where the peak is below 1.5-fold or 4.5 noise units.

    >>> half_rises(np.array([0.0, 0.2, 1.0, 2.0, 1.0]), np.array(0.1))
    array(2.)
    """
    top = height.max(axis=-1)
    peak = height.argmax(axis=-1)
    below = (height < top[..., None] / 2) & (np.arange(height.shape[-1]) <= peak[..., None])
    rose = top >= np.maximum(_LEAST_RATIO, _LEAST_Z * noise)  # false for NaN
    return np.where(rose, below.sum(axis=-1), np.nan)


def _rise(values: np.ndarray, steps: np.ndarray) -> Rise:
    logs = np.array([_bridged(row) for row in np.asarray(values, float)])
    calm = logs[:, : -len(steps)]
    level = np.median(calm, axis=1, keepdims=True)
    spread = np.median(np.abs(calm - level), axis=1)
    noise = np.maximum(_CONSISTENT * spread, _LEAST_NOISE)
    height = logs[:, -len(steps) :] - level
    return Rise(steps, height, noise, ((calm - level) / noise[:, None]).T, half_rises(height, noise))


def _bridged(row: np.ndarray) -> np.ndarray:
    kept = np.isfinite(row) & (row > 0)
    if kept.mean() < 0.5:
        return np.full(len(row), np.nan)
    at = np.arange(len(row))
    return np.interp(at, at[kept], np.log(row[kept]))
