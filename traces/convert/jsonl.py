"""JSON lines: an object a step, a number a key; nested objects become `outer/inner`, an absent key was not measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SourceFormatError
from ..reader import Trace
from ._columns import Samples, Table, columns_of, find_step_column, whole_steps

__all__ = ["SUFFIXES", "read", "recognises", "write"]

SUFFIXES = (".jsonl", ".ndjson", ".json")
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def recognises(path: Path) -> bool:
    """Whether it is a file whose name ends in .jsonl, .ndjson or .json."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, step_column: str | None = None) -> Table:
    """Read every number; a .json file holds a list of objects, or one under `log_history` (Hugging Face's trainer).

    Without a step key lines count from 0; with one, a line that lacks it is an error.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"step": 1, "train": {"loss": 0.5}}\\n{"step": 2, "lr": "NaN"}\\n')
    ...     table = read(Path(folder, "a.jsonl"))
    >>> table.steps.tolist(), sorted(table.columns), table.given["lr"].tolist()
    ([1, 2], ['lr', 'train/loss'], [False, True])
    """
    rows = [(place, dict(_flat(item))) for place, item in _objects(path)]
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    step = find_step_column(names, step_column, path)
    samples, skipped = Samples(), dict[str, None]()
    for number, (place, row) in enumerate(rows):
        at = number if step is None else _step(row.pop(step, None), step, f"{path}, {place}")
        samples.row(at)
        for name, value in row.items():
            if isinstance(value, str) and value in _WORDS:
                value = _WORDS[value]
            if isinstance(value, int | float) and not isinstance(value, bool):
                samples.add(at, name, float(value))
            elif value is not None:
                skipped[name] = None
    return samples.table(skipped=skipped)


def _step(value: Any, name: str, where: str) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SourceFormatError(
            f"{where} has {value!r:.40} under the step key {name!r}; give every line a whole number"
        )
    return int(whole_steps([value], name, where)[0])


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of each line (or entry)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceFormatError(f"{path} is not text: {error}; give another file") from error
    if path.suffix.lower() == ".json":
        entries = _parsed(text, str(path))
        entries = entries.get("log_history") if isinstance(entries, dict) else entries
        if not isinstance(entries, list):
            raise SourceFormatError(f"{path} holds neither a list of objects nor one under 'log_history'; give such")
        found = [(f"entry {number}", entry) for number, entry in enumerate(entries, 1)]
    else:
        lines = ((f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        found = ((place, _parsed(line, f"{place} of {path}")) for place, line in lines)
    for place, item in found:
        if not isinstance(item, dict):
            raise SourceFormatError(f"{place} of {path} holds no object; write an object a step")
        yield place, item


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceFormatError(f"{where} is not JSON ({error}); mend or remove it") from error


def _flat(item: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in item.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def write(trace: Trace, path: Path) -> None:
    """Write an object a step; what was not measured is left out, and Inf, which JSON lacks, is the word `Infinity`."""
    with path.open("w", encoding="utf-8") as file:
        for steps, columns in columns_of(trace):
            # Through the shortest decimal: 0.1 in float32 shall not become 0.10000000149011612.
            numbers = {name: [float(x) for x in values.astype("U32")] for name, values in columns.items()}
            for row, step in enumerate(steps.tolist()):
                entry = {name: _word(values[row]) for name, values in numbers.items() if values[row] == values[row]}
                file.write(json.dumps({"step": step, **entry}, allow_nan=False) + "\n")


def _word(value: float) -> float | str:
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
