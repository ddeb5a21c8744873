"""Parquet tables: a row a step, a column a series, with its null where nothing was measured; needs pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import SourceFormatError
from ..reader import Trace
from ._columns import Samples, Table, columns_of, find_step_column, whole_steps

__all__ = ["SUFFIXES", "read", "recognises", "write"]

SUFFIXES = (".parquet",)
_CONFIG = b"foreshock.config"


def recognises(path: Path) -> bool:
    """Whether it is a file whose name ends in .parquet."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, step_column: str | None = None) -> Table:
    """Read every column of numbers; without a step column rows count from 0."""
    import pyarrow
    import pyarrow.parquet

    try:
        stored = pyarrow.parquet.read_table(path)
        config = json.loads((stored.schema.metadata or {}).get(_CONFIG, b"{}"))
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise SourceFormatError(f"{path} can't be read as Parquet: {error}; restore it from a copy") from error
    names = stored.column_names
    step = find_step_column(names, step_column, path)
    columns, given, skipped = {}, {}, []
    for name in names:
        column = stored[name].combine_chunks()
        if not (pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)):
            skipped.append(name)
            continue
        given[name] = ~column.is_null().to_numpy(zero_copy_only=False)
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f" and values.dtype.itemsize < 8:  # keep the shortest decimal, as text would
            values = values.astype("U32")
        columns[name] = values.astype(np.float64)
    steps = np.arange(stored.num_rows)
    if step is not None:
        if step not in columns:
            raise SourceFormatError(f"{path}: the step column {step!r} holds no numbers; name another")
        steps = whole_steps(np.where(given[step], columns.pop(step), np.nan), step, path)
    if (np.diff(steps) > 0).all():
        return Table(steps, columns, {name: given[name] for name in columns}, config, 0, tuple(skipped))
    samples = Samples()
    for name, values in columns.items():
        for at in np.flatnonzero(given[name]).tolist():
            samples.add(int(steps[at]), name, float(values[at]))
    return samples.table(config, skipped)


def write(trace: Trace, path: Path) -> None:
    """Write `step`, every scalar, and `SERIES/LAYER` for every layer, with the run's config in the file's metadata."""
    import pyarrow
    import pyarrow.parquet

    writer = None
    for steps, columns in columns_of(trace):
        arrays = {"step": pyarrow.array(steps)}
        arrays |= {name: pyarrow.array(values, mask=np.isnan(values)) for name, values in columns.items()}
        table = pyarrow.table(arrays).replace_schema_metadata({_CONFIG: json.dumps(trace.config)})
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer
    writer.close()
