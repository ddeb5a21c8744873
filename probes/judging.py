"""From values to events for all layers of a run: a detector, then grouping, and what both remember, in steps.

Two classes with the same verbs and the same plain state a layer: `OneByOne` serves every detector, `AllAtOnce` those
that tell the shared kernel their `rule`; it does next to nothing for a layer where nothing happens.

    feed(steps i64[n], values f64[L, n], measured bool[L, n]) -> closed events, as (layer's place, event)
    open_events(), finish() -> the events under way; finish is the end of the series, and they are forgotten
    states(), load(states) -> everything that is remembered, as plain JSON values, one dict a layer
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from .detectors import Detector, Scores, State
from .grouping import LOOK_BACK, group
from .robust_bank import Bank
from .robust_scan import kinds_and_logs

__all__ = ["AllAtOnce", "Judge", "OneByOne", "judge_for"]

Events = list[tuple[int, State]]


def judge_for(detector: Detector, thresholds: Any, layers: int) -> Judge:
    """The quickest of the two that serves this detector.

    >>> from .detectors import detector
    >>> rms = detector("rms")
    >>> judge = judge_for(rms, rms.configure({"merge": 1}), layers=1)
    >>> closed = judge.feed(np.arange(4), np.array([[1.0, 9.0, 1.0, 1.0]]), np.ones((1, 4), bool))
    >>> closed[0][1]["start"]
    1
    """
    return (OneByOne if detector.rule is None else AllAtOnce)(detector, thresholds, layers)


class OneByOne:
    """Any detector, a layer at a time. One with a `finish` may judge late: its values wait in `pending` till then."""

    def __init__(self, detector: Detector, thresholds: Any, layers: int) -> None:
        self._detector, self._thresholds = detector, thresholds
        self._states: list[State] = [{"detector": None, "group": None, "pending": []} for _ in range(layers)]

    def feed(self, steps: np.ndarray, values: np.ndarray, measured: np.ndarray) -> Events:
        """Take the next steps; return the events that can grow no more."""
        closed: Events = []
        for i, state in enumerate(self._states):
            kept = measured[i]
            if not kept.any():
                continue
            at, row = (steps, values[i]) if kept.all() else (steps[kept], values[i, kept])
            scores, judged = self._detector.detect(row, state["detector"], self._thresholds)
            events, self._states[i] = self._grouped(state | {"detector": judged}, at, row, scores)
            closed += [(i, event) for event in events]
        return closed

    def open_events(self) -> Events:
        """The events under way, as far as they are known."""
        events = [(i, (state["group"] or {}).get("event")) for i, state in enumerate(self._states)]
        return [(i, event) for i, event in events if event is not None]

    def finish(self) -> Events:
        """The end of the series: return the events under way and forget them."""
        closed: Events = []
        if self._detector.finish is not None:
            for i, state in enumerate(self._states):
                scores, judged = self._detector.finish(state["detector"], self._thresholds)
                nothing = np.empty(0, np.int64), np.empty(0)
                events, self._states[i] = self._grouped(state | {"detector": judged}, *nothing, scores)
                closed += [(i, event) for event in events]
        closed += self.open_events()
        for state in self._states:
            if state["group"] is not None:
                state["group"] = state["group"] | {"event": None}
        return closed

    def states(self) -> list[State]:
        """Everything that is remembered, one dict of plain JSON values a layer."""
        return copy.deepcopy(self._states)

    def load(self, states: Sequence[State]) -> None:
        """Go on from such states."""
        self._states = copy.deepcopy(list(states))

    def _grouped(
        self, state: State, steps: np.ndarray, values: np.ndarray, scores: Scores
    ) -> tuple[list[State], State]:
        if self._detector.finish is not None:
            waiting = np.array([step for step, _ in state["pending"]], np.int64)
            waited = np.array([value for _, value in state["pending"]], float)
            steps, values = np.concatenate([waiting, steps]), np.concatenate([waited, values])
            n = len(scores.flags)
            state = state | {
                "pending": [list(pair) for pair in zip(steps[n:].tolist(), _plain(values[n:]), strict=True)]
            }
            steps, values = steps[:n], values[:n]
        events, grouped = group(steps, values, scores, state["group"], self._thresholds.merge)
        return events, state | {"group": grouped}


class AllAtOnce:
    """All layers in one call of the kernel; only layers with something flagged or open are looked at one by one."""

    def __init__(self, detector: Detector, thresholds: Any, layers: int) -> None:
        assert detector.rule is not None
        self._rule, self._merge = detector.rule(thresholds), thresholds.merge
        self._bank = Bank([None] * layers, self._rule)
        self._event: list[State | None] = [None] * layers
        self._last, self._rows = np.full(layers, -1), np.zeros(layers, np.int64)
        self._recent = np.zeros((layers, LOOK_BACK), np.int64), np.zeros((layers, LOOK_BACK))  # rings: steps, values

    def feed(self, steps: np.ndarray, values: np.ndarray, measured: np.ndarray) -> Events:
        """Take the next steps; return the events that can grow no more."""
        flags, z, middle = self._bank.scan(*kinds_and_logs(values, measured))
        eventful = flags.any(axis=1) | np.array([event is not None for event in self._event], bool)
        closed: Events = []
        for i in np.flatnonzero(eventful).tolist():
            kept = measured[i]
            scores = Scores(flags[i, kept], z[i, kept], np.exp(middle[i, kept]))
            events, state = group(steps[kept], values[i, kept], scores, self._group(i), self._merge)
            closed += [(i, event) for event in events]
            self._event[i], self._last[i] = state["event"], state["last"]
        self._remember(steps, values, measured)
        return closed

    def open_events(self) -> Events:
        """The events under way, as far as they are known."""
        return [(i, event) for i, event in enumerate(self._event) if event is not None]

    def finish(self) -> Events:
        """The end of the series: return the events under way and forget them."""
        rest = self.open_events()
        self._event = [None] * len(self._event)
        return rest

    def states(self) -> list[State]:
        """Everything that is remembered, one dict of plain JSON values a layer."""
        groups = [self._group(i) for i in range(len(self._event))]
        return [copy.deepcopy({"detector": d, "group": g}) for d, g in zip(self._bank.states(), groups, strict=True)]

    def load(self, states: Sequence[State]) -> None:
        """Go on from such states."""
        states = copy.deepcopy(list(states))
        self._bank = Bank([state["detector"] for state in states], self._rule)
        for i, state in enumerate(states):
            told = state["group"]
            self._event[i], self._last[i], self._rows[i] = told["event"], told["last"], told["row"]
            for step_and_value, ring in enumerate(self._recent):
                at = np.arange(told["row"] - len(told["recent"]), told["row"]) % LOOK_BACK
                ring[i, at] = [pair[step_and_value] for pair in told["recent"]]

    def _group(self, i: int) -> State:
        rows = int(self._rows[i])
        at = np.arange(max(0, rows - LOOK_BACK), rows) % LOOK_BACK
        recent = zip(self._recent[0][i, at].tolist(), _plain(self._recent[1][i, at]), strict=True)
        pairs = [list(pair) for pair in recent]
        return {"row": rows, "last": int(self._last[i]), "recent": pairs, "event": self._event[i]}

    def _remember(self, steps: np.ndarray, values: np.ndarray, measured: np.ndarray) -> None:
        """Put the last measured values of each layer into its ring."""
        after = self._rows + measured.sum(axis=1)
        if len(steps) > 1 and not measured.all():
            for i in range(len(values)):
                kept = np.flatnonzero(measured[i])[-LOOK_BACK:]
                at = np.arange(after[i] - len(kept), after[i]) % LOOK_BACK
                self._recent[0][i, at], self._recent[1][i, at] = steps[kept], values[i, kept]
        elif len(steps):
            newest = slice(max(0, len(steps) - LOOK_BACK), None)
            layers = np.flatnonzero(measured[:, -1])
            at = np.arange(-len(steps[newest]), 0) + after[layers, None]
            place = layers[:, None], at % LOOK_BACK
            self._recent[0][place], self._recent[1][place] = steps[newest], values[layers, newest]
        self._rows = after


Judge = OneByOne | AllAtOnce


def _plain(values: np.ndarray) -> list[float | None]:
    # A non-finite value is flagged, and no look back goes as far as a flagged step: None will do for it.
    return [value if np.isfinite(value) else None for value in values.tolist()]
