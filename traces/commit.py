"""The objects of a trace in the making: chunks first, then one atomic rewrite of the root document, the commit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import GrowingArray, SeriesArrays
from .documents import encode, group_document, root_document
from .errors import TraceCorruptError
from .flights import FlightArrays
from .places import ROOT, Place
from .record import Record, parse_root
from .rows import RowBlock
from .schema import EVENT_CHUNK, EVENTS, FLIGHT, LEVELS, SCALAR_CHUNK, SCALAR_ROWS, SCALARS, STEP_CHUNK, Series

__all__ = ["TraceFiles", "trace_at"]


class TraceFiles:
    """All arrays of the trace at a place, its attributes, and how they get there.

    `append()` and `add_events()` change memory only; `commit()` writes what is new and may raise OSError, after which
    it can be called again. Not thread-safe: one thread owns it.
    """

    def __init__(
        self,
        place: Place,
        layers: Sequence[str],
        series: Sequence[Series],
        attributes: Mapping[str, Any],
        scalar_rows: int = SCALAR_ROWS,
    ) -> None:
        self.place = place
        self.attributes = dict(attributes)
        self.scalars: list[str] = []
        self.last_step: int | None = None  # of the rows that were there when the trace was opened
        self.step = GrowingArray("step", (), (STEP_CHUNK,), "int64", ("step",))
        self.events = GrowingArray(EVENTS, (), (EVENT_CHUNK,), "uint8", ("byte",))
        self.scalar_table = SeriesArrays("scalars", 0, (SCALAR_CHUNK, scalar_rows), "float64", "scalar")
        count, bits = len(layers), self.attributes.get("rounding_bits")
        self.flight: FlightArrays | None = None  # the flight recorder's windows, if it is on
        self.tables = {s.name: SeriesArrays(s.name, count, s.chunks(count), s.dtype, "layer", bits) for s in series}

    @property
    def arrays(self) -> list[GrowingArray]:
        """Every array of the trace, the pyramid's included."""
        tables = (*self.tables.values(), self.scalar_table)
        flight = self.flight.arrays if self.flight else []
        return [self.step, self.events, *(array for table in tables for array in table.arrays), *flight]

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

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append remarks, or `{"void_from": step}`, which takes back the earlier ones from that step on."""
        lines = "".join(json.dumps(event, allow_nan=False) + "\n" for event in events)
        self.events.append(np.frombuffer(lines.encode(), np.uint8))

    def create(self) -> None:
        """Make the folders and write every document; the root comes last and makes it a trace."""
        self.place.make(array.first_key() for array in self.arrays)
        self.write_documents()
        self.commit()

    def write_documents(self) -> None:
        """Write each group's and array's own document, for readers that ignore consolidated metadata."""
        self.place.put((f"{path}/{ROOT}", encode(document)) for path, document in self._members().items())

    def commit(self) -> None:
        """Write the new chunks, then the root document with all shapes: the moment it is replaced is the commit."""
        arrays = self.arrays
        self.place.put(chunk for array in arrays for chunk in array.pending())
        self.attributes["n_steps"] = self.step.length
        self.attributes["heartbeat"] = round(time.time(), 3)
        self.place.put([(ROOT, encode(root_document(self.attributes, self._members())))])
        for array in arrays:
            array.settled()

    def remove_chunks_beyond(self) -> None:
        """Delete the chunks behind the committed shapes, which a truncation or a killed writer left."""
        for array in self.arrays:
            grid = [max(1, -(-size // chunk)) for size, chunk in zip(array.lead, array.chunks, strict=False)]
            grid.append(-(-array.length // array.chunks[-1]))
            beyond = []
            for key in self.place.chunks(array.path):
                number = key.removeprefix(f"{array.path}/c/").split("/")
                ours = len(number) == len(grid) and all(part.isdigit() for part in number)
                if ours and any(int(part) >= count for part, count in zip(number, grid, strict=True)):
                    beyond.append(key)
            self.place.remove(beyond)

    def _members(self) -> dict[str, dict[str, Any]]:
        groups = ["overview", *(f"overview/{level}" for level in LEVELS)]
        documents = {name: group_document() for name in (*groups, *([FLIGHT] if self.flight else []))}
        documents |= {array.path: array.document() for array in self.arrays}
        # In order: zarr loses nodes when those of one folder don't stand together.
        return dict(sorted(documents.items()))


def trace_at(place: Place) -> Record | None:
    """Return the record of the trace at a place; None if there is none, or a damaged one that nobody can read.

    Raises TraceForeignError for a zarr store that isn't a trace, TraceVersionError for a newer trace.
    """
    data = place.get(ROOT)
    try:
        return None if data is None else parse_root(data, place.location)
    except TraceCorruptError:
        return None
