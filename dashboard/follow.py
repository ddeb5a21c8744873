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
AT_ONCE = 300_000  # values (rows times layers) that are searched for spikes while the browser waits; more, beside it
CHUNK = 30_000  # values between two looks of a search beside it: about 50 ms
REST_S = 0.01  # ... and a pause, so that zooming stays quick meanwhile
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

    A look at the disk is cheap; the spikes of a long run are searched on a thread of their own, and nobody waits for
    it: `searched` tells how far it is.
    """

    def __init__(self, run: str, path: Path) -> None:
        self._run, self._path = run, path
        self._lock = threading.Lock()
        self._checked = float("-inf")
        self._snapshot = Snapshot(run, None, "broken", "not read yet")
        self._search = _Search()

    def snapshot(self) -> Snapshot:
        """The newest snapshot; looks at the disk at most every `REFRESH_S`, and waits only for the first look."""
        if time.monotonic() - self._checked < REFRESH_S:
            return self._snapshot
        if self._lock.acquire(blocking=self._snapshot.trace is None):
            try:
                if time.monotonic() - self._checked >= REFRESH_S:
                    self._snapshot = self._refresh()
                    self._checked = time.monotonic()
            finally:
                self._lock.release()
        return self._snapshot

    def _refresh(self) -> Snapshot:
        old = self._snapshot
        try:
            trace = open_trace(self._path) if old.trace is None else old.trace.refresh()  # keeps the steps it has read
            epoch = f"{trace.attrs.get('created', '')}/{trace.generation}"
            if epoch != old.epoch or len(trace) < self._search.fed:
                self._search.stop()
                self._search = _Search()
            self._search.follow(trace)
            message, found = str(trace.attrs.get("message") or ""), self._search.found
            return Snapshot(self._run, trace, trace.state, message, epoch, found.spikes, found.dips, found.share(trace))
        except TraceNotFoundError as error:
            return Snapshot(self._run, old.trace, "deleted", str(error), old.epoch, old.spikes, old.dips)
        except TraceError as error:  # shown to the user: a broken run must not look like a quiet one
            return Snapshot(self._run, old.trace, "broken", str(error), old.epoch, old.spikes, old.dips)


@dataclass(frozen=True)
class _Found:
    spikes: Sequence[Spike] = ()
    dips: Sequence[Dip] = ()
    fed: int = 0

    def share(self, trace: Trace) -> float:
        return min(1.0, self.fed / len(trace)) if len(trace) else 1.0


class _Search:
    """The spikes and dips of one epoch of a run, as rows come; what is found so far is published as one object."""

    def __init__(self) -> None:
        self.found = _Found()
        self.fed = 0
        self._finder: SpikeFinder | None = None
        self._closed: list[Spike] = []
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._dips_rows, self._dips_cost, self._dips_at = -1, 0.0, 0.0

    def stop(self) -> None:
        """End the thread after its chunk: the run's rows have changed."""
        self._stopped = True

    def follow(self, trace: Trace) -> None:
        """Take in the rows that are new: at once if they are few, else on a thread that goes on by itself."""
        if self._thread is not None and self._thread.is_alive():
            return
        if (len(trace) - self.fed) * max(1, len(trace.layers)) <= AT_ONCE:
            self._take(trace)
        else:
            self._thread = threading.Thread(target=self._take, args=(trace, REST_S), daemon=True, name="search")
            self._thread.start()

    def _take(self, trace: Trace, rest: float = 0.0) -> None:
        try:
            dips = self._find_dips(trace)
            searches = "grad_norm" in trace.series and bool(trace.layers)
            rows = max(256, CHUNK // max(1, len(trace.layers))) if searches else len(trace)
            while self.fed < len(trace) and not self._stopped:
                stop = min(len(trace), self.fed + rows)
                if searches:
                    self._feed(trace, stop)
                self.fed = stop
                if rest:
                    self.found = self._publish(dips)
                    time.sleep(rest)
            self.found = self._publish(dips)
        except TraceError:
            if not rest:
                raise
            # On the thread: the run was cut short or deleted meanwhile, and the next look at the disk says so.

    def _feed(self, trace: Trace, stop: int) -> None:
        if self._finder is None:
            self._finder = SpikeFinder(trace.layers, warmup_steps=_warmup(trace), nan="gap")
        values = trace.read("grad_norm", start=self.fed, stop=stop)
        self._closed += self._finder.update(trace.steps[self.fed : stop], values)

    def _publish(self, dips: Sequence[Dip]) -> _Found:
        under_way = self._finder.open_events() if self._finder is not None else []
        spikes = sorted([*self._closed, *under_way], key=lambda spike: spike.onset)
        return _Found(spikes, dips, self.fed)

    def _find_dips(self, trace: Trace) -> Sequence[Dip]:
        """Dips are sought in the whole curve, so on a long one at most a tenth of the time goes into it."""
        if "knn_accuracy" not in trace.scalars or self._dips_rows == len(trace):
            return self.found.dips
        began = time.monotonic()
        if trace.state == "running" and began - self._dips_at < 10 * self._dips_cost:
            return self.found.dips
        dips = find_dips(trace)
        self._dips_rows, self._dips_at = len(trace), time.monotonic()
        self._dips_cost = self._dips_at - began
        return dips


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
