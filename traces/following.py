"""Follows a run while it is written, through restarts and a store that is out of reach for a while; in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import TraceChangedError, TraceUnreachableError
from .rows import Rows

if TYPE_CHECKING:
    from .reader import Trace

__all__ = ["follow"]

_UNREACHABLE_FOR = 60.0  # seconds that it is tried again
_FOLLOW_ROWS = 16_384  # at most so many rows are handed out at once


def follow(trace: Trace, poll: float, timeout: float | None, after: int | None) -> Iterator[Rows]:
    """See `Trace.follow`."""
    waited, reached = 0.0, time.monotonic()
    row = 0 if after is None else trace.rows(after + 1).start
    while True:
        try:
            while row < len(trace):
                stop = min(len(trace), row + _FOLLOW_ROWS)
                yield trace._rows(row, stop)
                row, waited = stop, 0.0
            if trace.status != "running" or (timeout is not None and waited >= timeout):
                return
            time.sleep(poll)
            waited += poll
        except TraceChangedError:
            pass  # the refresh sees why
        except TraceUnreachableError:
            time.sleep(poll)
        try:
            fresh = trace.refresh()
        except TraceUnreachableError:
            if time.monotonic() - reached > _UNREACHABLE_FOR:
                raise
            time.sleep(poll)
            continue
        reached = time.monotonic()
        if fresh._snapshot.record.identity != trace._snapshot.record.identity:
            row = 0
        trace = fresh
