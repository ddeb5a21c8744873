"""The search for the spikes and dips of a long run, in a process of its own: it takes no time from whoever looks.

A line of JSON tells the process what to read, and what is known already. Its answers are lines too: `{"dips"}` first,
then `{"rows", "closed", "open"}` after each piece (rows read so far, new and unfinished spikes), at last `{"state"}`,
from which an `EventFinder` goes on; `{"error"}` where the run cannot be read. It runs at low priority, and ends when
whoever asked is gone.
"""

from __future__ import annotations

__all__ = ["PROCESSES", "SearchEndedError", "Searching"]

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..traces.errors import TraceError
from ..traces.reader import open_trace
from .finder import EventFinder

PROCESSES = max(1, (os.cpu_count() or 2) // 2)  # at once: the other runs wait
NICE = 10
_free = threading.BoundedSemaphore(PROCESSES)


class SearchEndedError(RuntimeError):
    """The process has ended before its time; the message says how."""


class Searching:
    """One search of the run at `path`, from a finder's `state` up to row `rows`, in pieces of `piece` rows with a pause
    of `rest` s.
    """

    def __init__(self, path: Path, state: Mapping[str, Any], rows: int, piece: int, rest: float = 0.0) -> None:
        self._asked = {"path": str(path), "state": state, "rows": rows, "piece": piece, "rest": rest}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the process, now."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def answers(self) -> Iterator[dict[str, Any]]:
        """What the process tells, as it comes; SearchEndedError if it ends in between and nobody stopped it."""
        with _free:
            process = self._start()
            if process is None:
                return
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    told = json.loads(line)
                    yield told
                    if "state" in told or "error" in told:
                        return
                code = process.wait()
                if not self._stopped:
                    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                    raise SearchEndedError(how)
            finally:
                process.kill()
                process.communicate()

    def _start(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopped:
                return None
            command = [sys.executable, "-m", "foreshock.dashboard.searching"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            self._process = process
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(self._asked) + "\n")
            process.stdin.flush()  # and left open: its end tells the process that nobody waits
        except BrokenPipeError:  # it has ended already, which the reader of its answers says
            pass
        return process


def _search(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    trace = open_trace(asked["path"])
    finder = EventFinder(trace)
    finder.load_state_dict(asked["state"])
    finder.take_curve(trace, asked["rows"])
    yield {"dips": [asdict(dip) for dip in finder.dips]}
    told = len(finder.closed_spikes)
    while finder.rows < asked["rows"]:
        finder.take_norms(trace, min(asked["rows"], finder.rows + asked["piece"]))
        closed = [asdict(spike) for spike in finder.closed_spikes[told:]]
        told = len(finder.closed_spikes)
        yield {"rows": finder.rows, "closed": closed, "open": [asdict(spike) for spike in finder.open_spikes]}
        threading.Event().wait(asked["rest"])
    yield {"state": finder.state_dict()}


def _end_with_the_asker() -> None:
    sys.stdin.read()  # until the other end is closed
    os._exit(0)


def _main() -> None:
    if hasattr(os, "nice"):
        os.nice(NICE)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        for told in _search(asked):
            print(json.dumps(told), flush=True)
    except TraceError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    os._exit(0)  # the thread may still wait for the end of what it reads


if __name__ == "__main__":
    _main()
