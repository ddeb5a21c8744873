"""What onsets would be if all layers rose at the same instant: simulated from each layer's own height and noise.

Noise moves the half of a low rise more than that of a high one, and moves it late, since the highest of noisy values
stands above the true peak. So even onsets at half height have a small trend where heights have one, and a test that
takes layers for alike finds it. Here the trend of chance is measured on the run's own heights and noise (a parametric
bootstrap), to be subtracted and tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rises import Rise, half_rises

__all__ = ["simulate"]

_ROUNDS = 3
_BLOCK = 32  # rows of calm noise that are drawn together: longer than the noise remembers


def simulate(events: Sequence[Rise], count: int, rng: np.random.Generator, *, own_falls: bool = False) -> np.ndarray:
    """Draw the onsets of `count` data sets in which the layers of each event rise together.

    All layers of an event rise alike: by the mean of the layers, each moved by its median lag over the events, weighted
    by height. They fall alike too, or with `own_falls` each in its own way, the mean over the events of how it fell: a
    layer that stays high for longer has a higher highest noise. That shape times the layer's own height, plus noise
    from the calm rows before the events, drawn in blocks of 32 rows with all layers together so that it keeps its
    memory, its tails and what layers share, is one simulated event.

    Args:
        events: E of them, with layers that rose in `events[e].rows`.
        count: N.
        rng: the source of chance.
        own_falls: take each layer's fall from the data: less bias where falls differ, and less certain where not.

    Returns:
        f64[N, E, L], rows of each event; NaN where the layer did not rise, in the data or in the simulation.
    """
    rows = np.array([event.rows for event in events])
    lags = rows - np.nanmedian(rows, axis=1, keepdims=True)
    known = ~np.isnan(lags).all(axis=0)
    moves = np.zeros(rows.shape[1], int)
    moves[known] = np.rint(np.nanmedian(lags[:, known], axis=0)).astype(int)
    noise, curves = _Noise(events), _curves(events, moves, _ROUNDS if own_falls else 0)
    drawn = np.full((count, *rows.shape), np.nan)
    for e, event in enumerate(events):
        rose = np.flatnonzero(~np.isnan(event.rows))
        unlike = noise.draw(rose, curves[e].shape[1], count, rng) * event.noise[rose, None]
        drawn[:, e, rose] = half_rises(curves[e][rose] + unlike, event.noise[rose])
    return drawn


def _curves(events: Sequence[Rise], moves: np.ndarray, rounds: int) -> list[np.ndarray]:
    """The log heights f[L, W] of each event without noise, all layers rising together; NaN where one did not rise."""
    moved = [_all_moved(event, moves) for event in events]
    common = [_common_shape(height) for height in moved]
    halves = [int(half_rises(shape, np.array(0.0))) for shape in common]
    shapes = [np.broadcast_to(shape, height.shape) for shape, height in zip(common, moved, strict=True)]
    for _ in range(rounds):  # heights tell how a layer falls, and how it falls tells the heights
        heights = [_fitted(height, shape) for height, shape in zip(moved, shapes, strict=True)]
        falls = _own_falls(moved, heights, halves)
        shapes = [_joined(shape, half, falls) for shape, half in zip(common, halves, strict=True)]
    return [_fitted(height, shape)[:, None] * shape for height, shape in zip(moved, shapes, strict=True)]


def _all_moved(event: Rise, moves: np.ndarray) -> np.ndarray:
    """f[L, W]; NaN for a layer that did not rise."""
    moved = np.array([_moved(row, by) for row, by in zip(event.height, moves, strict=True)])
    moved[np.isnan(event.rows)] = np.nan
    return moved


def _common_shape(height: np.ndarray) -> np.ndarray:
    """f64[W], the mean over the layers that rose, weighted by their highest value, with peak 1."""
    rose = height[~np.isnan(height).any(axis=1)]
    shape = rose.max(axis=1) @ rose
    return shape / shape.max()


def _fitted(height: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """f64[L], the heights that fit best over the whole event: a highest value alone is too high by its noise."""
    return (height * shape).sum(axis=1) / (shape * shape).sum(axis=1)


def _own_falls(moved: Sequence[np.ndarray], heights: Sequence[np.ndarray], halves: Sequence[int]) -> np.ndarray:
    """f64[L, n], each layer's mean over the events from their half on, as a share of its height; NaN if unknown."""
    length = max(height.shape[1] - half for height, half in zip(moved, halves, strict=True))
    total, weight = np.zeros((len(moved[0]), length)), np.zeros((len(moved[0]), length))
    for height, own, half in zip(moved, heights, halves, strict=True):
        after = height.shape[1] - half
        rose = ~np.isnan(own)
        total[rose, :after] += own[rose, None] * height[rose, half:]
        weight[rose, :after] += own[rose, None] ** 2
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)


def _joined(shape: np.ndarray, half: int, falls: np.ndarray) -> np.ndarray:
    """f64[L, W], up to its peak the common shape, and then each layer's own."""
    after = np.arange(len(shape)) > shape.argmax()
    own = falls[:, np.clip(np.arange(len(shape)) - half, 0, falls.shape[1] - 1)]
    return np.where(after & ~np.isnan(own), own, shape)


def _moved(row: np.ndarray, by: int) -> np.ndarray:
    """The row `by` places earlier, its ends held."""
    return row[np.clip(np.arange(len(row)) + by, 0, len(row) - 1)]


class _Noise:
    """The calm rows of all events, in units of each event's noise."""

    def __init__(self, events: Sequence[Rise]) -> None:
        self._rows = np.nan_to_num(np.concatenate([event.calm for event in events]))
        ends = np.cumsum([len(event.calm) for event in events])
        starts = ends - [len(event.calm) for event in events]
        self._starts = np.concatenate([np.arange(a, b - _BLOCK + 1) for a, b in zip(starts, ends, strict=True)])

    def draw(self, layers: np.ndarray, length: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """f64[N, l, W]."""
        blocks = -(-length // _BLOCK)
        at = rng.choice(self._starts, (count, blocks))[..., None] + np.arange(_BLOCK)
        return self._rows[:, layers].T[:, at.reshape(count, -1)[:, :length]].swapaxes(0, 1)
