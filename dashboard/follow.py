"""A run under a live reader: its newest commit, its spikes found as rows come, its state; shared by all browsers."""

from __future__ import annotations

__all__ = ["Follower", "Runs", "Snapshot"]

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..probes.dips import Dip, find_dips
from ..probes.spikes import Spike, SpikeFinder
from ..traces.errors import TraceError, TraceNotFoundError
from ..traces.reader import Trace, open_trace
from ..traces.runs import find_runs

REFRESH_S = 0.4  # a commit comes about once a second: looking more often finds nothing new
LISTING_S = 2.0
CHUNK_ROWS = 2048
BUDGET_S = 0.6  # of spike finding a refresh: a long run is searched over several
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

    @property
    def rows(self) -> int:
        """How many steps there are to read."""
        return 0 if self.trace is None else len(self.trace)


class Follower:
    """Keeps a snapshot of the run at `path` fresh. Every method may be called from any thread.

    The cost of a refresh is bounded: at most `BUDGET_S` of spike finding, over rows not seen before.
    """

    def __init__(self, run: str, path: Path) -> None:
        self._run, self._path = run, path
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._snapshot = Snapshot(run, None, "broken", "not read yet")
        self._forget()

    def _forget(self) -> None:
        self._finder: SpikeFinder | None = None
        self._fed = 0
        self._closed: list[Spike] = []
        self._dips: Sequence[Dip] = ()
        self._dips_rows, self._dips_cost, self._dips_at = -1, 0.0, 0.0

    def snapshot(self) -> Snapshot:
        """The newest snapshot; looks at the disk at most every `REFRESH_S`."""
        if time.monotonic() - self._checked < REFRESH_S and self._snapshot.searched >= 1:
            return self._snapshot
        with self._lock:
            if time.monotonic() - self._checked >= REFRESH_S or self._snapshot.searched < 1:
                self._snapshot = self._refresh()
                self._checked = time.monotonic()
            return self._snapshot

    def _refresh(self) -> Snapshot:
        old = self._snapshot
        try:
            trace = open_trace(self._path)
            epoch = f"{trace.attrs.get('created', '')}/{trace.generation}"
            if epoch != old.epoch or len(trace) < self._fed:
                self._forget()
            self._feed(trace)
            spikes = self._found()
            searched = min(1.0, self._fed / len(trace)) if len(trace) else 1.0
            message = str(trace.attrs.get("message") or "")
            return Snapshot(self._run, trace, trace.state, message, epoch, spikes, self._find_dips(trace), searched)
        except TraceNotFoundError as error:
            return Snapshot(self._run, old.trace, "deleted", str(error), old.epoch, old.spikes, old.dips)
        except TraceError as error:  # shown to the user: a broken run must not look like a quiet one
            return Snapshot(self._run, old.trace, "broken", str(error), old.epoch, old.spikes, old.dips)

    def _feed(self, trace: Trace) -> None:
        if "grad_norm" not in trace.series or not trace.layers:
            self._fed = len(trace)
            return
        if self._finder is None:
            self._finder = SpikeFinder(trace.layers, warmup_steps=_warmup(trace), nan="gap")
        deadline = time.monotonic() + BUDGET_S
        while self._fed < len(trace):
            stop = min(len(trace), self._fed + CHUNK_ROWS)
            values = trace.read("grad_norm", start=self._fed, stop=stop)
            self._closed += self._finder.update(trace.steps[self._fed : stop], values)
            self._fed = stop
            if time.monotonic() >= deadline:
                break

    def _found(self) -> list[Spike]:
        under_way = self._finder.open_events() if self._finder is not None else []
        return sorted([*self._closed, *under_way], key=lambda spike: spike.onset)

    def _find_dips(self, trace: Trace) -> Sequence[Dip]:
        """Dips are sought in the whole curve, so on a long one at most a tenth of the time goes into it."""
        if "knn_accuracy" not in trace.scalars or self._dips_rows == len(trace):
            return self._dips
        began = time.monotonic()
        if trace.state == "running" and began - self._dips_at < 10 * self._dips_cost:
            return self._dips
        self._dips = find_dips(trace)
        self._dips_rows, self._dips_at = len(trace), time.monotonic()
        self._dips_cost = self._dips_at - began
        return self._dips


def _warmup(trace: Trace) -> int:
    given = trace.meta.get("warmup_steps")
    return int(given) if isinstance(given, (int, float)) and given == given else 0


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
