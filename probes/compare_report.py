"""What `compare` found: rates of spike events and dips of two sides, and their final accuracies (fractions)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .mean_difference import MeanDifference
from .rate_ratio import RateRatio
from .records import html_table, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Comparison"]

_PER_STEPS = 10_000


@dataclass(frozen=True)
class Comparison:
    """Side a, with the intervention, against side b, without it. Seeds are the unit.

    Attributes:
        spikes: spike events: spikes of any layers within `within` steps of each other count once.
        dips: dips of the accuracy; None if some run has no accuracy curve.
        accuracy: final accuracy, the median of the last five evaluations of each seed; None likewise.
        seeds: runs of a and of b.
        layers: the layers in which spikes were counted: those that every run measured.
        within: steps that joined spikes to events.
        alpha: the level of the verdict.
        confidence: of the intervals.
        seed: of the random numbers.
        notes: what a reader should know: few seeds, layers left out, runs that are not finished.
    """

    spikes: RateRatio
    dips: RateRatio | None
    accuracy: MeanDifference | None
    seeds: tuple[int, int]
    layers: tuple[str, ...]
    within: int
    alpha: float
    confidence: float
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        told = [_rates("spike events", self.spikes, self.alpha)]
        if self.dips is not None:
            told.append(_rates("dips", self.dips, self.alpha))
        if self.accuracy is not None:
            found = self.accuracy
            p = "" if found.p is None else f", p = {found.p:.2g}"
            interval = f"{100 * found.low:+.2f}, {100 * found.high:+.2f}"
            told.append(f"final accuracy {100 * found.difference:+.2f} points [{interval}]{p}")
        return "; ".join(told)

    def table(self) -> list[dict[str, Any]]:
        """One flat dict for spike events, dips and accuracy: quantity, a, b, effect, low, high, p, seeds_p.

        `a` and `b` are rates per 10,000 steps or mean accuracies, `effect` their ratio or difference.
        """
        rows = []
        for name, found in (("spike events", self.spikes), ("dips", self.dips)):
            if found is not None:
                a, b = (_PER_STEPS * n / steps for n, steps in zip(found.events, found.steps, strict=True))
                rows.append(_row(name, a, b, found.ratio, found))
        if self.accuracy is not None:
            a, b = (sum(side) / len(side) for side in self.accuracy.by_seed)
            rows.append(_row("final accuracy", a, b, self.accuracy.difference, self.accuracy))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, `verdict` too; NaN and infinity become None."""
        return plain({"verdict": self.verdict, **asdict(self)})

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text that any parser accepts."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def figure(self) -> Figure:
        """The ratios of rates with their intervals, and every seed's final accuracy, as a plotly figure."""
        from .compare_figure import figure

        return figure(self)

    def facts(self) -> list[str]:
        """What a reader should know beside the verdict, a line each."""
        facts = [f"{self.seeds[0]} against {self.seeds[1]} seeds, spikes of {len(self.layers)} layers"]
        for name, found in (("spike events", self.spikes), ("dips", self.dips)):
            if found is None:
                continue
            scatter = "" if math.isnan(found.dispersion) else f", dispersion over seeds {found.dispersion:.1f}"
            facts.append(
                f"{name} by seed {list(found.by_seed[0])} against {list(found.by_seed[1])}{scatter}; taken for "
                f"independent [{found.exact_low:.2f}, {found.exact_high:.2f}], p = {found.exact_p:.2g}"
            )
            if found.seeds_p is not None:
                facts.append(f"{name}, seeds permuted: p = {found.seeds_p:.2g} (at least {found.seeds_least:.2g})")
        return [*facts, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        return "\n".join([self.verdict, *self.facts()])

    def _repr_html_(self) -> str:
        head = ("", "a", "b", "effect", "low", "high", "p", "p, seeds permuted")
        rows = [
            ["–" if cell is None else cell if isinstance(cell, str) else f"{cell:.3g}" for cell in row.values()]
            for row in self.table()
        ]
        return html_table(self.verdict, self.facts(), head, rows)


def _rates(name: str, found: RateRatio, alpha: float) -> str:
    if not sum(found.events):
        return f"no {name} on either side"
    interval = f"[{found.low:.2f}, {found.high:.2f}], p = {found.p:.2g}"
    if found.p <= alpha:
        return f"{name} {'rarer' if found.ratio < 1 else 'more frequent'}: {found.ratio:.2f} times as many {interval}"
    return f"no evidence that {name} differ: {found.ratio:.2f} times as many {interval}"


def _row(name: str, a: float, b: float, effect: float, found: RateRatio | MeanDifference) -> dict[str, Any]:
    ends = {"low": found.low, "high": found.high, "p": found.p, "seeds_p": found.seeds_p}
    return {"quantity": name, "a": a, "b": b, "effect": effect, **ends}
