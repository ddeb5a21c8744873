"""Where a trace is written, a folder or a URL that fsspec understands: objects of bytes, each replaced whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from .lock import LOCK_NAME, WriterLock

__all__ = ["FolderPlace", "Lock", "Place", "is_url", "location_of", "place_of"]

ROOT = "zarr.json"
_PARTIAL = ".partial"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


def is_url(location: str) -> bool:
    """Whether `location` names a remote store (`s3://…`) and not a path.

    >>> is_url("s3://bucket/runs/a"), is_url("runs/a")
    (True, False)
    """
    return "://" in location


def location_of(path_or_url: str | PathLike[str]) -> str:
    """The absolute path, also of a file:// URL, or another URL, also one that went through `Path` and lost a slash.

    >>> location_of(Path("s3://bucket/runs")), location_of("s3://bucket/runs/")
    ('s3://bucket/runs', 's3://bucket/runs')
    """
    text = os.fspath(path_or_url)
    if (match := _URL.match(text)) and not Path(text).exists():
        rest = text[match.end() :].rstrip("/")
        return unquote(f"/{rest}") if match[1].lower() == "file" else f"{match[1]}://{rest}"
    return str(Path(text).absolute())


class Lock(Protocol):
    """What a writer holds while it writes."""

    def is_ours(self) -> bool:
        """Whether nobody else took the lock, and the trace is still there."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


class Place(Protocol):
    """What a writer needs of a place. Failures are OSErrors; `put` replaces an object whole, old or new is found."""

    location: str

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write objects by key; all are there when it returns."""
        ...

    def get(self, key: str) -> bytes | None:
        """Return an object, or None."""
        ...

    def check_free(self) -> str | None:
        """Say what stands in the way of a trace here, or return None."""
        ...

    def make(self, keys: Iterable[str]) -> None:
        """Make the folders that these keys need."""
        ...

    def chunks(self, array: str) -> list[str]:
        """The keys of the chunks of one array."""
        ...

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        ...

    def remove_partials(self, arrays: Iterable[str]) -> None:
        """Delete what a killed writer left half written, in the folders of these arrays only."""
        ...

    def remove_trace(self, names: Iterable[str]) -> None:
        """Delete the trace whose arrays and groups are `names`, root first, so that no reader meets half of it."""
        ...

    def lock(self) -> Lock:
        """Take the writer's lock; raises TraceLockedError if another writer has it."""
        ...


def place_of(path_or_url: str | PathLike[str], fsync: bool = False) -> Place:
    """The place at a path or URL.

    >>> place_of("runs/a").check_free() is None
    True
    """
    location = location_of(path_or_url)
    if not is_url(location):
        return FolderPlace(Path(location), fsync)
    from .url_place import UrlPlace

    return UrlPlace(location)


class FolderPlace:
    """A folder. With `fsync` what was put is on the disk before `put` returns, also against a loss of power."""

    def __init__(self, path: Path, fsync: bool = False) -> None:
        self.path, self.location, self._fsync = path, str(path), fsync

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write each file beside its place and rename it: a reader finds the old bytes or the new ones."""
        folders = set()
        for key, data in files:
            target = self.path / key
            partial = target.with_name(target.name + _PARTIAL)
            try:
                self._write(partial, data)
            except FileNotFoundError:
                # Only the last folder may be new (scalar 33 begins one): if more is missing, the trace was deleted,
                # and making it again would claim rows that are gone.
                target.parent.mkdir()
                self._write(partial, data)
            partial.replace(target)
            folders.add(target.parent)
        if self._fsync:
            for folder in folders:
                _sync_folder(folder)

    def _write(self, path: Path, data: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            view = memoryview(data)
            while view:  # a write may stop short on a disk that is nearly full; the next one then says so
                view = view[file.write(view) :]
            if self._fsync:
                os.fsync(file.fileno())

    def get(self, key: str) -> bytes | None:
        """Read a file."""
        try:
            return (self.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def check_free(self) -> str | None:
        """Whether it is a file, or holds a store of another kind."""
        if self.path.exists() and not self.path.is_dir():
            return "is a file; choose the path of a folder"
        if any((self.path / name).exists() for name in (".zgroup", ".zarray")):
            return "holds a zarr store of format 2, not a trace; choose another path"
        return None

    def make(self, keys: Iterable[str]) -> None:
        """Make the folders."""
        for key in keys:
            (self.path / key).parent.mkdir(parents=True, exist_ok=True)

    def chunks(self, array: str) -> list[str]:
        """The files below the array's folder `c`."""
        files = (self.path / array / "c").rglob("*")
        return [file.relative_to(self.path).as_posix() for file in files if file.is_file()]

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def remove_partials(self, arrays: Iterable[str]) -> None:
        """Delete `*.partial`."""
        (self.path / f"{ROOT}{_PARTIAL}").unlink(missing_ok=True)
        for array in arrays:
            for leftover in (self.path / array).rglob(f"*{_PARTIAL}"):
                leftover.unlink(missing_ok=True)

    def remove_trace(self, names: Iterable[str]) -> None:
        """Delete the folders of the trace; other files stay, and so does `step/`, which holds the lock."""
        (self.path / ROOT).unlink(missing_ok=True)
        (self.path / f"{ROOT}{_PARTIAL}").unlink(missing_ok=True)
        for name in set(names):
            folder = self.path / name
            if not (folder / ROOT).is_file() or folder.is_symlink():
                continue
            # The document goes last, so that a kill in between leaves a folder that the next try still knows as ours.
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == ROOT):
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry != self.path / LOCK_NAME:
                    entry.unlink()
            if name != "step":
                folder.rmdir()

    def lock(self) -> WriterLock:
        """Take the POSIX lock."""
        return WriterLock(self.path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
