"""Continues a trace at an earlier step: the rows behind it are dropped, and the next row follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import GrowingArray, SeriesArrays
from .commit import TraceFiles, remove_partials
from .documents import plain
from .schema import LEVELS, Series
from .snapshot import Snapshot

__all__ = ["resume_files"]


def resume_files(
    path: Path,
    layers: Sequence[str],
    series: Sequence[Series],
    step: int,
    config: Mapping[str, Any] | None,
    meta: Mapping[str, Any] | None,
) -> tuple[TraceFiles, int | None]:
    """Open the trace at `path` for writing, without its rows of `step` and later; return it and its last step.

    `config` replaces the stored one if given, `meta` is added to it.

    Commits the truncation before anything else is written: a reader that finds other rows in a chunk then also finds
    another generation. Raises ValueError if layers or series differ from the trace's, and what open_trace raises.
    """
    snapshot = Snapshot(str(path))
    record = snapshot.record
    _check_same("layers", record.layers, layers, path)
    _check_same("series", record.series, [s.name for s in series if s.per_layer], path)
    steps = snapshot.read("step", 0, record.rows)
    rows = int(np.searchsorted(steps, step))
    stored = [Series(name, ("layer", "step"), record.documents[name]["data_type"]) for name in record.series]
    files = TraceFiles(path, layers, stored, record.attrs)
    files.add_scalars(record.scalars)
    remove_partials(files)
    _restore(files.step, snapshot, rows)
    for table in (*files.tables.values(), files.scalar_table):
        _restore_table(table, snapshot, rows)
    dropped = record.rows - rows
    files.attributes["status"], files.attributes["message"] = "running", ""
    if dropped:
        files.attributes["generation"] += 1
        files.attributes["events"] = [event for event in record.attrs["events"] if event["step"] < step]
    if config is not None:
        files.attributes["config"] = plain(config)
    files.attributes["meta"] = record.attrs["meta"] | plain(meta or {})
    text = f"resumed at step {step}; {dropped} rows from step {step} on were dropped"
    files.attributes["events"] = [*files.attributes["events"], {"step": step, "kind": "resume", "text": text}]
    files.commit()
    files.write_documents()
    files.remove_chunks_beyond()
    return files, int(steps[rows - 1]) if rows else None


def _check_same(what: str, stored: Sequence[str], given: Sequence[str], path: Path) -> None:
    if list(stored) != list(given):
        differing = sorted(set(stored) ^ set(given))[:5] or "their order"
        raise ValueError(
            f"{path} can't be resumed with other {what}: it has {len(stored)}, given were {len(given)}, and they "
            f"differ in {differing}; give the same {what} or write to another path"
        )


def _restore(array: GrowingArray, snapshot: Snapshot, length: int) -> None:
    """Load the unfinished chunk of one array."""
    array.restore(length, snapshot.read(array.path, length - length % array.chunks[-1], length))


def _restore_table(table: SeriesArrays, snapshot: Snapshot, rows: int) -> None:
    """Load the unfinished chunks of a table and of its pyramid, and what waits for the next cells."""
    _restore(table.values, snapshot, rows)
    waiting, below = [], 1
    for level in LEVELS:
        path = table.values.path if below == 1 else table.cells[below].path
        waiting.append(snapshot.read(path, rows // level * (level // below), rows // below))
        _restore(table.cells[level], snapshot, rows // level)
        below = level
    table.pyramid.restore(*waiting)
