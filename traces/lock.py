"""The lock that lets one process write a trace at a time, and that a dead process doesn't keep."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from .errors import TraceLockedError

try:
    import fcntl
except ImportError:  # Windows: two writers of one trace are then not told apart
    fcntl = None

__all__ = ["LOCK_NAME", "WriterLock"]

# Inside the folder of an array, where zarr looks for nothing: at the root it would warn about a foreign file.
LOCK_NAME = "step/writer.lock"

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
