"""Weights & Biases offline runs (`run-….wandb`): every number of the history, its step, and the run's config.

The file is a log of blocks of 32 KiB (7 bytes of header, then chunks of CRC-32, length and kind, after LevelDB's log
format) whose records are protocol buffers; the fields are read by number, so the package `wandb` isn't needed.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SourceFormatError
from ._columns import Samples, Table, only_file
from ._wire import fields, signed

__all__ = ["SUFFIXES", "read", "recognises"]

SUFFIXES = (".wandb",)
_FILE_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK, _CHUNK_HEADER = 32_768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Fields of Record, RunRecord, HistoryRecord, HistoryItem (as of ConfigItem)
_HISTORY, _CONFIG, _RUN = 2, 5, 17
_RUN_CONFIG = 4
_ITEM, _STEP = 1, 2
_KEY, _NESTED_KEY, _JSON = 1, 2, 16


def recognises(path: Path) -> bool:
    """Whether it is a .wandb file, or the folder of an offline run with one in it."""
    return path.suffix == ".wandb" if path.is_file() else any(path.glob("*.wandb"))


def read(path: Path, step_column: str | None = None) -> Table:
    """Read every number; the step is W&B's own, or the column `step_column`, such as `trainer/global_step`.

    A last record that is cut short is a run that was killed: what stands before it is read. A wrong checksum is a
    SourceFormatError that names the byte.
    """
    file = only_file(path, sorted(path.glob("*.wandb")), "W&B") if path.is_dir() else path
    samples, skipped, config = Samples(), dict[str, None](), dict[str, Any]()
    for at, record in _records(file):
        try:
            for number, value in fields(record):
                if number == _HISTORY and isinstance(value, bytes):
                    _take(value, step_column, samples, skipped)
                elif number == _CONFIG and isinstance(value, bytes):
                    config |= _config(value)
                elif number == _RUN and isinstance(value, bytes):
                    nested = [part for key, part in fields(value) if key == _RUN_CONFIG and isinstance(part, bytes)]
                    config |= {key: item for part in nested for key, item in _config(part).items()}
        except ValueError as error:
            raise SourceFormatError(
                f"{file}: the record at byte {at} can't be read ({error}); restore the file from a copy"
            ) from error
    table = samples.table(config, skipped)
    if step_column is not None and not len(table.steps):
        raise ValueError(f"{file} has no column {step_column!r} for the steps; leave it out to use W&B's own")
    return table


def _records(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the bytes of each record, put together from its chunks."""
    data = file.read_bytes()
    if not data.startswith(_FILE_HEADER[:4]):
        raise SourceFormatError(f"{file} doesn't begin as a W&B run does; give a file run-….wandb")
    at, begun, parts = len(_FILE_HEADER), 0, list[bytes]()
    while at + _CHUNK_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEADER:  # too short for a header: padding
            at += left
            continue
        checksum, size = int.from_bytes(data[at : at + 4], "little"), int.from_bytes(data[at + 4 : at + 6], "little")
        kind, chunk = data[at + 6], data[at + _CHUNK_HEADER : at + _CHUNK_HEADER + size]
        if not kind and not size and not checksum:  # the rest of the block was never written
            at += left
            continue
        if len(chunk) < size:
            return
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != checksum:
            raise SourceFormatError(
                f"{file}: the chunk at byte {at} doesn't match its checksum; restore the file from a copy"
            )
        if kind in (_FULL, _FIRST):
            begun, parts = at, []
        parts.append(chunk)
        if kind in (_FULL, _LAST):
            yield begun, b"".join(parts)
        at += _CHUNK_HEADER + size


def _items(record: bytes) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each item of a history or config record; nested keys are joined by a slash."""
    for number, item in fields(record):
        if number != _ITEM or not isinstance(item, bytes):
            continue
        keys, text = list[str](), ""
        for key, value in fields(item):
            if isinstance(value, bytes) and key in (_KEY, _NESTED_KEY):
                keys.append(value.decode())
            elif isinstance(value, bytes) and key == _JSON:
                text = value.decode()
        yield "/".join(key for key in keys if key), json.loads(text)


def _config(record: bytes) -> dict[str, Any]:
    return {key: value for key, value in _items(record) if not key.startswith("_wandb")}


_NAMES = {"_timestamp": "wall_time"}
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _take(record: bytes, step_column: str | None, samples: Samples, skipped: dict[str, None]) -> None:
    """Take the numbers of one row of the history; without its step column a row is left out."""
    row = dict(_items(record))
    step: Any = row.pop("_step", None)
    for number, value in fields(record):
        if number == _STEP and isinstance(value, bytes):
            step = next((signed(part) for key, part in fields(value) if key == 1 and isinstance(part, int)), 0)
    if step_column is not None:
        step = row.pop(step_column, None)
    if not isinstance(step, int | float) or step != int(step):
        skipped.update(dict.fromkeys(row))
        return
    samples.row(int(step))
    for name, value in _flat(row):
        if isinstance(value, str):
            value = _WORDS.get(value, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            samples.add(int(step), _NAMES.get(name, name), float(value))
        else:
            skipped[name] = None


def _flat(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict) and "_type" not in value:
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
