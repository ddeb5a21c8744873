"""Begins a trace, or continues one at an earlier step: the rows behind it are dropped, and the next row follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import GrowingArray, SeriesArrays
from .commit import TraceFiles, trace_at
from .documents import plain
from .errors import TraceExistsError, TraceForeignError, TraceNotFoundError, TraceVersionError
from .flights import FlightArrays, kept_before
from .places import ROOT, Place
from .schema import EVENTS, FLIGHT, FLIGHT_NORMS, FLIGHT_STEP, FORMAT, FORMAT_VERSION, LEVELS, Series

if TYPE_CHECKING:
    from .snapshot import Snapshot

__all__ = ["begin", "check_place", "resume"]


def check_place(place: Place, resume_at: int | None, overwrite: bool) -> None:
    """Raise unless a trace may be written at a place; another kind of zarr store is never touched.

    TraceExistsError, TraceNotFoundError (nothing to resume), TraceForeignError, TraceVersionError, ValueError.

    >>> from .places import place_of
    >>> check_place(place_of("runs/new"), None, overwrite=False)
    """
    path = place.location
    if resume_at is not None and overwrite:
        raise ValueError(f"both overwrite and resume_at={resume_at} were given; choose one")
    if problem := place.check_free():
        raise (TraceExistsError if "is a file" in problem else TraceForeignError)(f"{path} {problem}")
    there = trace_at(place) is not None or place.get(ROOT) is not None
    if there and resume_at is None and not overwrite:
        raise TraceExistsError(
            f"there is a trace at {path} already; continue it with resume_at=step, replace it with overwrite=True, "
            f"or choose another path"
        )
    if not there and resume_at is not None:
        raise TraceNotFoundError(
            f"there is no trace at {path} to resume at step {resume_at}; omit resume_at to begin one"
        )


def begin(
    place: Place,
    layers: Sequence[str],
    series: Sequence[Series],
    parameters: Mapping[str, str] | None,
    config: Mapping[str, Any] | None,
    meta: Mapping[str, Any] | None,
    rounding_bits: int | None,
) -> TraceFiles:
    """Make an empty trace at a place, instead of one that is there; its generation then follows that one's."""
    old = trace_at(place)
    names = [one.name for one in series]
    if len(set(names)) < len(names):
        raise ValueError(f"series names {names} hold one twice; give each series once")
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(),
        "status": "running",
        "message": "",
        "heartbeat": 0.0,
        "generation": old.attrs["generation"] + 1 if old else 0,
        "n_steps": 0,
        "layers": list(layers),
        "units": {one.name: one.unit for one in series},
        "config": plain(config or {}),
        "meta": plain(meta or {}),
    }
    if rounding_bits is not None:
        attributes["rounding_bits"] = rounding_bits
    files = TraceFiles(place, layers, [one for one in series if one.per_layer], attributes)
    files.add_scalars([one.name for one in series if not one.per_layer])
    files.flight = FlightArrays(parameters, layers) if parameters is not None else None
    place.remove_trace(["step", "scalars", "overview", EVENTS, FLIGHT, *(old.series if old else ()), *names])
    files.create()
    return files


def resume(
    place: Place,
    layers: Sequence[str],
    series: Sequence[Series],
    parameters: Mapping[str, str] | None,
    step: int,
    config: Mapping[str, Any] | None,
    meta: Mapping[str, Any] | None,
) -> TraceFiles:
    """Open the trace at a place for writing, without its rows of `step` and later.

    `config` replaces the stored one if given, `meta` is added to it.

    Commits the truncation before anything else is written: a reader that finds other rows in a chunk then also finds
    another generation. Raises ValueError if layers or series differ from the trace's, and what open_trace raises.
    """
    from .snapshot import Snapshot  # reading needs zarr, which takes 0.3 s to import and writing doesn't need

    path = place.location
    snapshot = Snapshot(path)
    record = snapshot.record
    _check_same("layers", record.layers, layers, path)
    _check_same("series", sorted(record.series), sorted(s.name for s in series if s.per_layer), path)
    steps = snapshot.read("step", 0, record.rows)
    rows = int(np.searchsorted(steps, step))
    stored = [Series(name, ("layer", "step"), record.documents[name]["data_type"]) for name in record.series]
    events = record.attrs.pop("events", None)  # where format version 1 kept them
    files = TraceFiles(place, layers, stored, record.attrs, record.chunk_shape("scalars")[-1])
    files.add_scalars(record.scalars)
    begun = FLIGHT_STEP in record.documents
    files.flight = _flight(snapshot, parameters, step) if begun or parameters is not None else None
    place.remove_partials([array.path for array in files.arrays])
    if files.flight and not begun:
        place.make(array.first_key() for array in files.flight.arrays)
    _restore(files.step, snapshot, rows)
    if events is None:
        _restore(files.events, snapshot, record.event_bytes)
    else:
        files.attributes["format_version"] = FORMAT_VERSION
        place.make([files.events.first_key()])
        files.add_events(events)
    for table in (*files.tables.values(), files.scalar_table):
        _restore_table(table, snapshot, rows)
    dropped = record.rows - rows
    files.attributes["status"], files.attributes["message"] = "running", ""
    if dropped or (files.flight and begun and files.flight.step.length < snapshot.length(FLIGHT_STEP)):
        files.attributes["generation"] += 1
        files.add_events([{"void_from": step}])
    if config is not None:
        files.attributes["config"] = plain(config)
    files.attributes["units"] = record.attrs["units"] | {one.name: one.unit for one in series}
    files.attributes["meta"] = record.attrs["meta"] | plain(meta or {})
    text = f"resumed at step {step}; {dropped} rows from step {step} on were dropped"
    files.add_events([{"step": step, "kind": "resume", "text": text}])
    files.commit()
    files.write_documents()
    files.remove_chunks_beyond()
    files.last_step = int(steps[rows - 1]) if rows else None
    return files


def _check_same(what: str, stored: Sequence[Any], given: Sequence[Any], path: str) -> None:
    if list(stored) != list(given):
        differing = sorted(set(stored) ^ set(given))[:5] or "their order"
        raise ValueError(
            f"{path} can't be resumed with other {what}: it has {len(stored)}, given were {len(given)}, and they "
            f"differ in {differing}; give the same {what} or write to another path"
        )


def _flight(snapshot: Snapshot, parameters: Mapping[str, str] | None, step: int) -> FlightArrays:
    """The flight recorder as it was, without its rows of `step` and later; a new one if the trace had none."""
    record = snapshot.record
    if FLIGHT_STEP not in record.documents:
        assert parameters is not None
        return FlightArrays(parameters, record.layers)
    told = record.documents[FLIGHT_NORMS]["attributes"]
    stored = dict(zip(told["parameters"], (record.layers[i] for i in told["layers"]), strict=True))
    if parameters is not None:
        _check_same("parameters", list(stored.items()), list(parameters.items()), snapshot.location)
    flight = FlightArrays(stored, record.layers)
    steps = snapshot.read(FLIGHT_STEP, 0, snapshot.length(FLIGHT_STEP))
    flight.windows += kept_before(record.documents[FLIGHT_STEP]["attributes"]["windows"], steps, step)
    rows = sum(window["rows"] for window in flight.windows)
    flight.last_given = int(steps[rows - 1]) if rows else None
    for array in flight.arrays:
        _restore(array, snapshot, rows)
    return flight


def _restore(array: GrowingArray, snapshot: Snapshot, length: int) -> None:
    """Load the unfinished chunk of one array."""
    if snapshot.record.chunk_shape(array.path) != array.chunks:
        raise TraceVersionError(
            f"{snapshot.location} can't be resumed: {array.path} has chunks {snapshot.record.chunk_shape(array.path)}, "
            f"and this installation writes {array.chunks}; write to another path"
        )
    array.checksum = snapshot.record.has_checksums(array.path)
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
