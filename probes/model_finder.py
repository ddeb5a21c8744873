"""Model-level events while the run goes: alarms at the step that makes them sure, from the past alone, in steps."""

from __future__ import annotations

__all__ = ["ModelEventFinder"]

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from .mirror import above_the_threshold, finders, mirrored
from .model_alarm import ModelEvent, checked, layers_needed
from .spikes import Spike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOOK_EVERY = 64
"""Steps from one calibration to the next, at least; later on it is a twentieth of the steps so far."""

UNSEEN = 1 / 3
"""More than `layers_needed` reckons with, for the past is short at first; what it weighs wanes with time."""

MEMORY = 100_000
"""Steps whose falls are remembered."""


class ModelEventFinder:
    """`model_events`, one step (or block) at a time: told at the step at which the last layer that it takes is flagged.

    The number of layers that an event needs is read off the falls seen so far (see `foreshock.probes.model_events`),
    again and again as the run goes; nothing is known of the future, so the first steps of a run need many. With
    `needed` it is what you say from the start, and the alarms are those of `model_events(..., needed=needed)`.

    Args:
        layers: L names, each once.
        false_alarms: how many events noise may cause in 10,000 steps.
        within: steps that hold the first flagged steps of the layers of an event.
        needed: the number of layers itself, such as `layers_needed` told of an earlier run.
        detector, thresholds: as `SpikeFinder` takes them.
        warmup_steps: spikes that start before this step don't count.

    Raises:
        ValueError: `false_alarms`, `within` or `needed` out of range, and what `SpikeFinder` raises.

    >>> x = np.exp(np.random.default_rng(0).normal(0, 0.1, (6, 3000))); x[:4, 2000:2003] *= 6; x[5, 1000] *= 6
    >>> finder = ModelEventFinder([f"blocks.{i:02d}" for i in range(6)])
    >>> for step in range(3000):
    ...     for event in finder.update(step, x[:, step]):
    ...         print(step, event.alarm, len(event.layers), finder.needed)
    2000 2000 4 4
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        false_alarms: float = 1.0,
        within: int = 16,
        needed: int | None = None,
        detector: str = "robust",
        warmup_steps: int = 0,
        **thresholds: float,
    ) -> None:
        checked(false_alarms, within, needed)
        self._rises, self._falls = finders(layers, detector, thresholds, nan="nonfinite")
        self.layers, self.false_alarms, self.within = self._rises.layers, false_alarms, within
        self.warmup_steps, self._fixed = warmup_steps, needed
        self.needed = needed or len(self.layers) + 1
        """Layers that an event takes now; one more than there are while too little has been seen."""
        self._noise: list[Spike] = []
        self._count, self._counted, self._look = (
            0,
            0,
            LOOK_EVERY,
        )  # steps, those after the warm-up, the next calibration
        self._begun: dict[str, int] = {}  # layer -> start of the last spike that was looked at
        self._recent: list[Spike] = []  # those that began within the last `within` steps
        self._grew: int | None = None  # the last start of the event under way

    def update(self, steps: int | ArrayLike, values: ArrayLike) -> list[ModelEvent]:
        """Take the next steps; return the events that became sure in them, as far as they are known by now.

        Args:
            steps: one step number, or i64[n] increasing, all beyond those seen.
            values: f[L] for one step number, else f[L, n].

        Raises:
            ValueError: as `SpikeFinder.update`. Nothing has changed then.
        """
        numbers, block, _ = self._rises.check(steps, values)
        events: list[ModelEvent] = []
        while len(numbers):
            # A piece ends where a calibration is due, so that it doesn't matter how the steps were cut.
            size = self._look - self._count
            events += self._piece(numbers[:size], block[:, :size])
            numbers, block = numbers[size:], block[:, size:]
        return events

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, as plain JSON values."""
        return self._settings() | {
            "rises": self._rises.state_dict(),
            "falls": self._falls.state_dict(),
            "noise": [asdict(spike) for spike in self._noise],
            "needed": self.needed,
            "count": self._count,
            "counted": self._counted,
            "look": self._look,
            "begun": dict(self._begun),
            "recent": [asdict(spike) for spike in self._recent],
            "grew": self._grew,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a finder with the same settings stopped; ValueError if they differ."""
        for key, own in self._settings().items():
            if state[key] != own:
                raise ValueError(f"the saved state has {key} {state[key]}, this finder {own}; make them the same")
        self._rises.load_state_dict(state["rises"])
        self._falls.load_state_dict(state["falls"])
        self._noise = [Spike(**told) for told in state["noise"]]
        self.needed, self._look = state["needed"], state["look"]
        self._count, self._counted = state["count"], state["counted"]
        self._begun, self._grew = dict(state["begun"]), state["grew"]
        self._recent = [Spike(**told) for told in state["recent"]]

    def _settings(self) -> dict[str, Any]:
        settings = {"false_alarms": self.false_alarms, "within": self.within, "fixed": self._fixed}
        return settings | {"warmup_steps": self.warmup_steps}

    def _piece(self, steps: np.ndarray, values: np.ndarray) -> list[ModelEvent]:
        seen = [*self._rises.update(steps, values), *self._rises.open_events()]
        self._noise += self._falls.update(steps, mirrored(np.asarray(values, float)))
        self._count += len(steps)
        self._counted += int(np.count_nonzero(steps >= self.warmup_steps))
        latest = {(spike.layer, spike.start): spike for spike in seen}
        self._recent = [latest.get((spike.layer, spike.start), spike) for spike in self._recent]
        begun = [s for s in seen if s.start > self._begun.get(s.layer, -1) and s.start >= self.warmup_steps]
        by_step = groupby(sorted(begun, key=lambda spike: spike.start), key=lambda spike: spike.start)
        events = [event for step, own in by_step for event in self._begin(step, list(own))]
        if self._count >= self._look:
            self._look += max(LOOK_EVERY, self._count // 20)
            self._calibrate(int(steps[-1]))
        return events

    def _begin(self, step: int, spikes: list[Spike]) -> list[ModelEvent]:
        """The event that the spikes which start at this step make sure, if they do."""
        self._begun |= {spike.layer: step for spike in spikes}
        self._recent = [*(one for one in self._recent if step - one.start < self.within), *spikes]
        if self._grew is not None and step - self._grew < self.within:
            self._grew = step
            return []
        names = tuple(dict.fromkeys(one.layer for one in self._recent))
        self._grew = step if len(names) >= self.needed else None
        if self._grew is None:
            return []
        end = max(one.end for one in self._recent)
        return [ModelEvent(step, self._recent[0].start, end, names, self.needed, tuple(self._recent))]

    def _calibrate(self, now: int) -> None:
        if self._fixed:
            return
        self._noise = [spike for spike in self._noise if spike.start >= max(self.warmup_steps, now - MEMORY)]
        noise = above_the_threshold(self._noise, self._rises)
        steps, size = max(1, min(self._counted, MEMORY)), len(self.layers)
        rule = {"false_alarms": self.false_alarms, "unseen": UNSEEN}
        self.needed = layers_needed(noise, layers=size, steps=steps, within=self.within, **rule)
