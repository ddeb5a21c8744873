"""A trace on an object store, through fsspec: objects of bytes, each replaced whole by one PUT; a lock in seconds."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable
from typing import Any

from .errors import TraceLockedError
from .lock import LOCK_NAME

__all__ = ["RemoteLock", "UrlPlace"]

_ROOT = "zarr.json"
_SILENT = 60.0  # seconds after which the owner of a lock counts as gone


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

    def get_all(self, keys: list[str]) -> dict[str, bytes]:
        """Read objects, several at a time; those that aren't there are left out."""
        if not keys:
            return {}
        found = self._call("cat", [self._at(key) for key in keys], on_error="return")
        named = {path.removeprefix(self._base).lstrip("/"): data for path, data in found.items()}
        for data in named.values():
            if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                raise OSError(f"{self.location}: {type(data).__name__}: {data}") from data
        return {key: data for key, data in named.items() if isinstance(data, bytes)}

    def folders(self, prefix: str) -> list[str]:
        """The folders right below a prefix, each with a slash behind it."""
        try:
            self._call("invalidate_cache")
            entries = self._call("ls", self._at(prefix), detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
        return [name.removeprefix(self._base).lstrip("/") + "/" for name in names]

    def check_free(self) -> str | None:
        """Whether it holds a store of another kind."""
        if any(self.get(name) is not None for name in (".zgroup", ".zarray")):
            return "holds a zarr store of format 2, not a trace; choose another place"
        return None

    def make(self, keys: Iterable[str]) -> None:
        """Do nothing: there are no folders."""

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
        self.remove([_ROOT])
        for name in set(names):
            if self.get(f"{name}/{_ROOT}") is None:
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


class RemoteLock:
    """An advisory lock on an object store, which has no real ones: an object that names its owner and when it was seen.

    It is refused while another owner was seen in the last minute, unless that was a process of this machine that is
    gone. Two writers that open in the same instant may both get it: the one that wrote the object last keeps it, and
    the other finds out at its next commit and stops writing.
    """

    def __init__(self, place: UrlPlace) -> None:
        self._place = place
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        held = self._read()
        if held is not None and not _is_dead(held):
            raise TraceLockedError(
                f"{place.location} is being written by process {held.get('pid')} on {held.get('host')}, seen "
                f"{time.time() - held['seen']:.0f} s ago; stop it, or wait until {_SILENT:.0f} s have passed"
            )
        self._touch()

    def _read(self) -> dict[str, Any] | None:
        """Return the owner in the object; None if there is none, or one that makes no sense."""
        try:
            held = json.loads(self._place.get(LOCK_NAME) or b"null")
        except ValueError:
            return None
        return held if isinstance(held, dict) and isinstance(held.get("seen"), int | float) else None

    def _touch(self) -> None:
        self._seen = time.time()
        self._place.put([(LOCK_NAME, json.dumps(self._owner | {"seen": self._seen}).encode())])

    def is_ours(self) -> bool:
        """Whether nobody else took the lock since; says once in a while that its owner is alive."""
        held = self._read()
        if held is None or held.get("id") != self._owner["id"]:
            return False
        if time.time() - self._seen > _SILENT / 4:
            self._touch()
        return True

    def release(self) -> None:
        """Give the lock back, if it is still ours and can be reached; else it is silent, and lapses in a minute."""
        with contextlib.suppress(OSError):
            if self.is_ours():
                self._place.remove([LOCK_NAME])


def _is_dead(held: dict[str, Any]) -> bool:
    """Whether an owner was silent for too long, or is a process of this machine that no longer runs."""
    if time.time() - held["seen"] > _SILENT:
        return True
    if held.get("host") != socket.gethostname() or not isinstance(held.get("pid"), int):
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
