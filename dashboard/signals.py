"""What the precursor view shows over all events of a run: which signal warns of dips, and which layer is first.

Both reports read every value of a run and hold them at once, so past `MOST_VALUES` they are left to the commands.
"""

from __future__ import annotations

__all__ = ["MOST_VALUES", "Reports", "Signals", "signals_of"]

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ..probes.dips import Dip
from ..probes.leaderboard import leaderboard
from ..probes.leaderboard_report import Leaderboard
from ..probes.onset_order import onset_order
from ..probes.onset_report import OnsetOrder
from ..probes.spikes import Spike
from ..traces.reader import Trace
from .event import CURVE
from .follow import Snapshot

MOST_VALUES = 20_000_000  # layers times series times steps: some seconds, and 300 MB
KEPT = 8


@dataclass(frozen=True)
class Signals:
    """The two reports of one run; where one is None, `no_board` or `no_order` says why."""

    run: str
    board: Leaderboard | None = None
    order: OnsetOrder | None = None
    no_board: str = ""
    no_order: str = ""


def signals_of(run: str, trace: Trace, spikes: Sequence[Spike], dips: Sequence[Dip]) -> Signals:
    """The leaderboard of all signals, and the order of the layers over all spike events beyond the warm-up."""
    rows, layers = len(trace), max(len(trace.layers), 1)
    board, no_board = None, f"Not testable: {'no kNN curve' if CURVE not in trace.scalars else 'no dips'}."
    if dips:
        board, no_board = _board(trace, dips) if _fits(rows * layers * max(len(trace.series), 1)) else _large("board")
    order, no_order = None, "Not testable: no spikes beyond the warm-up."
    usual = [spike for spike in spikes if not spike.warmup]
    if usual and "grad_norm" in trace.series:
        order, no_order = (onset_order(trace, usual), "") if _fits(rows * layers) else _large("order")
    return Signals(run, board, order, no_board, no_order)


def _fits(values: int) -> bool:
    return values <= MOST_VALUES


def _large(which: str) -> tuple[None, str]:
    command = {"board": "leaderboard", "order": "onset-order"}[which]
    return None, f"Too long a run to test while you wait: the command foreshock {command} does it."


def _board(trace: Trace, dips: Sequence[Dip]) -> tuple[Leaderboard | None, str]:
    try:
        return leaderboard(trace, dips), ""
    except ValueError as error:  # no steps beyond the warm-up
        return None, f"Not testable: {error}."


class Reports:
    """Reports by run, epoch and length. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], Signals] = OrderedDict()

    def of(self, snapshot: Snapshot) -> Signals:
        """The reports of what the snapshot holds; TraceError if it can't be read any more."""
        assert snapshot.trace is not None
        key = (snapshot.run, snapshot.epoch, len(snapshot.trace))
        with self._lock:
            if key not in self._kept:
                self._kept[key] = signals_of(snapshot.run, snapshot.trace, snapshot.spikes, snapshot.dips)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]
