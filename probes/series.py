"""One way to read a series: from a trace, or from a bare array of one (`[T]`) or several (`[L, T]`) rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["Rows", "blocks", "is_trace", "read_rows", "step_numbers"]

_BLOCK_VALUES = 2_000_000  # in all rows of a block: some 100 MB with everything that is worked out from them
_BLOCK_STEPS = 1024  # a trace's chunks hold as many: a block that cut one would have it read twice


@dataclass(frozen=True)
class Rows:
    """Named rows over common steps.

    Attributes:
        names: L names.
        steps: i64[T], strictly increasing.
        values: f[L, T] in the series' own unit and dtype.
        every_step: whether the source promises a value at each step, so that a NaN is a result and not a gap.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    values: np.ndarray
    every_step: bool


def is_trace(source: object) -> TypeGuard[Trace]:
    """Tell a trace (anything with `layers`, `steps` and `[name]`) from an array."""
    return hasattr(source, "layers") and hasattr(source, "steps")


def read_rows(
    source: Trace | ArrayLike,
    series: str,
    *,
    layer: str | Sequence[str] | None = None,
    steps: ArrayLike | None = None,
    layers: Sequence[str] | None = None,
) -> Rows:
    """Read `series` of a trace, or take an array as it is.

    Args:
        source: a trace; or a number array, `[T]` (one row, named "series") or `[L, T]`.
        series: the trace's series; a scalar gives one row of that name. Not used for an array.
        layer: keep only this row, or these, in the order given.
        steps: i64[T], an array's step numbers (default: 0 to T - 1). A trace has its own.
        layers: L names for an array's rows (default: "series", or "0", "1", …). A trace has its own.

    Raises:
        ValueError: a wrong shape, an unknown layer (the message lists the known ones), steps or names that don't fit.

    >>> read_rows([[1.0, 2.0], [3.0, 4.0]], "grad_norm", layers=["a", "b"], layer="b").values.sum()
    np.float64(7.0)
    """
    if is_trace(source):
        if steps is not None or layers is not None:
            raise ValueError(
                "steps= and layers= were given with a trace, which has its own; give them with an array only"
            )
        values = np.asarray(source[series])
        scalar = values.ndim == 1
        rows = Rows((series,) if scalar else tuple(source.layers), source.steps, np.atleast_2d(values), False)
    else:
        rows = _array_rows(cast("ArrayLike", source), steps, layers)
    return rows if layer is None else _select(rows, [layer] if isinstance(layer, str) else list(layer))


def blocks(
    source: Trace | ArrayLike,
    series: str,
    *,
    layer: str | Sequence[str] | None = None,
    steps: ArrayLike | None = None,
    layers: Sequence[str] | None = None,
) -> Iterator[Rows]:
    """The same rows as `read_rows` gives, in one block or more, so that a long trace need not fit into memory.

    At least one block, of no steps if there are none. Arguments and errors: see `read_rows`.

    >>> [rows.steps.tolist() for rows in blocks([[1.0, 2.0], [3.0, 4.0]], "grad_norm")]
    [[0, 1]]
    """
    if not (is_trace(source) and hasattr(source, "read")):
        yield read_rows(source, series, layer=layer, steps=steps, layers=layers)
        return
    if steps is not None or layers is not None:
        raise ValueError("steps= and layers= were given with a trace, which has its own; give them with an array only")
    names = (series,) if series in source.scalars else tuple(source.layers)
    length = max(1, _BLOCK_VALUES // max(1, len(names)) // _BLOCK_STEPS) * _BLOCK_STEPS
    for start in range(0, max(1, len(source.steps)), length):
        stop = min(start + length, len(source.steps))
        values = np.atleast_2d(source.read(series, start=start, stop=stop))
        rows = Rows(names, source.steps[start:stop], values, False)
        yield rows if layer is None else _select(rows, [layer] if isinstance(layer, str) else list(layer))


def step_numbers(steps: Any, length: int) -> np.ndarray:
    """Check step numbers: i64[length], whole and strictly increasing; ValueError otherwise.

    >>> step_numbers([3, 5], 2).sum()
    np.int64(8)
    """
    steps = np.asarray(steps)
    if steps.shape != (length,):
        raise ValueError(f"steps has shape {steps.shape}, the series has {length} values; give one step number a value")
    if steps.dtype.kind not in "iu" and not (steps.dtype.kind == "f" and np.all(steps == np.floor(steps))):
        raise ValueError(f"steps has dtype {steps.dtype}; step numbers are whole numbers")
    steps = steps.astype(np.int64)
    if length > 1 and (bad := np.flatnonzero(np.diff(steps) <= 0)).size:
        i = int(bad[0])
        raise ValueError(f"step {steps[i + 1]} follows step {steps[i]}; sort the rows by step and keep one for each")
    return steps


def _array_rows(source: ArrayLike, steps: ArrayLike | None, layers: Sequence[str] | None) -> Rows:
    array = np.asarray(source)
    if array.ndim not in (1, 2):
        raise ValueError(f"the array has shape {array.shape}; give one series [T] or one row a layer [L, T]")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"the array has dtype {array.dtype}; give real numbers (NaN where nothing was measured)")
    values = np.atleast_2d(array)
    names = _default_names(array) if layers is None else (layers,) if isinstance(layers, str) else tuple(layers)
    if len(names) != len(values) or len(set(names)) < len(names):
        raise ValueError(f"layers names {list(names)} for {len(values)} rows; give each row a name of its own")
    length = values.shape[1]
    return Rows(names, step_numbers(np.arange(length) if steps is None else steps, length), values, True)


def _default_names(array: np.ndarray) -> tuple[str, ...]:
    return ("series",) if array.ndim == 1 else tuple(str(i) for i in range(len(array)))


def _select(rows: Rows, wanted: Sequence[str]) -> Rows:
    unknown = [name for name in wanted if name not in rows.names]
    if unknown:
        raise ValueError(f"unknown layer {unknown[0]!r}; known are {', '.join(rows.names)}")
    chosen = [rows.names.index(name) for name in dict.fromkeys(wanted)]
    return Rows(tuple(rows.names[i] for i in chosen), rows.steps, rows.values[chosen], rows.every_step)
