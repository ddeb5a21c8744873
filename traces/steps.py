"""The step numbers of a trace, read once and shared by all views of it while it grows."""

from __future__ import annotations

__all__ = ["Steps"]

import threading
from collections.abc import Callable

import numpy as np


class Steps:
    """Step numbers read so far; what was given out stays as it is, since only places behind it are written.

    >>> steps = Steps()
    >>> early = steps.upto(2, lambda start, stop: np.arange(start, stop) * 10)
    >>> steps.upto(4, lambda start, stop: np.arange(start, stop) * 10).tolist(), early.tolist()
    ([0, 10, 20, 30], [0, 10])
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.int64)
        self._known = 0
        self._lock = threading.Lock()

    def upto(self, rows: int, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Return the first `rows` step numbers, i64[rows]; `read(start, stop)` gives those that are not known yet.

        Raises ValueError if they don't increase.
        """
        with self._lock:
            known = self._known
            if known < rows:
                fresh = read(known, rows)
                if not (np.diff(np.concatenate([self._buffer[max(0, known - 1) : known], fresh])) > 0).all():
                    raise ValueError("the steps don't increase")
                if rows > len(self._buffer):  # twice as long, so that a run that grows is not copied again and again
                    longer = np.empty(rows if known == 0 else 2 * rows, np.int64)
                    longer[:known] = self._buffer[:known]
                    self._buffer = longer
                self._buffer[known:rows] = fresh
                self._known = rows
            found = self._buffer[:rows]
        found.flags.writeable = False
        return found
