"""The files of a trace in the making: chunks first, then one atomic rewrite of the root document, the commit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .arrays import GrowingArray, SeriesArrays
from .documents import encode, group_document, root_document
from .errors import TraceCorruptError
from .lock import LOCK_NAME
from .record import Record, parse_root
from .rows import RowBlock
from .schema import LEVELS, SCALAR_CHUNK, SCALARS, SERIES_CHUNK, STEP_CHUNK, Series

__all__ = ["TraceFiles", "remove_partials", "remove_trace", "trace_at"]

ROOT = "zarr.json"
PARTIAL = "zarr.json.partial"


class TraceFiles:
    """All arrays of the trace at `path`, its attributes, and how they reach the disk.

    `append()` changes memory only; `commit()` writes what is new and may raise OSError, after which it can be called
    again. Not thread-safe: one thread owns it.
    """

    def __init__(self, path: Path, layers: Sequence[str], series: Sequence[Series], attributes: Mapping[str, Any]):
        self.path = path
        self.attributes = dict(attributes)
        self.scalars: list[str] = []
        self.last_step: int | None = None  # of the rows that were there when the trace was opened
        self.step = GrowingArray("step", (), (STEP_CHUNK,), "int64", ("step",))
        self.scalar_table = SeriesArrays("scalars", 0, (SCALAR_CHUNK, SERIES_CHUNK), "float64", "scalar")
        count = len(layers)
        self.tables = {s.name: SeriesArrays(s.name, count, s.chunks(count), s.dtype, "layer") for s in series}

    @property
    def arrays(self) -> list[GrowingArray]:
        """Every array of the trace, the pyramid's included."""
        tables = (*self.tables.values(), self.scalar_table)
        return [self.step, *(array for table in tables for array in table.arrays)]

    def add_scalars(self, names: Sequence[str]) -> None:
        """Add rows for new scalars; earlier steps read as NaN."""
        self.scalars += names
        self.scalar_table.widen(len(self.scalars))
        self.scalar_table.values.attributes = {"names": list(self.scalars)}
        units = self.attributes["units"]
        units.update({name: SCALARS[name].unit for name in names if name in SCALARS and name not in units})

    def append(self, block: RowBlock) -> None:
        """Append a block of rows."""
        if new := block.scalar_names[len(self.scalars) : block.scalar_count]:
            self.add_scalars(new)
        self.step.append(block.steps[: block.rows])
        for name, table in self.tables.items():
            table.append(block.layer_values(name))
        self.scalar_table.append(block.scalar_values())

    def create(self) -> None:
        """Make the folders and write every document; the root comes last and makes it a trace."""
        for array in self.arrays:
            (self.path / array.first_key()).parent.mkdir(parents=True, exist_ok=True)
        self.write_documents()
        self.commit()

    def write_documents(self) -> None:
        """Write each group's and array's own document, for readers that ignore consolidated metadata."""
        for path, document in self._members().items():
            self._put(f"{path}/{ROOT}", encode(document))

    def commit(self) -> None:
        """Write the new chunks, then the root document with all shapes: the moment it is replaced is the commit."""
        arrays = self.arrays
        for array in arrays:
            for key, data in array.pending():
                self._put(key, data)
        self.attributes["n_steps"] = self.step.length
        self.attributes["heartbeat"] = round(time.time(), 3)
        self._put(ROOT, encode(root_document(self.attributes, self._members())))
        for array in arrays:
            array.settled()

    def remove_chunks_beyond(self) -> None:
        """Delete the chunks behind the committed shapes, which a truncation or a killed writer left."""
        for array in self.arrays:
            folder = self.path / array.path / "c"
            grid = [max(1, -(-size // chunk)) for size, chunk in zip(array.lead, array.chunks, strict=False)]
            grid.append(-(-array.length // array.chunks[-1]))
            for file in folder.rglob("*"):
                number = file.relative_to(folder).parts
                ours = file.is_file() and len(number) == len(grid) and all(part.isdigit() for part in number)
                if ours and any(int(part) >= count for part, count in zip(number, grid, strict=True)):
                    file.unlink()

    def _members(self) -> dict[str, dict[str, Any]]:
        groups = ["overview", *(f"overview/{level}" for level in LEVELS)]
        documents = {name: group_document() for name in groups}
        documents |= {array.path: array.document() for array in self.arrays}
        # In order: zarr loses nodes when those of one folder don't stand together.
        return dict(sorted(documents.items()))

    def _put(self, key: str, data: bytes) -> None:
        """Replace one file atomically: a reader finds the old bytes or the new ones."""
        target = self.path / key
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_bytes(data)
        except FileNotFoundError:
            # Only the last folder may be new (scalar 33 begins one): if more is missing, the trace was deleted,
            # and making it again would claim rows that are gone.
            target.parent.mkdir()
            partial.write_bytes(data)
        partial.replace(target)


def trace_at(path: Path) -> Record | None:
    """Return the record of the trace at `path`; None if there is none, or a damaged one that nobody can read.

    Raises TraceForeignError for a zarr store that isn't a trace, TraceVersionError for a newer trace.
    """
    try:
        return parse_root((path / ROOT).read_bytes(), str(path))
    except (FileNotFoundError, TraceCorruptError):
        return None


def remove_trace(path: Path, series: Iterable[str]) -> None:
    """Delete the trace at `path`, root first, so that no reader meets half of it.

    Other files in the folder stay, and so does `step/`, which holds the lock.
    """
    (path / ROOT).unlink(missing_ok=True)
    (path / PARTIAL).unlink(missing_ok=True)
    for name in {"step", "scalars", "overview", *series}:
        folder = path / name
        if not (folder / ROOT).is_file() or folder.is_symlink():
            continue
        # The document goes last, so that a kill in between leaves a folder that the next try still knows as ours.
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == ROOT):
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != path / LOCK_NAME:
                entry.unlink()
        if name != "step":
            folder.rmdir()


def remove_partials(files: TraceFiles) -> None:
    """Delete what a killed writer left half written, in the folders of this trace only."""
    (files.path / PARTIAL).unlink(missing_ok=True)
    for array in files.arrays:
        for leftover in (files.path / array.path).rglob("*.partial"):
            leftover.unlink(missing_ok=True)
