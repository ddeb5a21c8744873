"""One run's events as sorted arrays over its range of steps, with the warm-up and other runs' events left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .dips import Dip
from .layers import first_layer
from .series import is_trace
from .spikes import Spike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..traces.reader import Trace

__all__ = ["Session", "Source", "common_range", "session", "sessions"]

Source: TypeAlias = "Trace | ArrayLike"
"""Where a run's range of steps comes from: its trace, its step numbers i64[T], or the number of steps T."""


@dataclass(frozen=True)
class Session:
    """The events of one run that count.

    Attributes:
        first: first step that counts, beyond the warm-up.
        last: last step, included.
        onsets: i64[S] for each layer, sorted spike onsets in first to last.
        after: i64[D], last good evaluation of each dip.
        by: i64[D], first bad evaluation of each dip, sorted, in first to last.
        left_out: events outside first to last.
    """

    first: int
    last: int
    onsets: dict[str, np.ndarray]
    after: np.ndarray
    by: np.ndarray
    left_out: int = 0

    @property
    def steps(self) -> int:
        """Number of steps that count."""
        return self.last - self.first + 1

    def between(self, first: int, last: int) -> Session:
        """The same run cut to the steps first to last."""
        inside = (self.by >= first) & (self.by <= last)
        onsets = {name: at[(at >= first) & (at <= last)] for name, at in self.onsets.items()}
        return replace(self, first=first, last=last, onsets=onsets, after=self.after[inside], by=self.by[inside])


def sessions(
    spikes: Any, dips: Any, source: Any, layers: Sequence[str] | None, warmup_steps: int | None
) -> list[Session]:
    """One session for one run, or several for lists of runs; ValueError if the lists differ in length.

    >>> len(sessions([], [], 100, None, None)), len(sessions([[], []], [[], []], [100, 100], None, None))
    (1, 2)
    """
    spikes, dips = list(spikes), list(dips)
    lists = any(isinstance(one, (list, tuple)) for one in (*spikes, *dips))
    if not lists and not (isinstance(source, (list, tuple)) and any(is_trace(one) or np.ndim(one) for one in source)):
        spikes, dips, source = [spikes], [dips], [source]
    source = list(source) if isinstance(source, (list, tuple)) else [source]
    if not len(spikes) == len(dips) == len(source):
        raise ValueError(
            f"{len(spikes)} lists of spikes and {len(dips)} of dips came with {len(source)} runs; give one of each"
        )
    names = tuple(layers) if layers is not None else _names(spikes, source)
    return [
        session(fewer, falls, one, names, warmup_steps) for fewer, falls, one in zip(spikes, dips, source, strict=True)
    ]


def session(
    spikes: Iterable[Spike], dips: Iterable[Dip], source: Source, layers: Sequence[str], warmup_steps: int | None
) -> Session:
    """Sort one run's events into arrays.

    Args:
        spikes: of any layers; those of other layers than `layers` are ignored.
        dips: of the same run, in the same step numbers.
        source: where the range of steps comes from.
        layers: the layers to look at.
        warmup_steps: steps below this don't count (default: the trace's own; else all spikes marked `warmup` lie
            below it).

    Raises:
        ValueError: no steps are left.

    >>> session([], [], range(10, 200), ["patch_embed"], 50).steps
    150
    """
    spikes, dips = [spike for spike in spikes if spike.layer in set(layers)], list(dips)
    first, last = _range(source)
    if warmup_steps is None and is_trace(source):
        warmup_steps = int(source.meta.get("warmup_steps") or 0)
    if warmup_steps is None:
        warmup_steps = max((spike.onset + 1 for spike in spikes if spike.warmup), default=first)
    first = max(first, warmup_steps)
    if last < first:
        raise ValueError(f"the last step is {last} and the first beyond the warm-up {first}; give a run that goes on")
    dips.sort(key=lambda dip: dip.onset_by)
    after, by = (np.array([getattr(dip, end) for dip in dips], np.int64) for end in ("onset_after", "onset_by"))
    onsets = {name: np.array(sorted(s.onset for s in spikes if s.layer == name), np.int64) for name in layers}
    whole = Session(first, last, onsets, after, by)
    kept = whole.between(first, last)
    return replace(kept, left_out=_events(whole) - _events(kept))


def common_range(runs: Sequence[Session]) -> list[Session]:
    """Cut runs to the steps that all of them have; empty if there are none.

    >>> [run.steps for run in common_range(sessions([[], []], [[], []], [100, 80], ["norm"], 0))]
    [80, 80]
    """
    first, last = max(run.first for run in runs), min(run.last for run in runs)
    return [run.between(first, last) for run in runs] if first <= last else []


def _events(run: Session) -> int:
    return len(run.by) + sum(map(len, run.onsets.values()))


def _range(source: Any) -> tuple[int, int]:
    steps = np.asarray(source.steps if is_trace(source) else source)
    if steps.ndim == 0:
        steps = np.array([0, int(steps) - 1])
    if steps.ndim != 1 or not len(steps) or steps[-1] < steps[0]:
        raise ValueError(
            f"the steps have shape {steps.shape} and no range; give a trace, its step numbers in order, or their count"
        )
    return int(steps[0]), int(steps[-1])


def _names(spikes: Sequence[Sequence[Spike]], source: Sequence[Any]) -> tuple[str, ...]:
    """The layers that all runs may have, input first: a trace's own order, else by name with the entrance first."""
    known = list(dict.fromkeys(name for one in source if is_trace(one) for name in one.layers))
    rest = sorted({spike.layer for run in spikes for spike in run} - set(known))
    if known or not rest:
        return (*known, *rest)
    entrance = first_layer(rest)
    return (entrance, *(name for name in rest if name != entrance))
