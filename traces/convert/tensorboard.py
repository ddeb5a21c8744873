"""TensorBoard event files: every scalar of a folder, at full precision; wall times in seconds since 1970.

A file is a row of records (TFRecord): length u64, masked CRC-32C of the length, the message, masked CRC-32C of it. A
message is an `Event`, whose fields are read by number; the package `tensorboard` isn't needed. Histograms, pictures and
text are skipped, and named.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import SourceFormatError
from ..reader import Trace
from ._columns import Samples, Table, columns_of
from ._wire import double, fields, fixed32, integer, message, signed

__all__ = ["SUFFIXES", "read", "recognises", "write"]

SUFFIXES = (".tfevents",)
_FILES = "events.out.tfevents.*"
_HEADER = struct.Struct("<QI")
_MASK = 0xA282EAD8
# Fields of Event, Summary.Value and TensorProto
_WALL_TIME, _STEP, _SUMMARY = 1, 2, 5
_TAG, _SIMPLE, _TENSOR = 1, 2, 8
_DTYPE, _SHAPE, _CONTENT, _FLOATS, _DOUBLES = 1, 2, 4, 5, 6
_TENSOR_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


def recognises(path: Path) -> bool:
    """Whether it is an event file, or a folder with some in it or below it."""
    return ".tfevents." in path.name if path.is_file() else any(path.rglob(_FILES))


def read(path: Path, step_column: str | None = None) -> Table:
    """Read every scalar. Files below the folder `path` put their own folder in front of their tags: `eval/loss`.

    A last record that is cut short is a run that was killed, or is still being written: what stands before it is read.
    A wrong checksum is a SourceFormatError that names the file and the byte.
    """
    if step_column is not None:
        raise ValueError(f"a step column was given, and the events of {path} have their own steps; leave it out")
    samples, skipped, times = Samples(), dict[str, None](), dict[int, float]()
    for file in sorted(path.rglob(_FILES)) if path.is_dir() else [path]:
        below = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
        prefix = "" if below == "." else f"{below}/"
        for at, record in _records(file):
            try:
                _take(record, prefix, samples, skipped, times)
            except (ValueError, struct.error) as error:
                raise SourceFormatError(
                    f"{file}: the record at byte {at} is no event ({error}); remove the file or restore it from a copy"
                ) from error
    if "wall_time" not in skipped:
        for step, time in times.items():
            samples.add(step, "wall_time", time)
    return samples.table(skipped=skipped)


def _records(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the message of each record."""
    checksum = _crc32c()
    with file.open("rb") as stream:
        at = 0
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            size, expected = _HEADER.unpack(header)
            if _masked(checksum(header[:8])) != expected:
                raise _damaged(file, at)
            record = stream.read(size + 4)
            if len(record) < size + 4:
                return
            if _masked(checksum(record[:size])) != int.from_bytes(record[size:], "little"):
                raise _damaged(file, at)
            yield at, record[:size]
            at += _HEADER.size + size + 4


def _crc32c() -> Callable[[bytes], int]:
    from google_crc32c import value  # zarr brings it

    return value


def _damaged(file: Path, at: int) -> SourceFormatError:
    return SourceFormatError(
        f"{file}: the record at byte {at} doesn't match its checksum; restore the file from a copy or remove it"
    )


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def _take(record: bytes, prefix: str, samples: Samples, skipped: dict[str, None], times: dict[int, float]) -> None:
    """Take the numbers of one event."""
    time, step, summary = 0.0, 0, None
    for number, value in fields(record):
        if number == _WALL_TIME and isinstance(value, bytes):
            (time,) = struct.unpack("<d", value)
        elif number == _STEP and isinstance(value, int):
            step = signed(value)
        elif number == _SUMMARY and isinstance(value, bytes):
            summary = value
    for _, entry in fields(summary or b""):
        if not isinstance(entry, bytes):
            continue
        tag, number = _value(entry)
        if number is None:
            skipped[prefix + tag] = None
            continue
        samples.add(step, prefix + tag, number)
        times[step] = max(time, times.get(step, time))


def _value(entry: bytes) -> tuple[str, float | None]:
    """Return the tag and the number of a `Summary.Value`; None if it isn't one number."""
    tag, found = "", None
    for number, value in fields(entry):
        if not isinstance(value, bytes):
            continue
        if number == _TAG:
            tag = value.decode()
        elif number == _SIMPLE:
            (found,) = struct.unpack("<f", value)
        elif number == _TENSOR:
            found = _scalar(value)
    return tag, found


def _scalar(tensor: bytes) -> float | None:
    """Return the number in a tensor of one element without dimensions, or None."""
    kind, found = 0, None
    for number, value in fields(tensor):
        if number == _DTYPE and isinstance(value, int):
            kind = value
        elif number == _SHAPE and value:
            return None  # it has dimensions
        elif number in (_CONTENT, _FLOATS, _DOUBLES) and isinstance(value, bytes):
            name = {_FLOATS: "<f4", _DOUBLES: "<f8"}.get(number) or _TENSOR_TYPES.get(kind)
            if name is None or len(value) != np.dtype(name).itemsize:
                return None
            found = float(np.frombuffer(value, name)[0])
    return found


def write(trace: Trace, path: Path) -> None:
    """Write one event file into the folder `path`, a tag a scalar and `SERIES/LAYER` a layer; NaN is left out.

    TensorBoard's scalars are float32; this is the one export that may lose digits, of float64 scalars.
    """
    path.mkdir()
    checksum = _crc32c()
    created = trace.heartbeat
    with (path / f"events.out.tfevents.{int(created):010d}.foreshock.0.0").open("wb") as stream:

        def put(event: bytes) -> None:
            size = struct.pack("<Q", len(event))
            check = struct.pack("<I", _masked(checksum(size)))
            stream.write(size + check + event + struct.pack("<I", _masked(checksum(event))))

        put(double(_WALL_TIME, created) + message(3, b"brain.Event:2"))
        for steps, columns in columns_of(trace):
            tags = {name: message(_TAG, name.encode()) for name in columns}
            times = columns.get("wall_time", np.full(len(steps), created))
            with np.errstate(over="ignore"):
                numbers = {name: values.astype(np.float32).tolist() for name, values in columns.items()}
            for row, (step, time) in enumerate(zip(steps.tolist(), times.tolist(), strict=True)):
                entries = b"".join(
                    message(1, tags[name] + fixed32(_SIMPLE, values[row]))
                    for name, values in numbers.items()
                    if values[row] == values[row]
                )
                put(double(_WALL_TIME, time) + integer(_STEP, step) + message(_SUMMARY, entries))
