"""Where a trace is written, a folder or a URL that fsspec understands: objects of bytes, each replaced whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from .lock import LOCK_NAME, RemoteLock, WriterLock

__all__ = ["FolderPlace", "Place", "UrlPlace", "is_url", "location_of", "place_of"]

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
    """The absolute path, or the URL, also of one that went through `Path`, which takes a slash away.

    >>> location_of(Path("s3://bucket/runs")), location_of("s3://bucket/runs/")
    ('s3://bucket/runs', 's3://bucket/runs')
    """
    text = os.fspath(path_or_url)
    if (match := _URL.match(text)) and not Path(text).exists():
        rest = text[match.end() :].rstrip("/")
        return f"{match[1]}://{'/' if match[1] == 'file' else ''}{rest}"
    return str(Path(text).absolute())


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

    def lock(self) -> WriterLock | RemoteLock:
        """Take the writer's lock; raises TraceLockedError if another writer has it."""
        ...


def place_of(path_or_url: str | PathLike[str], fsync: bool = False) -> Place:
    """The place at a path or URL.

    >>> place_of("runs/a").check_free() is None
    True
    """
    location = location_of(path_or_url)
    return UrlPlace(location) if is_url(location) else FolderPlace(Path(location), fsync)


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


class UrlPlace:
    """A prefix of an object store, through fsspec. One PUT replaces one object whole; there are no folders."""

    def __init__(self, url: str) -> None:
        self.location = url
        self._fs, self._base = _filesystem(url)

    def _at(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        """Call fsspec; whatever goes wrong in there is an OSError, which a writer tries again."""
        try:
            return getattr(self._fs, verb)(*args, **options)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self.location}: {type(error).__name__}: {error}") from error

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write the objects, several at a time where the store allows it."""
        if objects := {self._at(key): data for key, data in files}:
            self._call("pipe", objects)

    def get(self, key: str) -> bytes | None:
        """Read an object."""
        try:
            return self._call("cat_file", self._at(key))
        except FileNotFoundError:
            return None

    def check_free(self) -> str | None:
        """Whether it holds a store of another kind."""
        if any(self.get(name) is not None for name in (".zgroup", ".zarray")):
            return "holds a zarr store of format 2, not a trace; choose another place"
        return None

    def make(self, keys: Iterable[str]) -> None:
        """Do nothing: there are no folders. (Of file systems behind a URL fsspec makes them itself.)"""
        if "file" in self._fs.protocol or "local" in self._fs.protocol:
            for key in keys:
                self._call("makedirs", self._at(key).rpartition("/")[0], exist_ok=True)

    def chunks(self, array: str) -> list[str]:
        """The objects below the array's prefix `c`."""
        self._call("invalidate_cache")
        found = self._call("find", self._at(f"{array}/c"))
        return [path.removeprefix(self._base).lstrip("/") for path in found]

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        for key in keys:
            try:
                self._call("rm_file", self._at(key))
            except FileNotFoundError:
                continue

    def remove_partials(self, arrays: Iterable[str]) -> None:
        """Do nothing: there are no half-written objects."""

    def remove_trace(self, names: Iterable[str]) -> None:
        """Delete the trace's objects; others stay, and so does the lock."""
        self.remove([ROOT])
        for name in set(names):
            if self.get(f"{name}/{ROOT}") is None:
                continue
            self._call("invalidate_cache")
            keys = [path.removeprefix(self._base).lstrip("/") for path in self._call("find", self._at(name))]
            self.remove([key for key in keys if key != LOCK_NAME])

    def lock(self) -> RemoteLock:
        """Take the advisory lock."""
        return RemoteLock(self)


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec.core
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{url} needs fsspec: pip install 'foreshock[remote]'", name="fsspec") from error
    try:
        fs, base = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ModuleNotFoundError(f"{url} can't be opened: {error}", name=str(error.name or "s3fs")) from error
    except ValueError as error:
        raise ValueError(f"{url} can't be opened: {error}; use a path, or a URL that fsspec knows") from error
    return fs, base.rstrip("/")
