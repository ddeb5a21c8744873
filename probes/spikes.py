"""Spikes: sudden rises of a positive series over its own recent baseline, one layer at a time, in steps.

`find_spikes` reads a whole run, a block of rows at a time, `SpikeFinder` takes it as it comes; both feed the same two
pure functions (a detector of `foreshock.probes.detectors`, then `foreshock.probes.grouping`), so they find the
identical events. The phenomenon: Chen, Xie and He, Sec. 4.2 and Fig. 4 (arXiv 2104.02057).

What a NaN means. In a trace it means "not measured at this step", in every series: the sensors record the norm of a
broken gradient as inf, and NaN only for a layer that is frozen. In a bare array, which promises a value at each step,
NaN *before* the first number is "not measured" too, and NaN *after* it is a `nonfinite` event at once. ±Inf always is
one. `nan="gap"` or `nan="nonfinite"` overrides this. Steps without a measurement are left out before anything is
counted: all windows count measured steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .detectors import State
from .detectors import detector as load_detector
from .grouping import describe
from .judging import judge_for
from .series import blocks, is_trace, step_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["Spike", "SpikeFinder", "find_spikes"]

NaN = Literal["nonfinite", "gap"]


@dataclass(frozen=True)
class Spike:
    """One event of one layer. Steps are the trace's own, or indices of a bare array.

    Attributes:
        layer: the layer's name.
        start: first flagged step.
        onset: first step of the rise at 50 % of the log peak (at most 32 steps before `start`); of a `nonfinite` event
            its first non-finite step.
        peak: step of the largest value; of a `nonfinite` event its first non-finite step.
        end: last flagged step (so far, if the event is still open).
        ratio: peak value over the baseline at the start; inf for `nonfinite`.
        z: the detector's score at the peak; inf for `nonfinite`.
        area: sum over the flagged finite steps of ln(value / baseline), in log units times steps.
        kind: `spike`; `level_shift`, which stayed until it became the new baseline; `nonfinite`.
        warmup: the onset lies in the warm-up, where rises are common and say little.
    """

    layer: str
    start: int
    onset: int
    peak: int
    end: int
    ratio: float
    z: float
    area: float
    kind: Literal["spike", "level_shift", "nonfinite"]
    warmup: bool = False

    @property
    def duration(self) -> int:
        """Steps from the first flagged to the last, both counted. Most spikes of real runs last one or two."""
        return self.end - self.start + 1


def find_spikes(
    source: Trace | ArrayLike,
    *,
    layer: str | Sequence[str] | None = None,
    series: str = "grad_norm",
    steps: ArrayLike | None = None,
    layers: Sequence[str] | None = None,
    detector: str = "robust",
    warmup_steps: int | None = None,
    nan: NaN | None = None,
    **thresholds: float,
) -> list[Spike]:
    """Find the spikes of a run.

    Args:
        source: a trace; or an array of values >= 0 (NaN, Inf allowed), `[T]` (layer name "series") or `[L, T]`.
        layer: look only at this layer, or these.
        series: which of the trace's series, per-layer or scalar.
        steps: i64[T], step numbers of an array (default: indices).
        layers: L row names of an array (default: "0", "1", …).
        detector: the name of a file in `probes/detectors`.
        warmup_steps: spikes with onset before this step are marked `warmup` (default: the trace's own, else 0).
        nan: what NaN means, see above.
        thresholds: the detector's thresholds, and `merge` (default 10): flagged steps at most this many measured steps
            apart form one event.

    Returns:
        Spikes sorted by onset, then by layer in the given order; one that is still open at the end included.

    Raises:
        ValueError: unknown layer, detector or threshold, a value out of range, negative values in the series.

    >>> x = np.full(200, 0.5); x[150:152] = 4.0, 2.0
    >>> spike, = find_spikes(x)
    >>> spike.onset, spike.end, spike.ratio
    (150, 151, 8.0)
    """
    if warmup_steps is None:
        warmup_steps = int(source.meta.get("warmup_steps") or 0) if is_trace(source) else 0
    finder, spikes = None, []
    for rows in blocks(source, series, layer=layer, steps=steps, layers=layers):
        if finder is None:
            nan = nan or ("nonfinite" if rows.every_step else "gap")
            finder = SpikeFinder(rows.names, detector, warmup_steps, nan=nan, **thresholds)
        spikes += finder.update(rows.steps, rows.values)
    assert finder is not None  # there is always a block, if need be an empty one
    return finder._in_order(spikes + finder.close())


class SpikeFinder:
    """The same events, one step (or block) at a time.

    >>> finder = SpikeFinder(["patch_embed", "blocks.00"])
    >>> for step in range(120):
    ...     for spike in finder.update(step, [4.0 if step == 100 else 0.5, 0.25]):
    ...         print(f"step {step}: {spike.layer} rose {spike.ratio:g}-fold at {spike.onset}")
    step 110: patch_embed rose 8-fold at 100
    """

    def __init__(
        self,
        layers: Sequence[str],
        detector: str = "robust",
        warmup_steps: int = 0,
        *,
        nan: NaN = "nonfinite",
        **thresholds: float,
    ) -> None:
        if isinstance(layers, str) or len(set(layers)) < len(layers):
            raise ValueError(f"layers is {layers!r}; give a list of names, each once")
        if nan not in ("nonfinite", "gap"):
            raise ValueError(f'nan={nan!r}; allowed are "nonfinite" and "gap"')
        self.layers = tuple(layers)
        self.warmup_steps = warmup_steps
        self._nan = nan
        self._detector = load_detector(detector)
        self._thresholds = self._detector.configure(thresholds)
        self._last_step: int | None = None
        self._seen = np.zeros(len(self.layers), bool)
        self._judge = judge_for(self._detector, self._thresholds, len(self.layers))

    def update(self, steps: int | ArrayLike, values: ArrayLike) -> list[Spike]:
        """Take the next steps.

        Args:
            steps: one step number, or i64[n] increasing, all beyond those seen.
            values: f[L] for one step number, else f[L, n].

        Returns:
            The spikes that closed: no later value can change them. An event closes `merge` calm steps after its end.

        Raises:
            ValueError: wrong shapes, a step that isn't beyond the last, a negative value. Nothing has changed then.
        """
        numbers, block, measured = self.check(steps, values)
        if not len(numbers):
            return []
        closed = self._judge.feed(numbers, np.asarray(block, float), measured)
        self._seen |= measured.any(axis=1)
        self._last_step = int(numbers[-1])
        return self._spikes(closed)

    def check(self, steps: int | ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps i64[n], values f[L, n], and which count; raises what `update` would raise, and changes nothing."""
        numbers, block = self._shaped(steps, np.asarray(values))
        measured = self._measured(block)
        self._refuse_negative(numbers, block, measured)
        return numbers, block, measured

    def open_events(self) -> list[Spike]:
        """The spikes that are under way, or may still grow, as far as they are known."""
        return self._spikes(self._judge.open_events())

    def close(self) -> list[Spike]:
        """End of the series: return the open events and forget them."""
        return self._spikes(self._judge.finish())

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered, as plain JSON values."""
        return self._settings() | {
            "last_step": self._last_step,
            "states": [
                {"seen": seen} | state for seen, state in zip(self._seen.tolist(), self._judge.states(), strict=True)
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a finder with the same layers, detector and thresholds stopped; ValueError if they differ."""
        for key, own in self._settings().items():
            if state[key] != own:
                raise ValueError(f"the saved state has {key} {state[key]}, this finder {own}; make them the same")
        self._last_step = state["last_step"]
        self._seen = np.array([told["seen"] for told in state["states"]], bool)
        self._judge.load([{key: told[key] for key in told if key != "seen"} for told in state["states"]])

    def _settings(self) -> dict[str, Any]:
        settings = {"detector": self._detector.name, "thresholds": asdict(self._thresholds), "nan": self._nan}
        return settings | {"layers": list(self.layers)}

    def _shaped(self, steps: int | ArrayLike, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        single = np.ndim(steps) == 0
        numbers = np.atleast_1d(np.asarray(steps))
        expected = (len(self.layers),) if single else (len(self.layers), len(numbers))
        if values.shape != expected:
            raise ValueError(
                f"values has shape {values.shape}; for {len(self.layers)} layers and these steps give {expected}"
            )
        numbers = step_numbers(numbers, len(numbers))
        if len(numbers) and self._last_step is not None and numbers[0] <= self._last_step:
            raise ValueError(
                f"step {numbers[0]} is not beyond step {self._last_step}; after a rewind load an earlier state"
            )
        return numbers, values[:, None] if single else values

    def _measured(self, block: np.ndarray) -> np.ndarray:
        measured = ~np.isnan(block)
        if self._nan == "nonfinite" and not measured.all():
            measured |= self._seen[:, None]
            measured = np.maximum.accumulate(measured, axis=1)
        return measured

    def _refuse_negative(self, steps: np.ndarray, block: np.ndarray, measured: np.ndarray) -> None:
        negative = (block < 0) & measured & np.isfinite(block)
        if negative.any():
            layer, i = (int(places[0]) for places in np.nonzero(negative))
            raise ValueError(
                f"{self.layers[layer]} is {block[layer, i]:g} at step {steps[i]}; "
                "spikes are sought in series of values >= 0"
            )

    def _spikes(self, events: list[tuple[int, State]]) -> list[Spike]:
        spikes = [Spike(self.layers[i], **describe(event)) for i, event in events]
        return self._in_order([replace(spike, warmup=spike.onset < self.warmup_steps) for spike in spikes])

    def _in_order(self, spikes: list[Spike]) -> list[Spike]:
        place = {name: i for i, name in enumerate(self.layers)}
        return sorted(spikes, key=lambda spike: (spike.onset, place[spike.layer], spike.start))
