"""What `onset_order` found, in steps: onsets of each layer in each event, slope over depth, and the tests of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .records import html_table, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["OnsetOrder"]


@dataclass(frozen=True)
class OnsetOrder:
    """Onsets of L layers in E events.

    Attributes:
        testable: whether `p` is there.
        reason: why not; "" if testable.
        p: one-sided p of "earlier layers rise earlier", the paper's claim: the larger of `p_layers` and `p_events`.
            None if not testable.
        p_reverse: the same for "later layers rise earlier".
        p_layers: Page's L (1963) against data simulated with the run's own heights and noise in which all layers rise
            at once; the larger of two, all layers of one shape or each falling in its own way.
        p_events: the events' rank correlations, less those of the simulated data, against their signs flipped event by
            event: holds also where the noise at a spike is not like the noise before it.
        alpha: the level that `verdict` uses.
        layers: the layers that rose in some event, input first.
        onsets: [E][L], step at which the layer passed half of its own log peak; None where it did not rise.
        correlation: [E], Spearman's rank correlation of onset with depth in each event, ties as midranks: 1 if the
            layers rise in the order of the forward pass. None where all onsets are equal.
        slopes: [E], each event's least-squares slope of onset on depth, less `bias`, in steps a layer.
        steps_per_layer: median of `slopes`. Positive: the first layer is first.
        low: lower end of its 95 % bootstrap interval over events (percentiles; ±inf with one event).
        high: upper end.
        first_to_last: `steps_per_layer` times the number of layers less one.
        bias: mean slope of the simulated data: what heights and noise alone give, in steps a layer.
        page_l: Page's L, the sum over events and layers of depth rank times onset rank.
        ties: share of pairs of layers, in the same event, with the same onset.
        first: for each layer the share of events in which none is earlier; ties share the event among them.
        left_out: events with too few rows before them, or with fewer than 3 layers that rise.
        surrogates: N, of the simulation and of the flips.
        seed: of the random numbers.
    """

    testable: bool
    reason: str
    p: float | None
    p_reverse: float | None
    p_layers: float | None
    p_events: float | None
    alpha: float
    layers: tuple[str, ...]
    onsets: tuple[tuple[int | None, ...], ...]
    correlation: tuple[float | None, ...]
    slopes: tuple[float, ...]
    steps_per_layer: float
    low: float
    high: float
    first_to_last: float
    bias: float
    page_l: float
    ties: float
    first: dict[str, float]
    left_out: int
    surrogates: int
    seed: int

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if not self.onsets:
            return f"not testable: {self.reason}"
        if self.p is None or self.p_reverse is None:
            return f"not testable: {self.reason}; seen: {self._seen()}"
        if self.p <= self.alpha:
            return f"earlier layers rise first: {self._seen()} (p = {self.p:.2g})"
        if self.p_reverse <= self.alpha:
            return f"later layers rise first: {self._seen()} (p = {self.p_reverse:.2g})"
        return f"no evidence of an order: {self._seen()} (p = {self.p:.2g})"

    @property
    def leaders(self) -> tuple[tuple[str, ...], ...]:
        """Which layer was first in each event; several where they tie."""
        earliest = [min(at for at in row if at is not None) for row in self.onsets]
        return tuple(
            tuple(layer for layer, at in zip(self.layers, row, strict=True) if at == first)
            for row, first in zip(self.onsets, earliest, strict=True)
        )

    def table(self) -> list[dict[str, Any]]:
        """One flat dict an event and layer: event, layer, depth, onset, and whether none was earlier."""
        return [
            {"event": e, "layer": layer, "depth": depth, "onset": onset, "first": layer in leaders}
            for e, (row, leaders) in enumerate(zip(self.onsets, self.leaders, strict=True))
            for depth, (layer, onset) in enumerate(zip(self.layers, row, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values, `verdict` too; NaN and infinity become None."""
        return plain({"verdict": self.verdict, **asdict(self)})

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text that any parser accepts."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def figure(self) -> Figure:
        """Onsets over depth event by event, and how often each layer is first, as a plotly figure."""
        from .onset_figure import figure

        return figure(self)

    def facts(self) -> list[str]:
        """What a reader should know beside the verdict, a line each."""
        if not self.onsets:
            return []
        tests = f"p = {self.p_layers:.2g} against all at once, {self.p_events:.2g} over events" if self.testable else ""
        return [
            f"{len(self.onsets)} events of {len(self.layers)} layers, {self.left_out} left out",
            f"from the first layer to the last {self.first_to_last:+.1f} steps, of which heights and noise would give "
            f"{self.bias * (len(self.layers) - 1):+.1f} (subtracted)",
            f"{self.ties:.0%} of the pairs of layers rise at the same step",
            *([tests] if tests else []),
        ]

    def __str__(self) -> str:
        return "\n".join([self.verdict, *self.facts()])

    def _repr_html_(self) -> str:
        rows = [(e, *("–" if at is None else at for at in row)) for e, row in enumerate(self.onsets)]
        return html_table(self.verdict, self.facts(), ("event", *self.layers), rows)

    def _seen(self) -> str:
        leader = max(self.first, key=lambda name: self.first[name])
        return (
            f"{self.steps_per_layer:+.2f} steps a layer [{self.low:+.2f}, {self.high:+.2f}], "
            f"{leader} first in {self.first[leader]:.0%} of {len(self.onsets)} events"
        )
