"""A run under a live reader: its newest commit, its spikes found as rows come, its state; shared by all browsers."""

from __future__ import annotations

__all__ = ["Follower", "Runs", "Snapshot"]

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..probes.dips import Dip
from ..probes.spikes import Spike
from ..traces.errors import TraceError, TraceNotFoundError
from ..traces.reader import Trace, open_trace
from ..traces.runs import find_runs
from .finder import EventFinder, by_onset
from .searching import SearchEndedError, Searching

REFRESH_S = 0.4  # a commit comes about once a second: looking more often finds nothing new
LISTING_S = 2.0
AT_ONCE = 300_000  # values (rows times layers) that are searched while the browser waits; more, in a process beside it
CHUNK = 600_000  # values between two reports of a search beside it
REST_S = 0.0  # ... and a pause; the process gives way by its priority
RETRY_S = 30.0  # before a search begins again whose process was ended from outside
KEPT = 64  # followers; a browser that comes back to a dropped one waits for its spikes again


@dataclass(frozen=True)
class Snapshot:
    """One moment of a run. `epoch` changes when rows that were there may have changed (a restart, a truncation)."""

    run: str
    trace: Trace | None
    state: str  # running, stalled, finished, failed, deleted, broken
    message: str = ""
    epoch: str = ""
    spikes: Sequence[Spike] = ()
    dips: Sequence[Dip] = ()
    searched: float = 1.0
    answers: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What was answered from this moment already: many pages ask the same."""
    answering: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """How many steps there are to read."""
        return 0 if self.trace is None else len(self.trace)


class Follower:
    """Keeps a snapshot of the run at `path` fresh. Every method may be called from any thread.

    A look at the disk is cheap; the spikes of a long run are searched in a process of their own, and nobody waits for
    it: `searched` tells how far it is.
    """

    def __init__(self, run: str, path: Path) -> None:
        self._run, self._path = run, path
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._snapshot = Snapshot(run, None, "broken", "not read yet")
        self._search = _Search(path)

    def snapshot(self) -> Snapshot:
        """The newest snapshot; looks at the disk at most every `REFRESH_S`, and waits only for the first look."""
        if time.monotonic() - self._checked < REFRESH_S:
            return self._snapshot
        if self._lock.acquire(blocking=self._snapshot.trace is None):
            try:
                if time.monotonic() - self._checked >= REFRESH_S:
                    new = self._refresh()
                    if new != self._snapshot:  # else the old one stays, with what was answered from it
                        self._snapshot = new
                    self._checked = time.monotonic()
            finally:
                self._lock.release()
        return self._snapshot

    def _refresh(self) -> Snapshot:
        old = self._snapshot
        try:
            trace = open_trace(self._path) if old.trace is None else old.trace.refresh()  # keeps the steps it has read
            epoch = f"{trace.attrs.get('created', '')}/{trace.generation}"
            if epoch != old.epoch or len(trace) < self._search.rows:
                self._search.stop()
                self._search = _Search(self._path)
            self._search.follow(trace)
            told = [str(trace.attrs.get("message") or ""), self._search.message]
            message, found = " ".join(filter(None, told)), self._search.found
            return Snapshot(self._run, trace, trace.state, message, epoch, found.spikes, found.dips, found.share(trace))
        except TraceNotFoundError as error:
            return Snapshot(self._run, old.trace, "deleted", str(error), old.epoch, old.spikes, old.dips)
        except TraceError as error:  # shown to the user: a broken run must not look like a quiet one
            return Snapshot(self._run, old.trace, "broken", str(error), old.epoch, old.spikes, old.dips)


@dataclass(frozen=True)
class _Found:
    spikes: Sequence[Spike] = ()
    dips: Sequence[Dip] = ()
    rows: int = 0

    def share(self, trace: Trace) -> float:
        return min(1.0, self.rows / len(trace)) if len(trace) else 1.0


class _Search:
    """The spikes and dips of one epoch of a run, as rows come; what is found so far is published as one object."""

    def __init__(self, path: Path) -> None:
        self.found = _Found()
        self.message = ""
        self._path = path
        self._finder: EventFinder | None = None
        self._thread: threading.Thread | None = None
        self._beside: Searching | None = None
        self._not_before = 0.0

    @property
    def rows(self) -> int:
        """How many rows have been searched for good."""
        return 0 if self._finder is None else self._finder.rows

    def stop(self) -> None:
        """End the process, if there is one: the run's rows have changed."""
        if self._beside is not None:
            self._beside.stop()

    def follow(self, trace: Trace) -> None:
        """Take in the rows that are new: at once if they are few, else in a process of its own."""
        if (self._thread is not None and self._thread.is_alive()) or time.monotonic() < self._not_before:
            return
        if self._finder is None:
            self._finder = EventFinder(trace)
        finder = self._finder
        if finder.owes(trace) <= AT_ONCE:
            finder.take_curve(trace, len(trace))
            finder.take_norms(trace, len(trace))
            self.message = finder.message
            self.found = _Found(finder.spikes, finder.dips, finder.rows)
        else:
            piece = max(256, CHUNK // len(trace.layers))
            self._beside = Searching(self._path, finder.state_dict(), len(trace), piece, REST_S)
            self._thread = threading.Thread(target=self._listen, args=(trace, self._beside), daemon=True, name="search")
            self._thread.start()

    def _listen(self, trace: Trace, beside: Searching) -> None:
        assert self._finder is not None
        closed, dips, rows = list(self._finder.closed_spikes), self.found.dips, self._finder.rows
        try:
            for told in beside.answers():
                if "dips" in told:
                    dips = [Dip(**dip) for dip in told["dips"]]
                    self.found = _Found(self.found.spikes, dips, rows)
                elif "rows" in told:
                    closed += [Spike(**spike) for spike in told["closed"]]
                    self.message = ""
                    self.found = _Found(
                        by_onset([*closed, *(Spike(**spike) for spike in told["open"])]), dips, told["rows"]
                    )
                elif "state" in told:
                    finder = EventFinder(trace)
                    finder.load_state_dict(told["state"])
                    self._finder, self.message = finder, finder.message
                # An error: the run was cut short or deleted meanwhile, and the next look at the disk says so.
        except SearchEndedError as error:
            self._not_before = time.monotonic() + RETRY_S
            again = f"it begins again in {RETRY_S:.0f} s" if RETRY_S >= 1 else "it begins again"
            self.message = f"The search for spikes was ended from outside ({error}); {again}."


class Runs:
    """The runs under a root by name, and their followers.

    A name is the run's path below the root. It is only ever looked up in the listing: what a browser sends is data, so
    a name that is not there (`../secret`, an absolute path) is unknown, whatever lies on the disk.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._lock = threading.Lock()
        self._listed: dict[str, Path] = {}
        self._listed_at = float("-inf")
        self._followers: OrderedDict[str, Follower] = OrderedDict()

    def names(self) -> list[str]:
        """Every run, newest first; looks at the disk at most every `LISTING_S`."""
        with self._lock:
            if time.monotonic() - self._listed_at >= LISTING_S:
                self._listed = {self._name(path): path for path in find_runs(self.root)}
                self._listed_at = time.monotonic()
            return list(self._listed)

    def _name(self, path: Path) -> str:
        root = self.root.resolve()
        resolved = path.resolve()
        return resolved.name if resolved == root else resolved.relative_to(root).as_posix()

    def path(self, run: str) -> Path | None:
        """Where `run` lies; None if the root holds no such run."""
        self.names()
        with self._lock:
            return self._listed.get(run)

    def follower(self, run: str) -> Follower | None:
        """The follower of `run`; None if the root holds no such run. One that was deleted is still followed."""
        self.names()
        with self._lock:
            path = self._listed.get(run)
            if path is not None and run not in self._followers:
                self._followers[run] = Follower(run, path)
                while len(self._followers) > KEPT:
                    self._followers.popitem(last=False)
            if run in self._followers:
                self._followers.move_to_end(run)
            return self._followers.get(run)
