"""Checks a trace against FORMAT.md: reads every chunk, works every cell of the pyramid out anew; counts in rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from .documents import array_document
from .errors import TraceCorruptError, TraceError
from .event_log import merge_events
from .flights import flights_in
from .overview import Pyramid
from .places import Place, location_of, place_of
from .record import Record
from .schema import (
    CELL_CHUNK,
    EVENT_CHUNK,
    EVENTS,
    FLIGHT_CHUNK,
    FLIGHT_NORMS,
    FLIGHT_STEP,
    LEVELS,
    SCALAR_CHUNK,
    SCALAR_ROWS,
    SERIES_CHUNK,
    STATISTICS,
    STEP_CHUNK,
)
from .snapshot import Snapshot

__all__ = ["Problem", "verify"]

_BLOCK_ROWS = 4 * max(LEVELS)


@dataclass(frozen=True)
class Problem:
    """One thing that contradicts the format: `place` is an array, a key, an attribute or a range of rows."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def verify(path_or_url: str | PathLike[str]) -> list[Problem]:
    """Return every problem of the trace at a path or URL, in the order of its arrays; none if it is as FORMAT.md says.

    Checked are the attributes, each array's dimensions, chunks and codecs, the arrays' own documents, that every chunk
    is there and can be read, that the steps increase, that the remarks are remarks, and that each cell of the pyramid
    says what its rows say. A run that is being written is checked as of its last commit.

    Raises TraceNotFoundError, TraceForeignError or TraceVersionError if there is no trace that could be checked, and
    TraceChangedError if it was restarted meanwhile.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> with TraceWriter(folder.name + "/a", layers=["norm"]) as writer:
    ...     writer.extend(np.arange(3000), {"grad_norm": np.ones((1, 3000))})
    >>> len(verify(folder.name + "/a"))
    0
    >>> folder.cleanup()
    """
    location = location_of(path_or_url)
    try:
        snapshot = Snapshot(location)
    except TraceCorruptError as error:
        return [Problem("zarr.json", _told(error, location))]
    return list(_problems(snapshot, place_of(location)))


def _told(error: TraceError, location: str) -> str:
    return str(error).removeprefix(f"{location}: ")


def _problems(snapshot: Snapshot, place: Place) -> Iterator[Problem]:
    record = snapshot.record
    yield from _attributes(record)
    for path, document in record.documents.items():
        yield from _document(record, path, document)
        yield from _own_document(place, record, path, document)
    yield from _steps(snapshot)
    yield from _remarks(snapshot)
    if FLIGHT_STEP in record.documents:
        yield from _flights(snapshot)
    for name in (*record.series, "scalars"):
        yield from _table(snapshot, name)


def _attributes(record: Record) -> Iterator[Problem]:
    names = set(record.series) | set(record.scalars)
    for name in record.series:
        if name not in record.attrs["units"]:
            yield Problem(f"attribute 'units' of {name}", "a layer series has no unit")
    bits = record.attrs.get("rounding_bits")
    if bits is not None and (not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 52):
        yield Problem("attribute 'rounding_bits'", f"is {bits!r:.40}, not 1 to 52")
    if "" in names or "step" in record.scalars:
        yield Problem("attribute 'names' of scalars", "holds an empty name, or 'step'")


def _expected(record: Record, path: str) -> tuple[tuple[int, ...], tuple[str, ...], str]:
    """Return chunk shape, dimension names and data type that FORMAT.md gives an array."""
    if path == "step":
        return (STEP_CHUNK,), ("step",), "int64"
    if path == EVENTS:
        return (EVENT_CHUNK,), ("byte",), "uint8"
    if path == FLIGHT_STEP:
        return (FLIGHT_CHUNK,), ("flight_row",), "int64"
    if path == FLIGHT_NORMS:
        return (record.documents[path]["shape"][0], FLIGHT_CHUNK), ("parameter", "flight_row"), "float32"
    name = path.rpartition("/")[2]
    height, axis = (SCALAR_CHUNK, "scalar") if name == "scalars" else (len(record.layers), "layer")
    kind = record.documents[name]["data_type"]
    if path == "scalars":
        rows = record.chunk_shape(path)[-1]
        return (height, rows if rows in (1024, SCALAR_ROWS) else SCALAR_ROWS), (axis, "step"), kind
    if "/" not in path:
        return (height, SERIES_CHUNK), (axis, "step"), kind
    level = path.split("/")[1]
    return (len(STATISTICS), height, CELL_CHUNK), ("stat", axis, f"step_{level}"), kind


def _document(record: Record, path: str, document: dict[str, Any]) -> Iterator[Problem]:
    """Compare an array's document, field by field, with the one that a writer would write."""
    chunks, dims, kind = _expected(record, path)
    checksum = record.has_checksums(path)
    wanted = array_document(document["shape"], chunks, kind, dims, document.get("attributes"), checksum=checksum)
    for field in ("data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "dimension_names"):
        if document.get(field) != wanted[field]:
            found = json.dumps(document.get(field))
            yield Problem(path, f"its {field} is {found:.120}, not {json.dumps(wanted[field])}")


def _own_document(place: Place, record: Record, path: str, document: dict[str, Any]) -> Iterator[Problem]:
    """The array's own document may lag behind while a run is written, and after a kill, but never once it has ended."""
    key = f"{path}/zarr.json"
    data = place.get(key)
    try:
        own = None if data is None else json.loads(data)
    except ValueError:
        own = data
    if not isinstance(own, dict) or not isinstance(own.get("shape"), list):
        yield Problem(key, "is missing" if data is None else "is no array's document")
    elif record.attrs["status"] != "running" and own != document:
        differing = sorted(name for name in own.keys() | document.keys() if own.get(name) != document.get(name))
        yield Problem(key, f"differs from the root's record in {', '.join(differing)}, and the run has ended")


def _read(snapshot: Snapshot, path: str, start: int, stop: int) -> tuple[np.ndarray | None, list[Problem]]:
    """Read a range of an array; if it can't be read, name each chunk in it that can't."""
    try:
        return snapshot.read(path, start, stop), []
    except TraceCorruptError as error:
        whole = Problem(f"{path}[{start}:{stop}]", _told(error, snapshot.location))
    *lead, long = snapshot.record.chunk_shape(path)
    high = lead[-1] if lead else 0
    height = snapshot.record.documents[path]["shape"][-2] if lead else 1
    found = []
    for first in range(start - start % long, stop, long):
        for row in range(0, height, high or 1):
            rows = slice(row, row + high) if lead else None
            try:
                snapshot.read(path, max(first, start), min(first + long, stop), rows)
            except TraceCorruptError as error:
                key = "/".join(
                    map(str, [path, "c", *[0] * (len(lead) - 1), *([row // high] if lead else []), first // long])
                )
                found.append(Problem(key, _told(error, snapshot.location)))
    return None, found or [whole]


def _steps(snapshot: Snapshot) -> Iterator[Problem]:
    last: int | None = None
    for start in range(0, snapshot.record.rows, STEP_CHUNK):
        steps, problems = _read(snapshot, "step", start, min(start + STEP_CHUNK, snapshot.record.rows))
        yield from problems
        if steps is None:
            last = None
            continue
        before = steps[:1] - 1 if last is None else np.array([last])
        for row in np.flatnonzero(np.diff(np.concatenate([before, steps])) <= 0)[:5]:
            earlier = last if row == 0 else steps[row - 1]
            yield Problem(f"step[{start + row}]", f"step {steps[row]} follows step {earlier}; steps must increase")
        last = int(steps[-1])


def _remarks(snapshot: Snapshot) -> Iterator[Problem]:
    if EVENTS not in snapshot.record.documents:
        return
    data, problems = _read(snapshot, EVENTS, 0, snapshot.record.event_bytes)
    yield from problems
    if data is not None:
        try:
            merge_events([], data.tobytes())
        except ValueError as error:
            yield Problem(EVENTS, str(error))


def _flights(snapshot: Snapshot) -> Iterator[Problem]:
    """Every row of the flight recorder: steps that increase and are those the windows claim, norms that are norms."""
    last: int | None = None
    for number, flight in enumerate(flights_in(snapshot.record.documents, snapshot.record.layers, snapshot.read)):
        place = f"window {number} of {FLIGHT_STEP}"
        for path, rows in ((FLIGHT_STEP, flight.rows), (FLIGHT_NORMS, flight.rows)):
            values, problems = _read(snapshot, path, rows.start, rows.stop)
            yield from problems
            if values is None:
                continue
            if path == FLIGHT_NORMS:
                if (values < 0).any():
                    yield Problem(f"window {number} of {FLIGHT_NORMS}", "holds a norm below 0")
                continue
            before = values[:1] - 1 if last is None else [last]
            if (np.diff(values, prepend=before) <= 0).any():
                yield Problem(place, "its steps don't increase")
            if (flight.first_step, flight.last_step) != (values[0], values[-1]):
                claim = f"{flight.first_step} to {flight.last_step}"
                yield Problem(place, f"claims the steps {claim}, and has {values[0]} to {values[-1]}")
            last = int(values[-1])


def _table(snapshot: Snapshot, name: str) -> Iterator[Problem]:
    """Read a table and its pyramid block by block, and compare the two."""
    record = snapshot.record
    height, rows = record.documents[name]["shape"]
    for start in range(0, max(rows, 1), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        values, problems = _read(snapshot, name, start, stop)
        yield from problems
        # A block is a multiple of the largest cell, so its pyramid begins anew.
        expected = Pyramid(height, str(record.documents[name]["data_type"])).push(values) if values is not None else {}
        for level in LEVELS:
            path = f"overview/{level}/{name}"
            stored, problems = _read(snapshot, path, start // level, stop // level)
            yield from problems
            if stored is not None and level in expected:
                yield from _differences(record, path, start // level, stored, expected[level])


def _differences(record: Record, path: str, first: int, stored: np.ndarray, expected: np.ndarray) -> Iterator[Problem]:
    """Name the first cell of each statistic that doesn't say what its rows say."""
    precision = 2.0 ** -min(record.attrs.get("rounding_bits") or 52, 22 if stored.dtype == np.float32 else 48)
    for index, statistic in enumerate(STATISTICS):
        one, two = stored[index], expected[index]
        if statistic == "count":
            one, two = np.nan_to_num(one), np.nan_to_num(two)
        same = (one == two) | (np.isnan(one) & np.isnan(two))
        if statistic == "mean":  # merged from the level below, so that it may differ in the last digits
            scale = np.fmax(abs(expected[0]), abs(expected[1]))
            with np.errstate(invalid="ignore", over="ignore"):
                same |= abs(one - two) <= 4 * precision * scale
        if not same.all():
            row, cell = (int(i) for i in np.argwhere(~same)[0])
            owner = (record.scalars if path.endswith("/scalars") else record.layers)[row]
            yield Problem(
                f"{path}[{statistic}, {row}, {first + cell}]",
                f"the {statistic} of {owner} is {one[row, cell]:g}, and its rows say {two[row, cell]:g}; "
                f"{int((~same).sum())} cells of this block differ",
            )
