"""Makes a trace out of a table: which columns are layers, in which precision; values keep every digit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..schema import SCALARS, Series
from ..writer import TraceWriter
from ._columns import Group, Mapping, Table, whole_norm

__all__ = ["Layout", "lay_out", "write_trace"]

_BLOCK_ROWS = 16_384
_WHOLE = "model"


@dataclass(frozen=True)
class Layout:
    """A run as a trace holds it: layer series f[L, T] by name, scalars f64[T] by name."""

    layers: tuple[str, ...]
    series: dict[str, np.ndarray]
    scalars: dict[str, np.ndarray]


def lay_out(table: Table, mapping: Mapping) -> Layout:
    """Decide what each column of a table is.

    >>> one = np.ones(2)
    >>> columns = {"loss": one, "grad_norm/a": one, "grad_norm/b": 2 * one}
    >>> layout = lay_out(Table(np.arange(2), columns, dict.fromkeys(columns, one > 0)), Mapping())
    >>> layout.layers, layout.series["grad_norm"].tolist(), list(layout.scalars)
    (('a', 'b'), [[1.0, 1.0], [2.0, 2.0]], ['loss'])
    """
    found: dict[str, dict[str, str]] = {}  # series -> layer -> column
    names: dict[str, None] = {}  # layers, in the order of the columns
    patterns = mapping.patterns(table.layer_columns)
    for column in table.columns:
        for series, pattern in patterns:
            if (match := pattern.fullmatch(column)) and not whole_norm([column]):
                found.setdefault(series, {})[match[1]] = column
                names[match[1]] = None
                break
    missing = [text for text, (name, _) in zip(mapping.layer_columns, patterns, strict=False) if name not in found]
    if missing:
        known = ", ".join(list(table.columns)[:20]) or "none"
        raise ValueError(f"no column fits the layer columns {missing[0]!r}; the columns are {known}")
    taken = {column for layers in found.values() for column in layers.values()}
    if not found.get("grad_norm"):
        whole = whole_norm(name for name in table.columns if name not in taken)
        found["grad_norm"] = {_WHOLE: whole} if whole else {}
        taken |= {whole} if whole == "grad_norm" else set()  # under another name it stays a scalar too
        names |= {} if names and not whole else {_WHOLE: None}
    groups = _groups(list(names), mapping.group)
    stacked = {name: _stack(name, table, layers, groups) for name, layers in found.items()}
    scalars = {name: values for name, values in table.columns.items() if name not in taken}
    return Layout(
        tuple(_renamed(groups, mapping.rename, "layers")),
        stacked,
        dict(zip(_renamed(scalars, mapping.rename, "scalars"), scalars.values(), strict=True)),
    )


def _groups(names: list[str], group: Group | None) -> dict[str, list[str]]:
    return group(names) if group else {name: [name] for name in names}


def _renamed(names: Iterable[str], rename: dict[str, str], kind: str) -> list[str]:
    new = [rename.get(name, name) for name in names]
    twice = [name for name in new if new.count(name) > 1] if len(set(new)) < len(new) else []
    if twice:
        raise ValueError(f"two {kind} would be called {twice[0]!r}; rename one of them otherwise")
    return ["step_" if name == "step" else name for name in new]


def _stack(series: str, table: Table, layers: dict[str, str], groups: dict[str, list[str]]) -> np.ndarray:
    """Stack the columns of one series: [L, T], in the smallest type that keeps every digit."""
    stacked = np.full((len(groups), len(table.steps)), np.nan)
    for row, members in enumerate(groups.values()):
        columns = [layers[member] for member in members if member in layers]
        if len(columns) == 1:
            stacked[row] = _norm(series, table, columns[0])
        elif columns:
            squares = np.stack([_norm(series, table, column) for column in columns]) ** 2
            measured = ~np.isnan(squares).all(axis=0)
            stacked[row, measured] = np.sqrt(np.nansum(squares[:, measured], axis=0))
    return stacked.astype(np.float32) if _fits_float32(stacked) else stacked


def _norm(series: str, table: Table, column: str) -> np.ndarray:
    values = table.columns[column]
    if not series.startswith("grad_norm"):
        return values
    numbers = np.flatnonzero(~np.isnan(values))
    first = numbers[0] if numbers.size else len(values)
    broken = np.isnan(values) & table.given[column]
    broken[:first] = False  # a NaN before the first number is a column that has not begun
    return np.where(broken, np.inf, values)


def _fits_float32(values: np.ndarray) -> bool:
    """Whether float32 keeps every digit: exactly, or as the shortest decimal that stands for it.

    >>> _fits_float32(np.array([15.3421, 0.1])), _fits_float32(np.array([1 / 3, 1e300]))
    (True, False)
    """
    flat = values[np.isfinite(values)]
    for start in range(0, len(flat), 65_536):
        block = flat[start : start + 65_536]
        with np.errstate(over="ignore"):
            short = block.astype(np.float32)
        differing = short.astype(np.float64) != block
        if differing.any() and (short[differing].astype("U32").astype(np.float64) != block[differing]).any():
            return False
    return True


def write_trace(target: Path, table: Table, layout: Layout, meta: dict[str, Any], overwrite: bool) -> None:
    """Write the trace at `target`, in blocks."""
    series = [Series(name, ("layer", "step"), str(values.dtype)) for name, values in layout.series.items()]
    with TraceWriter(
        target,
        layers=layout.layers,
        series=[*series, *(SCALARS[name] for name in layout.scalars if name in SCALARS)],
        config=table.config,
        meta=meta,
        overwrite=overwrite,
        flush_rows=_BLOCK_ROWS,
        background=False,
    ) as writer:
        for start in range(0, len(table.steps), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            values = {name: array[:, rows] for name, array in layout.series.items()}
            writer.extend(table.steps[rows], values | {name: array[rows] for name, array in layout.scalars.items()})
        if table.repeated:
            text = f"{table.repeated} values were logged again for a step that had one; the later ones are here"
            writer.event(int(table.steps[0]), "repeated", text)
