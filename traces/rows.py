"""Rows of a trace, one a step: a buffer that takes them one by one, and what a reader hands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .schema import MAX_SCALARS

__all__ = ["RowBlock", "RowLayout", "Rows"]


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


class RowLayout:
    """What a row consists of: a value per layer for each of `series` (name -> dtype), and the scalars named so far.

    Scalars get a column when they are first seen; columns are only ever added.
    """

    def __init__(self, layers: int, series: Mapping[str, str], scalar_names: list[str]) -> None:
        self.layers = layers
        self.series = dict(series)
        self.scalar_names = scalar_names
        self._columns = {name: column for column, name in enumerate(scalar_names)}

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory, with 16 scalars."""
        return sum(np.dtype(kind).itemsize * self.layers for kind in self.series.values()) + 8 * 17

    def fill(self, block: RowBlock, values: Mapping[str, Any]) -> None:
        """Set the values of the block's next row; raises ValueError if one has another shape."""
        row, columns = block.rows, self._columns
        for name, value in values.items():
            table = block.layers.get(name)
            if table is not None:
                if np.shape(value) != table.shape[1:]:
                    raise self._wrong_value(name, value, f"an array of shape {table.shape[1:]}, one value per layer")
                table[row] = value
                continue
            column = columns.get(name)
            if column is None:
                column = self._add_scalar(name)
                block.reserve_scalars()
            try:
                block.scalars[row, column] = float(value)
            except (TypeError, ValueError) as error:
                raise self._wrong_value(name, value, "one number") from error

    def split(self, values: Mapping[str, Any], rows: int) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
        """Part arrays of many rows into layer series by name, [L, rows], and scalars by column, [rows].

        Raises ValueError if one has another shape; no scalar is added then.
        """
        layer_rows: dict[str, np.ndarray] = {}
        scalar_rows: dict[str, np.ndarray] = {}
        for name, value in values.items():
            kind = self.series.get(name)
            array = np.asarray(value, kind or np.float64)
            shape = (self.layers, rows) if kind else (rows,)
            if array.shape != shape:
                raise self._wrong_value(name, array, f"an array of shape {shape}, whose last axis is the steps")
            (layer_rows if kind else scalar_rows)[name] = array
        for name in scalar_rows:
            if name not in self._columns:
                self._add_scalar(name)
        return layer_rows, {self._columns[name]: array for name, array in scalar_rows.items()}

    def _add_scalar(self, name: str) -> int:
        """Begin a scalar and return its column."""
        if not isinstance(name, str) or not name or name == "step":
            raise ValueError(f"{name!r} can't be the name of a scalar; give a non-empty string other than 'step'")
        if len(self.scalar_names) >= MAX_SCALARS:
            raise ValueError(
                f"scalar {name!r} would be number {MAX_SCALARS + 1:,}; use names that don't change from step to step"
            )
        self._columns[name] = len(self.scalar_names)
        self.scalar_names.append(name)
        return self._columns[name]

    def _wrong_value(self, name: object, value: Any, wanted: str) -> ValueError:
        known = ", ".join(self.series) or "none"
        return ValueError(
            f"{name!r} was given as a {type(value).__name__} of shape {np.shape(value)}, and takes {wanted}; "
            f"the layer series of this trace are: {known}"
        )


class RowBlock:
    """Up to `capacity` rows in memory."""

    def __init__(self, capacity: int, layout: RowLayout) -> None:
        self.capacity = capacity
        self.rows = 0
        self.scalar_names = layout.scalar_names  # shared with other blocks; the first `scalar_count` count here
        self.scalar_count = len(layout.scalar_names)
        self.steps = np.empty(capacity, np.int64)
        self.layers = {name: np.full((capacity, layout.layers), np.nan, kind) for name, kind in layout.series.items()}
        self.scalars = np.full((capacity, max(16, self.scalar_count)), np.nan)

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
