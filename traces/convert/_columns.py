"""What every converter speaks: columns of numbers over common steps, and which of them are layers; values unchanged."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceFormatError
from ..reader import Trace

__all__ = ["STEP_COLUMNS", "Mapping", "Samples", "Table", "columns_of", "find_step_column", "whole_steps"]

STEP_COLUMNS = ("step", "_step", "global_step", "trainer/global_step", "iteration", "iter", "steps")
_BLOCK_ROWS = 16_384

Group = Callable[[list[str]], dict[str, list[str]]]


@dataclass(frozen=True)
class Table:
    """Columns of numbers: steps i64[T] strictly increasing; columns f64[T] by name, NaN where `given`, b[T], is not.

    repeated: how many values were replaced by a later one of the same step. skipped: what was no number.
    layer_columns: patterns, as in `Mapping`, of columns that this format keeps by layer.
    """

    steps: np.ndarray
    columns: dict[str, np.ndarray]
    given: dict[str, np.ndarray]
    config: dict[str, Any] = field(default_factory=dict)
    repeated: int = 0
    skipped: tuple[str, ...] = ()
    layer_columns: tuple[str, ...] = ()


class Samples:
    """Collects numbers in any order, one at a time, and lays them out as a table.

    >>> samples = Samples()
    >>> for step, name, value in [(2, "loss", 0.5), (1, "loss", 1.0), (2, "lr", 0.1), (2, "loss", 0.25)]:
    ...     samples.add(step, name, value)
    >>> table = samples.table()
    >>> table.steps.tolist(), table.columns["loss"].tolist(), table.repeated
    ([1, 2], [1.0, 0.25], 1)
    """

    def __init__(self) -> None:
        self._rows: array[int] = array("q")
        self._steps: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def row(self, step: int) -> None:
        """Take note of a step, which may have no numbers."""
        self._rows.append(step)

    def column(self, name: str) -> None:
        """Take note of a column, which may have no numbers."""
        if name not in self._steps:
            self._steps[name], self._values[name] = array("q"), array("d")

    def add(self, step: int, name: str, value: float) -> None:
        """Take one number; a later one for the same step and name replaces it."""
        if name not in self._steps:
            self.column(name)
        self._steps[name].append(step)
        self._values[name].append(value)

    def table(
        self,
        config: dict[str, Any] | None = None,
        skipped: Iterable[str] = (),
        layer_columns: tuple[str, ...] = (),
    ) -> Table:
        """Lay the numbers out by step."""
        at = {name: np.frombuffer(steps, np.int64) for name, steps in self._steps.items()}
        steps = np.unique(np.concatenate([np.frombuffer(self._rows, np.int64), *at.values()]))
        columns, given, repeated = {}, {}, 0
        for name, own in at.items():
            rows = np.searchsorted(steps, own)
            columns[name], given[name] = np.full(len(steps), np.nan), np.zeros(len(steps), bool)
            columns[name][rows] = np.frombuffer(self._values[name])  # in order, so that the last one stays
            given[name][rows] = True
            repeated += len(rows) - int(given[name].sum())
        return Table(steps, columns, given, config or {}, repeated, tuple(skipped), layer_columns)


@dataclass(frozen=True)
class Mapping:
    """Which columns become layers, and what everything is called.

    layer_columns: patterns such as `grad_norm/LAYER`, or `update_rms=update/LAYER.rms` where the series shall have a
        name of its own; the word LAYER stands for the layer's name. They come before the well-known ones, which are
        `grad_norm/LAYER` (this package's own exports), `grad_2.0_norm/LAYER` (Lightning), `grad/LAYER.norm` (OLMo) and
        `l2_norm/grad/LAYER` (Composer).
    rename: new names by old ones, for scalars and layers, such as `validation/accuracy` -> `knn_accuracy`.
    group: turns parameter names into `{layer: [parameters]}`, ordered; their norms are added by squares.

    Without a column a layer, a norm of the whole gradient (`grad_norm`, `train/grad_norm`, `total_norm`, …) becomes
    `grad_norm` of one layer that is called `model`. Gradient norms that are NaN where a number was due become Inf: in a
    trace NaN means "not measured", and a broken gradient is what the reader looks for.
    """

    layer_columns: Sequence[str] = ()
    rename: dict[str, str] = field(default_factory=dict)
    group: Group | None = None

    def patterns(self, more: Iterable[str] = ()) -> list[tuple[str, re.Pattern[str]]]:
        """The series' name and the regular expression of each pattern, in the order they are tried; `more` are last."""
        return [*map(_pattern, self.layer_columns), *_KNOWN, *map(_pattern, more)]


_WHOLE_NORMS = (
    "grad_norm", "train/grad_norm", "gradient_norm", "train/gradient_norm", "grad_norm_total", "total_grad_norm",
    "optim/total_grad_norm", "grad_2.0_norm_total", "l2_norm/grad/global", "total_norm", "gnorm",
)  # fmt: skip


def whole_norm(names: Iterable[str]) -> str | None:
    """The column that holds the norm of the whole gradient, or None.

    >>> whole_norm(["loss", "train/grad_norm"])
    'train/grad_norm'
    """
    present = set(names)
    return next((name for name in _WHOLE_NORMS if name in present), None)


def _pattern(text: str) -> tuple[str, re.Pattern[str]]:
    """Read `SERIES=PREFIX/LAYER SUFFIX`.

    >>> _pattern("grad_norm/LAYER")[0], _pattern("update_rms=u/LAYER.rms")[1].fullmatch("u/head.rms")[1]
    ('grad_norm', 'head')
    """
    name, _, shape = text.rpartition("=")
    if shape.count("LAYER") != 1:
        raise ValueError(f"the layer columns {text!r} don't hold the word LAYER once; write such as 'grad_norm/LAYER'")
    before, after = shape.split("LAYER")
    if not before and not after:
        raise ValueError(f"the layer columns {text!r} are all columns; write what stands before or after LAYER too")
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "_", before.strip("/.:- ") or after.strip("/.:- "))
    return name, re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)


_KNOWN = [
    _pattern(text)
    for text in (
        "grad_norm/LAYER",
        "grad_norm=grad_2.0_norm/LAYER",
        "grad_norm=grad/LAYER.norm",
        "grad_norm=l2_norm/grad/LAYER",
    )
]


def find_step_column(names: Sequence[str], wanted: str | None, where: object) -> str | None:
    """The name of the step column: `wanted`, or a well-known one, or None.

    >>> find_step_column(["loss", "_step"], None, "run.csv")
    '_step'
    """
    if wanted is not None and wanted not in names:
        raise ValueError(
            f"{where} has no column {wanted!r} for the steps; it has {', '.join(map(str, names)) or 'none'}"
        )
    lower = {name.lower(): name for name in reversed(names)}
    return wanted or next((lower[name] for name in STEP_COLUMNS if name in lower), None)


def whole_steps(values: Sequence[float] | np.ndarray, column: str, where: object) -> np.ndarray:
    """Check step numbers: i64[T]; SourceFormatError, naming the row, for one that isn't a whole number.

    >>> whole_steps([0.0, 10.0], "step", "run.csv").tolist()
    [0, 10]
    """
    steps = np.asarray(values, np.float64)
    bad = np.flatnonzero(~(np.isfinite(steps) & (steps == np.floor(steps)) & (abs(steps) < 2**53)))
    if bad.size:
        raise SourceFormatError(
            f"{where}: the step in row {bad[0] + 1} of column {column!r} is {steps[bad[0]]}, not a whole number; "
            f"mend it or name another step column"
        )
    return steps.astype(np.int64)


def columns_of(trace: Trace) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield a trace in blocks of rows: steps i64[n], then its scalars [n] and `grad_norm/LAYER` [n] by column name."""
    for start in range(0, max(1, len(trace)), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(trace))
        columns = {name: trace.read(name, start=start, stop=stop) for name in trace.scalars}
        for name in trace.series:
            values = trace.read(name, start=start, stop=stop)
            columns |= {f"{name}/{layer}": values[row] for row, layer in enumerate(trace.layers)}
        yield trace.steps[start:stop], columns


def only_file(path: Path, found: Sequence[Path], kind: str) -> Path:
    """The one file of a folder; ValueError if there are several or none.

    >>> only_file(Path("run"), [Path("run/a.wandb")], "W&B").name
    'a.wandb'
    """
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:5]) or "none"
        raise ValueError(f"{path} holds {len(found)} {kind} files ({listed}); give one of them")
    return found[0]
