"""What `leaderboard` found: every signal at the same number of false alarms; shares are 0 to 1, times are in steps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .coincidence import Rate
from .lead_time import LeadTime, in_words
from .records import html_table, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Leaderboard", "Signal"]


@dataclass(frozen=True)
class Signal:
    """One signal, a layer's series or a scalar, with its own threshold.

    Attributes:
        name: `series/layer`, or the scalar's name.
        series: the series.
        layer: the layer; None for a scalar.
        threshold: robust standard deviations from its recent median beyond which it gives an alarm; it allows the same
            number of false alarms as the other signals'.
        alarms: alarms given.
        false_alarms: those outside dips and outside the steps before one, per 10,000 steps of that time.
        warned: share of dips with an alarm in the lag before the onset interval, with its Wilson interval.
        expected: mean share over surrogates with shifted dips, each with a threshold of its own: what chance gives.
            NaN where not testable.
        lead: from the beginning of the last alarm to the dip.
        skill: Molchan area skill of the alarms: 0.5 is a guess, 1 an alarm just before every dip. NaN without alarms.
        p: (1 + #{max over signals z* >= z}) / (N + 1): corrected for all signals looked at. None where not testable.
        p_single: the same without the correction, for the reader who asked about this signal only.
    """

    name: str
    series: str
    layer: str | None
    threshold: float
    alarms: int
    false_alarms: float
    warned: Rate
    expected: float
    lead: LeadTime
    skill: float
    p: float | None
    p_single: float | None


@dataclass(frozen=True)
class Leaderboard:
    """Signals, the one that warns of most dips first; of equals the one that warns earliest.

    Attributes:
        testable: whether there are p-values: at least 5 dips, and a run of two blocks of ten lags.
        reason: why not; "" if testable.
        signals: the signals in order.
        lag: L, steps before a dip in which an alarm is a warning.
        false_alarms: how many were allowed, per 10,000 steps.
        allowed: how many these are in this run.
        dips: dips that count.
        runs: runs that went in.
        steps: steps that count.
        alpha: the level of the verdict.
        surrogates: N.
        seed: of the random numbers.
        notes: what a reader should know.
    """

    testable: bool
    reason: str
    signals: tuple[Signal, ...]
    lag: int
    false_alarms: float
    allowed: int
    dips: int
    runs: int
    steps: int
    alpha: float
    surrogates: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if not self.signals:
            return f"not testable: {self.reason}"
        best = self.signals[0]
        seen = f"{best.name} warns of {best.warned.hits} of {self.dips} dips"
        if best.lead.events:
            seen += f", {in_words(best.lead)} steps ahead"
        seen += f", at {self.false_alarms:g} false alarms per 10,000 steps"
        if best.p is None:
            return f"not testable: {self.reason}; seen: {seen}"
        count = f"p = {best.p:.2g}, corrected for {len(self.signals)} signals"
        if best.p <= self.alpha:
            return f"{seen} ({count})"
        return f"no signal warns of more dips than chance: {seen} at best ({count})"

    def table(self) -> list[dict[str, Any]]:
        """One flat dict a signal."""
        return [_flat(signal) for signal in self.signals]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, `verdict` too; NaN and infinity become None."""
        return plain({"verdict": self.verdict, **asdict(self)})

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text that any parser accepts."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def figure(self) -> Figure:
        """Share of dips warned and lead time of the first 20 signals, as a plotly figure."""
        from .leaderboard_figure import figure

        return figure(self)

    def facts(self) -> list[str]:
        """What a reader should know beside the verdict, a line each."""
        runs = f"{self.runs} runs, " if self.runs > 1 else ""
        return [
            f"{runs}{self.steps:,} steps, {self.dips} dips, {len(self.signals)} signals, each allowed {self.allowed} "
            f"false alarms; a warning comes at most {self.lag} steps before a dip",
            *(f"note: {note}" for note in self.notes),
        ]

    def __str__(self) -> str:
        return "\n".join([self.verdict, *self.facts()])

    def _repr_html_(self) -> str:
        head = ("signal", "threshold", "warned", "95 %", "chance", "lead", "skill", "false / 10,000", "p")
        return html_table(self.verdict, self.facts(), head, map(cells, self.signals))


def cells(signal: Signal) -> list[str]:
    """The signal as a row of text."""
    return [
        signal.name,
        f"{signal.threshold:.1f}",
        f"{signal.warned.hits}/{signal.warned.trials}",
        f"{signal.warned.low:.2f}–{signal.warned.high:.2f}",
        "–" if math.isnan(signal.expected) else f"{signal.expected:.2f}",
        in_words(signal.lead),
        "–" if math.isnan(signal.skill) else f"{signal.skill:.2f}",
        f"{signal.false_alarms:.1f}",
        "–" if signal.p is None else f"{signal.p:.3f}",
    ]


def _flat(signal: Signal) -> dict[str, Any]:
    told = asdict(signal)
    warned, lead = told.pop("warned"), told.pop("lead")
    rate = {f"warned_{key}": value for key, value in warned.items()}
    return told | rate | {f"lead_{key}": value for key, value in lead.items()}
