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

_BLOCK = 32  # rows of calm noise that are drawn together: longer than the noise remembers


def simulate(events: Sequence[Rise], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the onsets of `count` data sets in which the layers of each event rise together.

    The layers' common shape is their mean after each layer is moved by its median lag over the events, weighted by
    height; each layer is that shape times its own height, plus noise from the calm rows before the events, drawn in
    blocks of 32 rows with all layers together, so that the noise keeps its memory, its tails, and what layers share.
    Layers that fall at different speeds share no shape: where the last stay high for longer and noise is strong, some
    of the bias remains (LOG.md).

    Args:
        events: E of them, with layers that rose in `events[e].rows`.
        count: N.
        rng: the source of chance.

    Returns:
        f64[N, E, L], rows of each event; NaN where the layer did not rise, in the data or in the simulation.
    """
    rows = np.array([event.rows for event in events])
    lags = rows - np.nanmedian(rows, axis=1, keepdims=True)
    known = ~np.isnan(lags).all(axis=0)
    moves = np.zeros(rows.shape[1], int)
    moves[known] = np.rint(np.nanmedian(lags[:, known], axis=0)).astype(int)
    noise = _Noise(events)
    drawn = np.full((count, *rows.shape), np.nan)
    for e, event in enumerate(events):
        rose = np.flatnonzero(~np.isnan(event.rows))
        shape, heights = _common_shape(event.height[rose], moves[rose])
        height = heights[:, None] * shape + noise.draw(rose, len(shape), count, rng) * event.noise[rose, None]
        drawn[:, e, rose] = half_rises(height, event.noise[rose])
    return drawn


def _common_shape(height: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f64[W] the shape with peak 1, and f64[L] the layers' heights in it."""
    moved = np.array([_moved(row, by) for row, by in zip(height, moves, strict=True)])
    shape = height.max(axis=1) @ moved
    shape = shape / shape.max()
    # The height that fits best over the whole rise: a layer's highest value alone is too high by its noise.
    return shape, moved @ shape / (shape @ shape)


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
