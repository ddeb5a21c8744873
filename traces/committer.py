"""Brings blocks of rows to the disk on a thread, in bounded memory, through a failing disk; times in seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .commit import TraceFiles
from .places import Lock
from .rows import RowBlock

__all__ = ["Committer"]

_log = logging.getLogger("foreshock.traces")
_MAX_EVENTS = 65_536  # that wait for a failing disk
_PATIENCE = 30.0  # seconds that append() waits for a disk that neither writes nor fails


class Committer:
    """Owns the files of a trace and the rows on their way there.

    The training thread fills `room()`, adds events and changes `meta`, all with `changed` held; everything
    else happens in `_commit`, on one thread. After an OSError the rows wait, up to `max_rows`, and every
    `flush_seconds` it is tried again; then the oldest are dropped, and an event of kind "gap" says which.
    """

    def __init__(
        self,
        files: TraceFiles,
        lock: Lock,
        new_block: Callable[[], RowBlock],
        *,
        max_rows: int,
        flush_seconds: float,
        background: bool,
    ) -> None:
        self.changed = threading.Condition()
        self._events: list[dict[str, Any]] = []  # not handed to the files yet
        self._events_lost = 0
        self._flights: list[tuple[Any, ...]] = []  # windows that are not handed to the files yet
        self.meta: dict[str, Any] = files.attributes["meta"]
        self.touched = False  # events or meta are newer than the last commit
        self.failure: Exception | None = None  # why the last commit failed
        self._files, self._lock, self._new_block = files, lock, new_block
        self._max_rows, self._flush_seconds = max_rows, flush_seconds
        self._block = new_block()
        self._queue: deque[RowBlock] = deque()
        self._broken = False  # by an error that trying again can't mend
        self._gap: dict[str, Any] | None = None  # the event of the present outage, if it cost rows or events
        self._dropped = 0  # in this gap
        self._wanted = self._served = 0  # flushes asked for, and answered
        self._last_try = time.monotonic()
        self._stopping = self._ended = False
        self._thread = threading.Thread(target=self._run, name="trace-writer", daemon=True) if background else None
        if self._thread:
            self._thread.start()

    @property
    def waiting(self) -> int:
        """How many rows are not handed to the disk yet; call with `changed` held."""
        return self._block.rows + sum(block.rows for block in self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread still runs, and may write."""
        return self._thread is not None and self._thread.is_alive()

    def room(self) -> RowBlock:
        """Return the block that the next row goes into; call with `changed` held."""
        full = not self._block.room
        if full:
            self._queue.append(self._block)
            self._block = self._new_block()
            self.changed.notify_all()
        if self._thread is None:
            due = time.monotonic() - self._last_try >= self._flush_seconds
            if due or (full and not self.failure):
                self._commit()
        if full:
            self._bound()
        return self._block

    def _bound(self) -> None:
        """Wait for a disk that is merely slow; drop the oldest rows if it fails or hangs."""

        def full() -> bool:
            return sum(block.rows for block in self._queue) > self._max_rows

        if self._thread and full() and not self.failure and not self._gap:
            self.changed.wait_for(lambda: not full() or self.failure, timeout=_PATIENCE)
        while full():
            self._drop(self._queue.popleft())

    def _drop(self, block: RowBlock) -> None:
        """Forget a block, and leave an event that says which steps are missing and why."""
        if self._gap is None:
            self._gap = {"step": int(block.steps[0]), "kind": "gap", "text": ""}
            self._dropped = 0
        self._dropped += block.rows
        cause = self.failure or f"the disk didn't answer for {_PATIENCE:.0f} s"
        last = int(block.steps[block.rows - 1])
        self._gap["text"] = f"{self._dropped} rows up to step {last} were dropped: {cause}"
        self.touched = True

    def add_event(self, event: dict[str, Any]) -> None:
        """Take a remark; call with `changed` held. Of too many that wait for a failing disk the oldest are dropped."""
        self._events.append(event)
        self.touched = True
        if len(self._events) <= _MAX_EVENTS:
            return
        if self.failure:
            del self._events[0]
            self._events_lost += 1
        elif self._thread is None:
            self._commit()

    def add_flight(self, *window: Any) -> None:
        """Take rows of the flight recorder, the arguments of `FlightArrays.append`; call with `changed` held."""
        self._flights.append(window)
        self.touched = True

    def _take_events(self) -> list[dict[str, Any]]:
        """Return the remarks to write, that of an outage which is over first."""
        events, self._events = self._events, []
        if self._events_lost:
            text = f"{self._events_lost} events were dropped while the disk failed"
            events.insert(0, {"step": events[0]["step"], "kind": "gap", "text": text})
            self._events_lost = 0
        if self._gap:
            events.insert(0, self._gap)
            self._gap = None
        return events

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything handed over so far is committed; False if the disk fails, or after `timeout`."""
        with self.changed:
            if self._thread is None:
                self._commit()
            else:
                self._wanted += 1
                ticket = self._wanted
                self.changed.notify_all()
                if not self.changed.wait_for(lambda: self._served >= ticket or self._ended, timeout):
                    return False
            return self.failure is None

    def stop(self, status: str, message: str) -> bool:
        """End the thread and commit for the last time; False if rows were lost."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
        if self._thread:
            self._thread.join(2 * _PATIENCE)
            if self.alive:
                self.failure = TimeoutError("the disk doesn't answer")
                return False
        self._files.attributes.update(status=status, message=message)
        with self.changed:
            self.touched = True
            self._commit()
            if self.failure is None:
                self._attempt(self._files.write_documents)
        return self.failure is None

    def _run(self) -> None:
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(self._urgent, timeout=self._flush_seconds)
                    if self._stopping:
                        return
                self._commit()
        except Exception as error:
            # A bug of ours, not of the disk: training goes on, close() raises.
            _log.exception("the trace %s is no longer written; training goes on", self._files.place.location)
            self.failure, self._broken = error, True
        finally:
            with self.changed:
                self._ended = True
                self.changed.notify_all()

    def _urgent(self) -> bool:
        return self._stopping or self._wanted > self._served or (bool(self._queue) and not self.failure)

    def _commit(self) -> None:
        """Write what there is; after a failure first what failed, then what has waited since."""
        with self.changed:
            wanted = self._wanted
        while not self._broken:
            failed_before = self.failure is not None
            with self.changed:
                blocks = [] if failed_before else self._take()
                idle = not blocks and not self.touched and not failed_before
                events = [] if failed_before else self._take_events()
                flights, self._flights = ([], self._flights) if failed_before else (self._flights, [])
                self._files.attributes["meta"] = dict(self.meta)
                self.touched = self.touched and failed_before
                self.changed.notify_all()
            if idle:
                break
            for block in blocks:
                self._files.append(block)
            self._files.add_events(events)
            for window in flights:
                assert self._files.flight is not None
                self._files.flight.append(*window)
            self._attempt(self._files.commit)
            if self.failure or not failed_before:
                break
            _log.warning("the trace %s is written again", self._files.place.location)
        with self.changed:
            self._served = wanted
            self._last_try = time.monotonic()
            self.changed.notify_all()

    def _take(self) -> list[RowBlock]:
        blocks = [*self._queue, self._block] if self._block.rows else list(self._queue)
        self._queue.clear()
        if self._block.rows:
            self._block = self._new_block()
        return blocks

    def _attempt(self, write: Callable[[], None]) -> None:
        """Write; an OSError is kept in `failure` and warned of once."""
        where = self._files.place.location
        try:
            if not self._lock.is_ours():
                raise FileNotFoundError(f"{where} was deleted or replaced while it was written")
            write()
        except OSError as error:
            if self.failure is None:
                _log.warning(
                    "the trace %s can't be written (%s); training goes on, rows are kept in memory and tried again "
                    "every %g s",
                    where, error, self._flush_seconds,
                )  # fmt: skip
            self.failure = error
        else:
            self.failure = None
