"""What `precursors` found: every number with its formula and source; shares are 0 to 1, times are in steps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .coincidence import Rate
from .lead_time import LeadTime, in_words
from .molchan import Molchan
from .precursor_controls import Controls
from .records import html_table, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Coincidence", "PrecursorReport"]


@dataclass(frozen=True)
class Coincidence:
    """One layer at one lag L.

    Attributes:
        layer: the layer's name.
        lag: L, the window in steps.
        precursor: precursor coincidence rate: share of dips with at least one spike in the L steps before the onset
            interval (recall; Donges et al. 2016, arXiv 1508.03534), with its Wilson interval.
        trigger: trigger coincidence rate: share of spikes with a dip in the L steps after (precision; ibid.).
        expected: mean precursor rate of the block-shift surrogates: what chance gives, busy periods included.
        lift: precursor rate over `expected`; NaN if that is 0.
        trigger_lift: trigger rate over the surrogates' mean trigger rate; NaN if that is 0.
        false_alarms: spikes without a dip in the L steps after, per 10,000 steps.
        z: (hits - mean) / max(sd, 1 dip) over the surrogates.
        p: the larger of `p_block` and `p_session`: corrected for all layers and lags. None where not testable.
        p_block: (1 + #{max T* >= T}) / (N + 1), T = z, N block circular shifts, max over layers and lags (for the
            primary layer the smaller of twice this and the same over its own lags, with min-P over both questions).
            None where the run is shorter than two blocks of 10 L.
        p_session: the same with dips of other seeds in place of shifted ones. None below 5 runs.
        p_single: `p_block` without the correction, for the reader who asked about this layer and lag only.
        reverse: share of dips with a spike in the L steps *after* the onset interval: a control.
        reverse_p: its p-value, block shifts, corrected; None where not testable.
    """

    layer: str
    lag: int
    precursor: Rate
    trigger: Rate
    expected: float
    lift: float
    trigger_lift: float
    false_alarms: float
    z: float
    p: float | None
    p_block: float | None
    p_session: float | None
    p_single: float | None
    reverse: Rate
    reverse_p: float | None


@dataclass(frozen=True)
class PrecursorReport:
    """Whether spikes precede dips more than chance. Precedence is not cause: that takes `compare`.

    Attributes:
        testable: whether there is a p-value at all.
        reason: why not; "" if testable.
        p: the smallest corrected p of `rows`: the chance that some layer at some lag shows as much if spikes and dips
            are independent given their slowly changing rates. None if not testable.
        alpha: the level that `verdict` uses.
        best: the row with the smallest p, among equals with the largest z. None if not testable.
        primary: the layer that was asked about first; it doesn't pay for the number of the others. None without any.
        rows: every layer at every lag, layers in order.
        lead: lead time at the best row, from the nearest spike.
        molchan: Molchan curve of each layer that has spikes.
        controls: reverse direction, middle layer, shuffled labels, at the best row.
        runs: number of runs (seeds) that went in.
        steps: steps that count, summed over runs.
        dips: dips that count.
        spikes: spikes that count, by layer.
        left_out: events in the warm-up or beyond the run.
        surrogates: N.
        seed: of the random numbers: the same input and seed give the same report.
        notes: what a reader should know: lags that were too long, a run too short, few seeds.
    """

    testable: bool
    reason: str
    p: float | None
    alpha: float
    best: Coincidence | None
    primary: str | None
    rows: tuple[Coincidence, ...]
    lead: LeadTime | None
    molchan: dict[str, Molchan]
    controls: Controls | None
    runs: int
    steps: int
    dips: int
    spikes: dict[str, int]
    left_out: int
    surrogates: int
    seed: int
    notes: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if self.best is None or self.p is None:
            return f"not testable: {self.reason}"
        best = self.best
        seen = f"{best.precursor.hits} of {self.dips} dips within {best.lag} steps after a spike of {best.layer}"
        if self.p <= self.alpha:
            return f"spikes precede dips: {seen}, {best.expected * self.dips:.1f} by chance (p = {self.p:.2g})"
        return f"no evidence that spikes precede dips: {seen} at best, p = {self.p:.2g}"

    def table(self) -> list[dict[str, Any]]:
        """The rows as flat dicts of numbers, for `pandas.DataFrame(report.table())` or a CSV file."""
        return [_flat(row) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, `verdict` too; NaN and infinity become None."""
        return plain({"verdict": self.verdict, **asdict(self)})

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text that any parser accepts."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def figure(self) -> Figure:
        """Precursor rates over lag against chance, the Molchan curves and the p-values, as a plotly figure."""
        from .precursor_figure import figure

        return figure(self)

    def __str__(self) -> str:
        lines = [self.verdict, *self._facts(), *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = ("layer", "lag", "precursor", "95 %", "chance", "lift", "trigger", "false / 10,000", "p", "reverse p")
        return html_table(self.verdict, [*self._facts(), *self.notes], head, map(_cells, self.rows))

    def _facts(self) -> list[str]:
        runs = f"{self.runs} runs, " if self.runs > 1 else ""
        facts = [f"{runs}{self.steps:,} steps, {sum(self.spikes.values())} spikes, {self.dips} dips"]
        if self.best is None or self.lead is None or self.controls is None:
            return facts
        lead, best, controls = self.lead, self.best, self.controls
        facts.append(
            f"precursor rate {_share(best.precursor)}, chance {best.expected:.2f}; "
            f"trigger rate {_share(best.trigger)}, {best.false_alarms:.1f} false alarms per 10,000 steps"
        )
        if lead.events:
            facts.append(f"lead time {in_words(lead)} steps, by chance {lead.chance:g}")
        curve = self.molchan[best.layer]
        facts.append(f"Molchan area skill {curve.skill:.2f}, by chance {curve.chance:.2f}")
        p = "not testable" if controls.reverse_p is None else f"p = {controls.reverse_p:.2g}"
        facts.append(f"reverse direction: rate {_share(controls.reverse_rate)}, {p}")
        if controls.layers is not None:
            pair = controls.layers
            facts.append(
                f"{pair.layer} {pair.rate.hits}, middle layer {pair.control} {pair.control_rate.hits} of {self.dips} "
                f"dips (sign test p = {pair.p:.2g})"
            )
        facts.append(f"shuffled labels: rate {controls.shuffled.rate:.2f}, p = {controls.shuffled.p:.2g}")
        return facts


def _share(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def _cells(row: Coincidence) -> list[str]:
    return [
        row.layer,
        str(row.lag),
        f"{row.precursor.hits}/{row.precursor.trials}",
        f"{row.precursor.low:.2f}–{row.precursor.high:.2f}",
        f"{row.expected:.2f}",
        f"{row.lift:.1f}" if math.isfinite(row.lift) else "–",
        f"{row.trigger.hits}/{row.trigger.trials}",
        f"{row.false_alarms:.1f}",
        "–" if row.p is None else f"{row.p:.3f}",
        "–" if row.reverse_p is None else f"{row.reverse_p:.3f}",
    ]


def _flat(row: Coincidence) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, dict):
            flat |= {name if key == "value" else f"{name}_{key}": part for key, part in value.items()}
        else:
            flat[name] = value
    return flat
