"""What a command can look at: a trace, a CSV file with a column a series, or a .npy array; steps as they are given."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..probes import Dip, Spike
    from ..traces import Trace

__all__ = ["Table", "curve_of", "dips_of", "has_curve", "open_source", "spikes_of"]

STEP_COLUMNS = ("step", "steps", "_step", "iteration", "iter", "global_step")
CURVES = ("knn_accuracy", "accuracy")


@dataclass(frozen=True)
class Table:
    """The columns of a file, readable like a trace: the columns to search for spikes are its layers.

    Attributes:
        path: the file.
        layers: names of the rows of `grad_norm`.
        steps: i64[T].
        values: every numeric column but the steps, f64[T], by its name; and `grad_norm` f64[L, T].
        curve: the accuracy column, or "" if there is none.
    """

    path: Path
    layers: tuple[str, ...]
    steps: np.ndarray
    values: dict[str, np.ndarray]
    curve: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    state: str = "file"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def scalars(self) -> tuple[str, ...]:
        """The names of the columns that are no layers."""
        return tuple(name for name, series in self.values.items() if series.ndim == 1 and name not in self.layers)

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the series with a row a layer."""
        return tuple(name for name, series in self.values.items() if series.ndim == 2)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns but the steps."""
        return tuple(name for name, series in self.values.items() if series.ndim == 1)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise ValueError(f"{self.path} has no column {name!r} with numbers; it has {', '.join(self.columns)}")
        return self.values[name]


def open_source(
    path: str | Path, *, columns: Sequence[str] = (), step_column: str | None = None, curve: str | None = None
) -> Trace | Table:
    """Open a run's trace, a CSV file (`.csv`, `.tsv`) or an array (`.npy`, [T] or one row a layer [L, T]).

    Args:
        path: the file or folder, or a trace's URL.
        columns: the columns (rows of an array: "0", "1", …) to search for spikes; by default all that hold numbers but
            the steps and the accuracy.
        step_column: the column of the step numbers; by default one called step, iteration or iter, else rows count.
        curve: the accuracy column; by default knn_accuracy or accuracy.

    An empty cell is "not measured"; the word nan is a result of the run, and so not finite.

    Raises:
        ValueError: no such column, no numbers, steps that don't increase, not such a file.
        OSError: the file cannot be read.
    """
    path = Path(path) if "://" not in str(path) else path
    suffix = Path(path).suffix.lower()
    if isinstance(path, str) or suffix not in (".csv", ".tsv", ".npy") or path.is_dir():
        if step_column is not None:
            raise ValueError(f"--step-column is for CSV files, and {path} is read as a trace, which has its own steps")
        from ..traces import open_trace

        return open_trace(path)
    if suffix == ".npy" and step_column is not None:
        raise ValueError(f"--step-column is for CSV files, and {path} is an array: its steps are its columns' numbers")
    found = _array_columns(path) if suffix == ".npy" else _csv_columns(path, "\t" if suffix == ".tsv" else ",")
    return _table(path, found, columns, step_column, curve)


def spikes_of(source: Trace | Table, columns: Sequence[str] = (), **options: Any) -> list[Spike]:
    """Find spikes; in a trace `columns` may name one of its series, grad_norm by default."""
    from ..probes import find_spikes

    if isinstance(source, Table):
        return find_spikes(source, **options)  # pyright: ignore[reportArgumentType]
    if len(columns) > 1:
        raise ValueError(f"{len(columns)} columns are asked of the trace {source.path}; name one of its series")
    return find_spikes(source, series=columns[0] if columns else "grad_norm", **options)


def curve_of(source: Trace | Table, curve: str | None = None) -> str:
    """The name of the accuracy curve: the one that was named, or the one that there is, or ""."""
    own = source.curve if isinstance(source, Table) else "knn_accuracy" if "knn_accuracy" in source.scalars else ""
    return curve or own


def has_curve(source: Trace | Table, curve: str | None = None) -> bool:
    """Whether there is an accuracy curve, or one was named."""
    return bool(curve_of(source, curve))


def dips_of(source: Trace | Table, curve: str | None = None, **options: Any) -> list[Dip]:
    """Find the dips of the accuracy curve, or of the series `curve`."""
    from ..probes import find_dips

    if not has_curve(source, curve):
        known = ", ".join(source.columns if isinstance(source, Table) else source.scalars) or "none"
        raise ValueError(f"{source.path} has no accuracy curve; name one of its columns, which are {known}")
    name = curve_of(source, curve)
    try:
        return find_dips(source, series=name, **options)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise ValueError(f"{name} of {source.path}: {error}") from error


@dataclass(frozen=True)
class _Column:
    """Numbers f64[T], NaN where a cell is empty (`gap`) or says nan."""

    values: np.ndarray
    gap: np.ndarray

    def as_norm(self) -> np.ndarray:
        """The same with inf for a nan that is a result: one that stands after the first number."""
        result = np.isnan(self.values) & ~self.gap & np.logical_or.accumulate(~np.isnan(self.values))
        return np.where(result, np.inf, self.values)


def _table(
    path: Path, found: dict[str, _Column], columns: Sequence[str], step_column: str | None, curve: str | None
) -> Table:
    from ..probes.series import step_numbers

    for name in (*columns, *(given for given in (step_column, curve) if given)):
        if name not in found:
            raise ValueError(f"{path} has no column {name!r} with numbers; it has {', '.join(found) or 'none'}")
    rows = max((len(column.values) for column in found.values()), default=0)
    if not rows:
        raise ValueError(f"{path} holds no numbers; give a file with a column of them for each series")
    step_column = step_column or next((name for name in found if name.lower() in STEP_COLUMNS), None)
    curve = curve or next((name for name in CURVES if name in found and name not in columns), "")
    layers = tuple(columns) or tuple(name for name in found if name not in (step_column, curve))
    try:
        steps = step_numbers(found[step_column].values if step_column else np.arange(rows), rows)
    except ValueError as error:
        raise ValueError(f"the column {step_column} of {path} can't be the steps: {error}") from error
    values = {name: column.values for name, column in found.items() if name != step_column}
    norms = np.array([found[name].as_norm() for name in layers]).reshape(len(layers), rows)
    return Table(path, layers, steps, values | {"grad_norm": norms}, curve)


def _csv_columns(path: Path, separator: str) -> dict[str, _Column]:
    """The columns whose cells are all numbers or empty, and some are numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="strict") as lines:
            table = [row for row in csv.reader(lines, delimiter=separator) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as CSV text: {error}") from error
    head, body = ([cell.strip() for cell in table[0]], table[1:]) if table else ([], [])
    if len(set(head)) < len(head):
        raise ValueError(f"{path} has two columns called {max(head, key=head.count)!r}; give each a name of its own")
    ragged = next((row for row, cells in enumerate(body, 2) if len(cells) != len(head)), None)
    if ragged is not None:
        raise ValueError(f"row {ragged} of {path} has {len(body[ragged - 2])} cells under {len(head)} names; mend it")
    read = {name: _numbers([row[k].strip() for row in body]) for k, name in enumerate(head)}
    return {name: column for name, column in read.items() if column is not None}


def _numbers(cells: Sequence[str]) -> _Column | None:
    gap = np.array([not cell for cell in cells], bool)
    try:
        values = np.array([float(cell or "nan") for cell in cells])
    except ValueError:  # words: a column that is no series
        return None
    return None if gap.all() else _Column(values, gap)


def _array_columns(path: Path) -> dict[str, _Column]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy array of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        told = f"shape {array.shape} and dtype {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise ValueError(f"{path} has {told}; give real numbers, one series [T] or one row a layer [L, T]")
    rows = np.atleast_2d(array).astype(float)
    names = ["series"] if array.ndim == 1 else [str(k) for k in range(len(rows))]
    return {name: _Column(row, np.zeros(len(row), bool)) for name, row in zip(names, rows, strict=True)}
