"""Rows of a trace, one a step: a buffer that takes them one by one, and what a reader hands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["RowBlock", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a trace: steps i64[n]; values by name, [L, n] for a layer series, [n] for a scalar.

    `generation` changes when a run was restarted from an earlier step: forget the rows that came before, then.
    """

    steps: np.ndarray
    values: dict[str, np.ndarray]
    generation: int

    def __len__(self) -> int:
        return len(self.steps)


class RowBlock:
    """Up to `capacity` rows in memory; `scalar_names` is shared by the blocks of one writer and only grows."""

    def __init__(self, capacity: int, layers: int, series: Mapping[str, str], scalar_names: list[str]) -> None:
        self.capacity = capacity
        self.rows = 0
        self.scalar_names = scalar_names
        self.scalar_count = len(scalar_names)
        self.steps = np.empty(capacity, np.int64)
        self.layers = {name: np.full((capacity, layers), np.nan, dtype) for name, dtype in series.items()}
        self.scalars = np.full((capacity, max(16, len(scalar_names))), np.nan)

    @property
    def room(self) -> int:
        """How many more rows fit."""
        return self.capacity - self.rows

    def reserve_scalars(self) -> None:
        """Make room for scalars that were named after this block was made."""
        self.scalar_count = len(self.scalar_names)
        if self.scalar_count > self.scalars.shape[1]:
            extra = np.full((self.capacity, self.scalar_count - self.scalars.shape[1] + 16), np.nan)
            self.scalars = np.concatenate([self.scalars, extra], axis=1)

    def clear_row(self) -> None:
        """Take back what was set in the row that isn't finished."""
        self.scalars[self.rows] = np.nan
        for table in self.layers.values():
            table[self.rows] = np.nan

    def layer_values(self, name: str) -> np.ndarray:
        """The rows of one layer series, [L, rows]."""
        return self.layers[name][: self.rows].T

    def scalar_values(self) -> np.ndarray:
        """The rows of all scalars that had a name when this block was filled, [S, rows]."""
        return self.scalars[: self.rows, : self.scalar_count].T
