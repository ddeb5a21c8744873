"""CSV and TSV, W&B chart exports too: a row a step, a column a series; an empty cell was not measured, nan was."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..errors import SourceFormatError
from ..reader import Trace
from ._columns import Samples, Table, columns_of, find_step_column, whole_steps

__all__ = ["SUFFIXES", "read", "recognises", "write"]

SUFFIXES = (".csv", ".tsv")


def recognises(path: Path) -> bool:
    """Whether it is a file whose name ends in .csv or .tsv."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the names and the rows of cells; SourceFormatError names the line that doesn't fit."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            rows = [(lines.line_num, row) for row in lines if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceFormatError(f"{path} can't be read as CSV text: {error}; give another file") from error
    names = [cell.strip() for cell in rows[0][1]] if rows else []
    if len(set(names)) < len(names):
        raise SourceFormatError(f"{path} has two columns called {max(names, key=names.count)!r}; rename one")
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise SourceFormatError(f"line {line} of {path} has {len(row)} cells under {len(names)} names; mend it")
    return names, [row for _, row in rows[1:]]


def _table(path: Path, names: list[str], rows: list[list[str]], step_column: str | None) -> Table:
    """Turn cells into a table; a column with a word in it is skipped."""
    step = find_step_column(names, step_column, path)
    numbers: dict[str, list[float | None]] = {}
    skipped = []
    for column, name in enumerate(names):
        try:
            numbers[name] = [float(cell) if (cell := row[column].strip()) else None for row in rows]
        except ValueError:
            skipped.append(name)
    if step is not None and step in skipped:
        word = next(row[names.index(step)] for row in rows if not _is_number(row[names.index(step)]))
        raise SourceFormatError(f"{path}: the step column {step!r} holds {word!r}; name another with --step-column")
    steps: list[int] = list(range(len(rows)))
    if step is not None:
        steps = whole_steps([np.nan if x is None else x for x in numbers.pop(step)], step, path).tolist()
    samples = Samples()
    for at in steps:
        samples.row(at)
    for name, values in numbers.items():
        samples.column(name)
        for at, value in zip(steps, values, strict=True):
            if value is not None:
                samples.add(at, name, value)
    return samples.table(skipped=skipped)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def read(path: Path, step_column: str | None = None) -> Table:
    """Read every column of numbers; without a step column rows count from 0.

    A file that W&B exports from a chart (`Step`, then `RUN - SERIES` with `__MIN` and `__MAX`) is told by its head; the
    bounds are kept only where they differ from the series.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text("step,loss,note\\n5,0.5,start\\n6,,\\n")
    ...     table = read(Path(folder, "a.csv"))
    >>> table.steps.tolist(), table.columns["loss"].tolist(), table.skipped
    ([5, 6], [0.5, nan], ('note',))
    """
    names, rows = _cells(path)
    if len(names) > 1 and all(" - " in name for name in names[1:]):
        names, rows = _of_one_run(names, rows, path)
        step_column = step_column or names[0]
    return _table(path, names, rows, step_column)


def _of_one_run(names: list[str], rows: list[list[str]], path: Path) -> tuple[list[str], list[list[str]]]:
    """Undo what W&B's chart export does to names: `RUN - SERIES`, beside copies that end in `__MIN` and `__MAX`."""
    runs = list(dict.fromkeys(name.split(" - ")[0] for name in names[1:]))
    if len(runs) > 1:
        raise SourceFormatError(f"{path} holds the runs {', '.join(runs)}; export them one by one, a file each")
    short = [names[0], *(name.split(" - ", 1)[1] for name in names[1:])]
    kept = [column for column, name in enumerate(short) if not _is_copy(column, name, short, rows)]
    return [short[column] for column in kept], [[row[column] for column in kept] for row in rows]


def _is_copy(column: int, name: str, names: list[str], rows: list[list[str]]) -> bool:
    """Whether a bound says only what its series says."""
    series = name.removesuffix("__MIN").removesuffix("__MAX")
    return series != name and series in names and all(row[column] == row[names.index(series)] for row in rows)


def write(trace: Trace, path: Path) -> None:
    """Write `step`, every scalar, and `SERIES/LAYER` for every layer; digits enough to read the same number again."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        for block, (steps, columns) in enumerate(columns_of(trace)):
            if block == 0:
                lines.writerow(["step", *columns])
            text = [np.where(np.isnan(values), "", values.astype("U32")) for values in columns.values()]
            lines.writerows(zip(steps.tolist(), *text, strict=True))
