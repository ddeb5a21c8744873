"""The robust detectors on many series at once, in natural-log units; in machine code where that pays and can be.

Nothing but the speed depends on it: plain Python (`robust_scan`, about 3 µs a value) and the compiled kernel
(`robust_compiled`, about 0.15 µs, after a second or so to load and a few more the first time ever) agree bit for bit,
so a bank changes over in mid-series, once the process has judged `COMPILE_FROM` values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import numpy as np

from .detectors import Scores, State
from .robust_scan import LONG, TUNING, Rule, blank, kinds_and_logs, scan

__all__ = ["COMPILE_FROM", "Bank", "judge"]

COMPILE_FROM = 300_000
"""Values after which the compiled kernel is loaded: plain Python has spent about a second on as many by then."""

_MOST_ROOM = 20_000_000  # values that the kernel's arrays may hold; a "never" such as rebaseline=10**9 stays in Python


class Bank:
    """L series under one rule: `scan` takes the next values of all of them, `states` tells what is remembered.

    >>> rule = Rule(0.7, 4.5, 3.0, 1e-4, 4.2, 3.5, 2.0, 256, 64, 128, 10, 0.05)
    >>> bank = Bank([None], rule)
    >>> flags, z, _ = bank.scan(*kinds_and_logs(np.r_[np.ones(64), 9.0][None]))
    >>> flags[0, -1].item(), round(z[0, -1].item(), 1), len(bank.states()[0]["window"])
    (1, 43.9, 64)
    """

    judged = 0
    """Values that all banks of this process have judged in plain Python."""

    def __init__(self, states: Sequence[State | None], rule: Rule) -> None:
        self._rule = rule
        self._states = [state or blank(rule) for state in states]
        self._memory: _Memory | None = None

    def scan(self, kinds: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Judge the next [L, n] values, as `kinds_and_logs` tells them: flags u8, z f64, median f64, all [L, n]."""
        room = len(self._states) * (2 * self._rule.window + self._rule.rebaseline)
        wanted = Bank.judged + kinds.size >= COMPILE_FROM and room <= _MOST_ROOM
        if self._memory is None and wanted and (kernel := _compiled()) is not None:
            self._memory = _Memory(kernel, self._states, self._rule)
        if self._memory is not None:
            return self._memory.scan(kinds, logs)
        Bank.judged += kinds.size
        flags, z, middle = np.zeros(kinds.shape, np.uint8), np.empty(kinds.shape), np.empty(kinds.shape)
        for i, state in enumerate(self._states):
            *told, self._states[i] = scan(kinds[i].tolist(), logs[i].tolist(), state, self._rule)
            flags[i], z[i], middle[i] = told
        return flags, z, middle

    def states(self) -> list[State]:
        """What each series remembers, as plain JSON values."""
        return self._states if self._memory is None else self._memory.states()


def judge(values: np.ndarray, state: State | None, rule: Rule) -> tuple[Scores, State]:
    """Judge the next values f64[n] of one series; the state that is given stays as it is."""
    bank = Bank([state], rule)
    flags, z, middle = bank.scan(*kinds_and_logs(np.asarray(values)[None]))
    return Scores(flags[0], z[0], np.exp(middle[0])), bank.states()[0]


@cache
def _compiled() -> ModuleType | None:
    """The compiled kernel; None where numba is not installed, or not with a numpy that it knows."""
    try:
        from . import robust_compiled
    except ImportError:
        return None
    return robust_compiled


class _Memory:
    """The arrays of the compiled kernel, see there."""

    def __init__(self, kernel: ModuleType, states: Sequence[State], rule: Rule) -> None:
        n = len(states)
        self._kernel, self._rule = kernel, np.array([*rule, *TUNING], float)
        self._window, self._ordered = np.zeros((n, rule.window)), np.zeros((n, rule.window))
        self._held, self._recent = np.zeros((n, rule.rebaseline)), np.zeros((n, LONG))
        self._real, self._whole = np.zeros((n, 7)), np.zeros((n, 7), np.int64)
        for i, state in enumerate(states):
            known, held = len(state["window"]), len(state["held"])
            self._window[i, :known], self._ordered[i, :known] = state["window"], sorted(state["window"])
            self._held[i, :held], self._recent[i] = state["held"], state["recent"]
            self._real[i, :5] = *state["spread"], *state["tail"], state["threshold"]
            self._whole[i, :6] = known, 0, held, state["open"], state["quiet"], state["judged"]
        kernel.settle_all(self._ordered, self._real, self._whole, self._rule)

    def scan(self, kinds: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        flags, z, middle = np.zeros(kinds.shape, np.uint8), np.empty(kinds.shape), np.empty(kinds.shape)
        memory = self._window, self._ordered, self._held, self._recent, self._real, self._whole
        self._kernel.scan_all(kinds, logs, *memory, self._rule, flags, z, middle)
        return flags, z, middle

    def states(self) -> list[State]:
        return [self._state(i) for i in range(len(self._whole))]

    def _state(self, i: int) -> State:
        known, first, held, is_open, quiet, judged, _ = self._whole[i].tolist()
        real = self._real[i].tolist()
        return {
            "window": np.roll(self._window[i, :known], -first).tolist(),
            "held": self._held[i, :held].tolist(),
            "open": bool(is_open),
            "quiet": quiet,
            "judged": judged,
            "recent": self._recent[i].tolist(),
            "spread": real[:2],
            "tail": real[2:4],
            "threshold": real[4],
        }
