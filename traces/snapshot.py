"""One commit of a trace, read through zarr: every shape comes from the root document that was read first."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import zarr
from google_crc32c import value as crc32c
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from .errors import (
    TraceChangedError,
    TraceCorruptError,
    TraceError,
    TraceForeignError,
    TraceNotFoundError,
    TraceUnreachableError,
)
from .places import is_url, place_of
from .record import MAX_ROOT_BYTES, Record, parse_root

__all__ = ["Snapshot"]

_CHUNK_KEY = re.compile(r"(?P<path>.+)/c/(?P<index>\d+(?:/\d+)*)")
_CHECKSUM = 4  # bytes of the CRC-32C behind a chunk
_BLOSC_HEADER = 16  # bytes: the decoded size stands at 4, the encoded one at 12


class SnapshotStore(WrapperStore[Store]):
    """Serves all metadata from one root document, and refuses chunks that are missing or not what they claim."""

    def __init__(self, store: Store, root: bytes, record: Record, where: str) -> None:
        super().__init__(store)
        self._root, self._record, self._where = root, record, where

    def _with_store(self, store: Store) -> SnapshotStore:
        return type(self)(store, self._root, self._record, self._where)

    def _document(self, key: str) -> Buffer | None:
        if key == "zarr.json":
            return default_buffer_prototype().buffer.from_bytes(self._root)
        document = self._record.documents.get(key.removesuffix("/zarr.json"))
        return None if document is None else default_buffer_prototype().buffer.from_bytes(json.dumps(document).encode())

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Buffer | None:
        """Return the value of `key`, as zarr asks for it; a chunk is checked first."""
        if key.endswith("zarr.json"):
            return self._document(key)
        return self._checked(key, await super().get(key, prototype, byte_range))

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """Do what `get` does, for the synchronous readers of zarr 3.2 and later."""
        if key.endswith("zarr.json"):
            return self._document(key)
        return self._checked(key, super().get_sync(key, prototype=prototype, byte_range=byte_range))  # type: ignore[misc]

    def _checked(self, key: str, data: Buffer | None) -> Buffer | None:
        match = _CHUNK_KEY.fullmatch(key)
        if match is None or match["path"] not in self._record.documents:
            return data
        if data is None:
            # Only the scalars beyond the first 32 may have no chunk: where none of them had a name yet.
            if match["path"].endswith("scalars") and match["index"].split("/")[-2] != "0":
                return None
            raise TraceCorruptError(f"{self._where}: the chunk {key} is missing; restore it from a copy")
        self._check_chunk(key, match["path"], match["index"], data)
        return data

    def _check_chunk(self, key: str, path: str, index: str, data: Buffer) -> None:
        """Raise TraceCorruptError, naming the chunk and its rows, unless size and checksum are what they should be."""
        tail = _CHECKSUM if self._record.has_checksums(path) else 0
        whole = data.to_bytes() if tail else data[:_BLOSC_HEADER].to_bytes()
        decoded, encoded = int.from_bytes(whole[4:8], "little"), int.from_bytes(whole[12:16], "little")
        size, expected = len(data) - tail, self._record.chunk_bytes(path)
        if size <= _BLOSC_HEADER or encoded != size or decoded != expected:
            problem = f"has {size} bytes and claims {encoded}, decoded {decoded} of {expected}"
        elif tail and crc32c(whole[:-tail]) != int.from_bytes(whole[-tail:], "little"):
            problem = "doesn't match its checksum"
        else:
            return
        long = self._record.chunk_shape(path)[-1]
        first = int(index.split("/")[-1]) * long
        raise TraceCorruptError(
            f"{self._where}: the chunk {key} {problem}; restore it from a copy, or read without {path}[{first}:"
            f"{first + long}]: the rest is fine"
        )


class Snapshot:
    """The trace at `location` as of one commit: a checked `record`, and `read()` for its arrays.

    Raises TraceNotFoundError, TraceForeignError, TraceVersionError or TraceCorruptError.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._root = _read_root(location)
        self.record = parse_root(self._root, location)
        inner = (
            FsspecStore.from_url(location, read_only=True) if is_url(location) else LocalStore(location, read_only=True)
        )
        self.store = SnapshotStore(inner, self._root, self.record, location)
        self._arrays: dict[str, zarr.Array] = {}

    def read(self, path: str, start: int, stop: int, row: int | slice | None = None) -> np.ndarray:
        """Return `array[..., start:stop]` of the array at `path`, of one `row` or some (its last axis but one).

        Raises TraceChangedError if the run was restarted or replaced since this snapshot was taken.
        """
        try:
            if path not in self._arrays:
                self._arrays[path] = zarr.open_array(self.store, path=path, mode="r", zarr_format=3)
            rows = () if row is None else (row,)
            data = np.asarray(self._arrays[path][(..., *rows, slice(start, stop))])
        except MemoryError:
            raise  # the request is too large for this machine; nothing is wrong with the trace
        except Exception as error:
            self.check_unchanged()
            if isinstance(error, TraceError):
                raise
            # Of a remote store all that isn't a TraceError is the network: damage was told by size and checksum.
            if isinstance(error, OSError) or is_url(self.location):
                raise _unreachable(f"{self.location}: {path}[{start}:{stop}]", error) from error
            raise TraceCorruptError(
                f"{self.location}: {path}[{start}:{stop}] can't be read ({type(error).__name__}: {error}); "
                f"restore it from a copy"
            ) from error
        self.check_unchanged()
        return data

    def length(self, path: str) -> int:
        """The length of the last axis of the array at `path`."""
        return self.record.documents[path]["shape"][-1]

    def corrupt(self, what: str) -> TraceCorruptError:
        """Return the error that says what is wrong with this trace."""
        return TraceCorruptError(f"{self.location}: {what}; restore it from a copy or delete it")

    @property
    def newest(self) -> bool:
        """Whether nothing has been committed since."""
        return _read_root(self.location) == self._root

    def check_unchanged(self) -> None:
        """Raise TraceChangedError if rows were taken back since: chunks may then hold other rows than ours."""
        current = _read_root(self.location)
        if current != self._root and parse_root(current, self.location).identity != self.record.identity:
            raise TraceChangedError(
                f"{self.location} was restarted from an earlier step, or replaced, after it was opened; refresh() it"
            )


def _read_root(location: str) -> bytes:
    """Return the bytes of the root document."""
    try:
        if is_url(location):
            data = place_of(location).get("zarr.json")
            if data is None:
                raise _not_found(location)
        else:
            with (Path(location) / "zarr.json").open("rb") as file:
                data = file.read(MAX_ROOT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(location) from error
    except OSError as error:
        raise _unreachable(f"{location}/zarr.json", error) from error
    if len(data) > MAX_ROOT_BYTES:
        raise TraceCorruptError(
            f"{location}: zarr.json is larger than {MAX_ROOT_BYTES:,} bytes; restore it from a copy"
        )
    return data


def _unreachable(what: str, error: Exception) -> TraceUnreachableError:
    return TraceUnreachableError(
        f"{what} can't be read ({type(error).__name__}: {error}); check the place, its rights and the way there"
    )


def _not_found(location: str) -> TraceError:
    path = Path(urlsplit(location).path if is_url(location) else location)
    if not is_url(location) and any((path / name).exists() for name in (".zgroup", ".zarray")):
        return TraceForeignError(
            f"{location} is a zarr store of format 2, and a trace has format 3; give a run's folder"
        )
    there = "has no zarr.json" if is_url(location) or path.exists() else "doesn't exist"
    return TraceNotFoundError(
        f"there is no trace at {location}: it {there}; give the folder of a run, or see find_runs()"
    )
