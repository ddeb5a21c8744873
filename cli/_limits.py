"""The limits of `foreshock check`: what a run shows, what is allowed, and where the first offence is, in steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..probes.compare import final_accuracy
from ._sources import Table, curve_of, dips_of, open_source, spikes_of

if TYPE_CHECKING:
    from ..probes import Dip, Spike
    from ..traces import Trace
    from .check import CheckCommand

__all__ = ["Check", "check", "print_checks"]


@dataclass(frozen=True)
class Check:
    """One limit on one run.

    Attributes:
        run: the folder or file.
        limit: the option's name.
        allowed: the most, or for `min_…` the least; None for `finished`.
        found: what the run shows; None for `finished`.
        ok: whether it is within the limit.
        where: what offends, or what state the run is in; "" if nothing offends.
        step: where it does, if it has a place.
    """

    run: str
    limit: str
    allowed: float | None
    found: float | None
    ok: bool
    where: str = ""
    step: int | None = None


def check(run: Path, command: CheckCommand) -> list[Check]:
    """Hold one run against the limits that were given.

    Raises:
        ValueError: no limits, one out of range, or one on something that the run did not measure.
    """
    _check_limits(command)
    options = {"columns": command.column, "step_column": command.step_column, "curve": command.accuracy_column}
    look = _Look(open_source(run, **options), command)
    return [*_spike_checks(str(run), look, command), *_dip_checks(str(run), look, command)]


class _Look:
    """Spikes and dips of a run, looked for only where a limit asks."""

    def __init__(self, source: Trace | Table, command: CheckCommand) -> None:
        self.source, self._command = source, command

    @cached_property
    def spikes(self) -> list[Spike]:
        command = self._command
        layer = command.layer or None
        found = spikes_of(self.source, command.column, layer=layer, detector=command.detector)
        return [spike for spike in found if not spike.warmup]

    @cached_property
    def dips(self) -> list[Dip]:
        return dips_of(self.source, self._command.accuracy_column)

    @cached_property
    def spike_score(self) -> float:
        steps = self.source.steps
        flagged = np.zeros(len(steps), bool)
        for spike in self.spikes:
            flagged[np.searchsorted(steps, spike.start) : np.searchsorted(steps, spike.end, side="right")] = True
        return float(flagged.mean()) if len(flagged) else 0.0

    @cached_property
    def accuracy(self) -> float:
        name = curve_of(self.source, self._command.accuracy_column)
        if not name:
            raise ValueError(f"{self.source.path} has no accuracy curve to hold to a limit; name its --accuracy-column")
        return final_accuracy(self.source[name])


def _check_limits(command: CheckCommand) -> None:
    names = [name for name in vars(command) if name.startswith(("max_", "min_"))]
    given = {name: value for name in names if (value := getattr(command, name)) is not None}
    if not given and not command.finished:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        raise ValueError(f"no limit is given; give at least one of {options}, --finished")
    for name, value in given.items():
        share = name in ("max_spike_score", "max_dip", "min_accuracy")
        if not (0 <= value <= 1 if share else value >= 0):
            allowed = "a share from 0 to 1" if share else "0 or more"
            raise ValueError(f"--{name.replace('_', '-')} {value:g} is not possible; give {allowed}")


def _spike_checks(run: str, look: _Look, limits: CheckCommand) -> Iterator[Check]:
    if limits.finished:
        state = look.source.state
        yield Check(run, "finished", None, None, state in ("finished", "file"), f"the run is {state}")
    if limits.max_spikes is not None:
        found = look.spikes
        yield _most(run, "max_spikes", limits.max_spikes, len(found), found[limits.max_spikes :])
    if limits.max_ratio is not None:
        over = [spike for spike in look.spikes if spike.ratio > limits.max_ratio]
        largest = max((spike.ratio for spike in look.spikes), default=1.0)
        yield _most(run, "max_ratio", limits.max_ratio, largest, over)
    if limits.max_nonfinite is not None:
        broken = [spike for spike in look.spikes if spike.kind == "nonfinite"]
        yield _most(run, "max_nonfinite", limits.max_nonfinite, len(broken), broken[limits.max_nonfinite :])
    if limits.max_spike_score is not None:
        score = look.spike_score
        yield Check(run, "max_spike_score", limits.max_spike_score, score, score <= limits.max_spike_score)


def _dip_checks(run: str, look: _Look, limits: CheckCommand) -> Iterator[Check]:
    if limits.max_dips is not None:
        yield _most_dips(run, "max_dips", limits.max_dips, len(look.dips), look.dips[limits.max_dips :])
    if limits.max_dip is not None:
        over = [dip for dip in look.dips if dip.depth > limits.max_dip]
        deepest = max((dip.depth for dip in look.dips), default=0.0)
        yield _most_dips(run, "max_dip", limits.max_dip, deepest, over)
    if limits.min_accuracy is not None:
        found = look.accuracy
        yield Check(run, "min_accuracy", limits.min_accuracy, found, found >= limits.min_accuracy)


def _most(run: str, limit: str, allowed: float, found: float, over: Sequence[Spike]) -> Check:
    """A limit that the spikes in `over`, if any, exceed; the first of them is told."""
    told = f"{over[0].layer} rose {over[0].ratio:.1f}-fold" if over else ""
    return Check(run, limit, allowed, found, not over, told, over[0].onset if over else None)


def _most_dips(run: str, limit: str, allowed: float, found: float, over: Sequence[Dip]) -> Check:
    told = f"fell by {100 * over[0].depth:.1f} points" if over else ""
    return Check(run, limit, allowed, found, not over, told, over[0].onset_by if over else None)


def print_checks(checks: Sequence[Check]) -> None:
    """Print one row a limit and run, and a sentence."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("limit", no_wrap=True)
    for heading in ("allowed", "found"):
        table.add_column(heading, justify="right")
    for heading in ("", "first offence"):
        table.add_column(heading)
    for one in checks:
        place = "" if one.step is None else f" at step {one.step}"
        table.add_row(
            escape(one.run),
            one.limit.replace("_", "-"),
            *("–" if value is None else f"{value:.4g}" for value in (one.allowed, one.found)),
            "[green]ok[/]" if one.ok else "[bold red]exceeded[/]",
            escape(one.where + place) if not one.ok else "",
        )
    console = Console()
    console.print(table)
    failed = sum(not one.ok for one in checks)
    console.print(f"{failed} of {len(checks)} limits exceeded" if failed else f"all {len(checks)} limits hold")
