"""Checks a root document before anything it claims is believed: types, shapes in rows and layers, codecs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from .errors import TraceCorruptError, TraceForeignError, TraceVersionError
from .event_log import is_event
from .flights import is_flight_metadata
from .schema import EVENTS, FLIGHT_NORMS, FLIGHT_STEP, FORMAT, FORMAT_VERSION, LEVELS, STATISTICS, STATUSES

__all__ = ["MAX_ROOT_BYTES", "Record", "parse_root"]

MAX_ROOT_BYTES = 256 << 20
_MAX_ROWS = 10**9  # thirty years at a step a second
_MAX_CHUNK_BYTES = 1 << 30
_MAX_EVENT_BYTES = 1 << 32
_CODECS = [["bytes", "blosc"], ["bytes", "blosc", "crc32c"]]


@dataclass(frozen=True)
class Record:
    """A checked root document: `documents` holds each array's own one by path, `series` the layer series' names."""

    attrs: dict[str, Any]
    documents: dict[str, dict[str, Any]]
    series: tuple[str, ...]
    scalars: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer names, in order."""
        return tuple(self.attrs["layers"])

    @property
    def rows(self) -> int:
        """The number of committed rows."""
        return self.attrs["n_steps"]

    @property
    def identity(self) -> tuple[str, int]:
        """What stays the same for as long as rows are only added."""
        return self.attrs["created"], self.attrs["generation"]

    @property
    def event_bytes(self) -> int:
        """The length of the array `events`; a trace of format version 1 has none."""
        return self.documents[EVENTS]["shape"][0] if EVENTS in self.documents else 0

    def has_checksums(self, path: str) -> bool:
        """Whether a CRC-32C stands behind each chunk of the array `path`."""
        return self.documents[path]["codecs"][-1]["name"] == "crc32c"

    def chunk_shape(self, path: str) -> tuple[int, ...]:
        """The shape of one chunk of the array `path`."""
        return tuple(self.documents[path]["chunk_grid"]["configuration"]["chunk_shape"])

    def chunk_bytes(self, path: str) -> int:
        """The size of one decoded chunk of the array `path`."""
        return int(np.prod(self.chunk_shape(path))) * np.dtype(self.documents[path]["data_type"]).itemsize


def parse_root(data: bytes, where: str) -> Record:
    """Return the record in the root document `data` of the trace at `where`.

    Raises TraceCorruptError, TraceForeignError or TraceVersionError, each naming `where` and the remedy.

    >>> try:
    ...     parse_root(b'{"zarr_format": 3, "node_type": "group", "attributes": {}}', "runs/a")
    ... except ValueError as error:
    ...     print(error)
    runs/a is a zarr store, but not a trace (its attribute 'format' is None); give the folder of a run
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceCorruptError(f"{where}: zarr.json is not JSON ({error}); {_REMEDY}") from error
    attrs = document.get("attributes") if isinstance(document, dict) else None
    if not isinstance(attrs, dict) or attrs.get("format") != FORMAT:
        found = attrs.get("format") if isinstance(attrs, dict) else None
        raise TraceForeignError(
            f"{where} is a zarr store, but not a trace (its attribute 'format' is {found!r:.80}); "
            f"give the folder of a run"
        )
    version = attrs.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise _corrupt(where, f"format_version is {version!r:.80}, not an integer")
    if version > FORMAT_VERSION:
        raise TraceVersionError(
            f"{where} was written in format version {version}, and this installation reads up to "
            f"{FORMAT_VERSION}; upgrade foreshock"
        )
    for name, (allowed, check) in (_ATTRIBUTES | (_ATTRIBUTES_1 if version < 2 else {})).items():
        if name not in attrs or not check(attrs[name]):
            raise _corrupt(where, f"the attribute {name!r} is {attrs.get(name)!r:.80}, not {allowed}")
    members = document.get("consolidated_metadata")
    members = members.get("metadata") if isinstance(members, dict) else None
    if not isinstance(members, dict) or not all(isinstance(item, dict) for item in members.values()):
        raise _corrupt(where, "its consolidated metadata is missing or not an object")
    return _check_arrays(attrs, members, where)


_REMEDY = "restore it from a copy or delete it"


def _corrupt(where: str, what: str) -> TraceCorruptError:
    return TraceCorruptError(f"{where}: {what}; {_REMEDY}")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(n, str) for n in value) and len(set(value)) == len(value)


_ATTRIBUTES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "layers": ("a list of different strings", lambda v: _is_names(v) and len(v) > 0),
    "config": ("an object", lambda v: isinstance(v, dict)),
    "meta": ("an object", lambda v: isinstance(v, dict)),
    "units": ("an object of strings", lambda v: isinstance(v, dict) and all(isinstance(u, str) for u in v.values())),
    "created": ("a string", lambda v: isinstance(v, str)),
    "status": (f"one of {', '.join(STATUSES)}", lambda v: v in STATUSES),
    "message": ("a string", lambda v: isinstance(v, str)),
    "heartbeat": ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    "generation": ("a count", _is_count),
    "n_steps": (f"a count up to {_MAX_ROWS:,}", lambda v: _is_count(v) and v <= _MAX_ROWS),
}
# Format version 1 kept the remarks in the root document.
_ATTRIBUTES_1 = {"events": ("a list of {step, kind, text}", lambda v: isinstance(v, list) and all(map(is_event, v)))}


def _check_arrays(attrs: dict[str, Any], members: Mapping[str, dict[str, Any]], where: str) -> Record:
    """Check the document of every array that a reader may open, and return the record."""
    arrays = {path: doc for path, doc in members.items() if doc.get("node_type") == "array"}
    rows, layers = attrs["n_steps"], len(attrs["layers"])
    series = tuple(path for path, doc in arrays.items() if doc.get("dimension_names") == ["layer", "step"])
    extra = arrays.get("scalars", {}).get("attributes")
    names: Any = extra.get("names", []) if isinstance(extra, dict) else None
    if not _is_names(names):
        raise _corrupt(where, f"the attribute 'names' of scalars is {names!r:.80}, not a list of different strings")
    expected = {"step": ((rows,), ("int64",)), "scalars": ((len(names), rows), ("float64",))}
    expected |= dict.fromkeys(series, ((layers, rows), ("float32", "float64")))
    for level in LEVELS:
        for name, height in (*((name, layers) for name in series), ("scalars", len(names))):
            shape = (len(STATISTICS), height, rows // level)
            expected[f"overview/{level}/{name}"] = (shape, ("float32", "float64"))
    version = attrs["format_version"]
    if version >= 2:
        shape = arrays.get(EVENTS, {}).get("shape")
        size = shape[0] if isinstance(shape, list) and len(shape) == 1 else None
        expected[EVENTS] = ((size if _is_count(size) and size <= _MAX_EVENT_BYTES else 0,), ("uint8",))
    if FLIGHT_STEP in arrays or FLIGHT_NORMS in arrays:
        expected |= _flight_arrays(arrays, layers, where)
    chains = _CODECS if version >= 2 else _CODECS[:1]
    for path, (shape, kinds) in expected.items():
        if problem := _array_problem(arrays.get(path), shape, kinds, chains):
            raise _corrupt(where, f"the array {path} {problem}")
    return Record(attrs, {path: arrays[path] for path in expected}, series, tuple(names))


def _flight_arrays(arrays: Mapping[str, dict[str, Any]], layers: int, where: str) -> dict[str, Any]:
    """Shape and types of the flight recorder's arrays, by what their attributes say."""
    step, norms = (arrays.get(path, {}).get("attributes") for path in (FLIGHT_STEP, FLIGHT_NORMS))
    if not is_flight_metadata(step, norms, layers):
        raise _corrupt(where, "the attributes of flight/step and flight/grad_norm are not those of a flight recorder")
    rows = sum(window["rows"] for window in step["windows"])  # pyright: ignore[reportOptionalSubscript]
    size = len(norms["parameters"])  # pyright: ignore[reportOptionalSubscript]
    return {FLIGHT_STEP: ((rows,), ("int64",)), FLIGHT_NORMS: ((size, rows), ("float32",))}


def _array_problem(
    document: dict[str, Any] | None, shape: tuple[int, ...], kinds: tuple[str, ...], chains: list[list[str]]
) -> str | None:
    """Say what is wrong with an array's document, or None."""
    if document is None:
        return "is missing"
    if document.get("shape") != list(shape):
        return f"has shape {document.get('shape')!r:.80}, not {list(shape)}"
    kind = document.get("data_type")
    if kind not in kinds:
        return f"has data type {kind!r:.80}, not {' or '.join(kinds)}"
    grid = document.get("chunk_grid")
    grid = grid.get("configuration") if isinstance(grid, dict) and grid.get("name") == "regular" else None
    chunks = grid.get("chunk_shape") if isinstance(grid, dict) else None
    if not (isinstance(chunks, list) and len(chunks) == len(shape) and all(_is_count(c) and c for c in chunks)):
        return f"has chunk shape {chunks!r:.80}, not {len(shape)} positive numbers on a regular grid"
    size = np.dtype(kind).itemsize
    for number in chunks:
        size *= number
    if size > _MAX_CHUNK_BYTES:
        return f"claims chunks of {size:,} bytes, more than {_MAX_CHUNK_BYTES:,}"
    codecs = document.get("codecs")
    found = [c.get("name") if isinstance(c, dict) else c for c in codecs] if isinstance(codecs, list) else codecs
    return None if found in chains else f"has the codecs {found!r:.80}, not {' or '.join(map(str, chains))}"
