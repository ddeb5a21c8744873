"""The lock that lets one process write a trace at a time, and that a dead process doesn't keep."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from .errors import TraceLockedError

try:
    import fcntl
except ImportError:  # Windows: two writers of one trace are then not told apart
    fcntl = None

__all__ = ["LOCK_NAME", "RemoteLock", "WriterLock"]

# Inside the folder of an array, where zarr looks for nothing: at the root it would warn about a foreign file.
LOCK_NAME = "step/writer.lock"

_SILENT = 60.0  # seconds after which the owner of a remote lock counts as gone

# POSIX locks belong to a process: they aren't inherited by forked data-loader workers, which would otherwise keep
# a killed trainer's lock. The price is that they don't tell two writers of one process apart; this set does.
_held: set[Path] = set()
_guard = threading.Lock()


class WriterLock:
    """Holds the lock of the trace at `path` until `release()`; raises TraceLockedError if another writer has it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> lock = WriterLock(Path(folder.name))
    >>> lock.is_ours()
    True
    >>> lock.release()
    >>> folder.cleanup()
    """

    def __init__(self, path: Path) -> None:
        self._file = path.resolve() / LOCK_NAME
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _guard:
            if self._file in _held:
                raise TraceLockedError(
                    f"{path} is being written by another TraceWriter of this process; close it first"
                )
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if fcntl:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    os.close(self._fd)
                    raise  # a file system without locks, say: not another writer
                owner = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
                os.close(self._fd)
                raise TraceLockedError(
                    f"{path} is being written by another process (pid {owner}); stop it or choose another path"
                ) from error
            _held.add(self._file)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def is_ours(self) -> bool:
        """Whether the folder still holds our lock file: not if the trace was deleted, even if a new one is there."""
        try:
            return self._file.stat().st_ino == os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back; the file stays, since deleting it would let two others lock two different files."""
        with _guard:
            if self._file in _held:
                _held.discard(self._file)
                os.close(self._fd)


class Objects(Protocol):
    """What the remote lock needs of a place."""

    location: str

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write objects."""
        ...

    def get(self, key: str) -> bytes | None:
        """Read an object."""
        ...

    def remove(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        ...


class RemoteLock:
    """An advisory lock on an object store, which has no real ones: an object that names its owner and when it was seen.

    It is refused while another owner was seen in the last minute, unless that was a process of this machine that is
    gone. Two writers that open in the same instant may both get it: the one that wrote the object last keeps it, and
    the other finds out at its next commit and stops writing.
    """

    def __init__(self, place: Objects) -> None:
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
