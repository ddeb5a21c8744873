"""A run's spikes and dips as tables in the terminal."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ._sources import has_curve

if TYPE_CHECKING:
    from ..probes import Dip, Finding, Precedence, RunScores, Spike
    from ..traces import Trace
    from ._sources import Table as FileTable

__all__ = ["count", "dip_table", "print_findings", "staleness_controls"]

MOST_ROWS = 20


def print_findings(
    trace: "Trace | FileTable",
    spikes: Sequence["Spike"],
    dips: Sequence["Dip"],
    pairs: Sequence["Precedence"],
    *,
    within: int,
    scores: "RunScores | None" = None,
    findings: Sequence["Finding"] = (),
    console: Console | None = None,
) -> None:
    """Print what the run shows: sentences, a table of spikes, a table of dips with what preceded each."""
    console = console or Console()
    after_warmup = [spike for spike in spikes if not spike.warmup]
    console.print(
        f"[bold]{escape(trace.name)}[/] ({trace.state}): {len(trace):,} steps, {len(trace.layers)} layers, "
        f"{count(len(after_warmup), 'spike')}"
        + (f" and {len(spikes) - len(after_warmup)} during warm-up" if len(after_warmup) < len(spikes) else "")
        + f", {count(len(dips), 'dip')}",
        highlight=False,
    )
    if scores is not None and scores.worst_layer is not None:
        console.print(f"[dim]{escape(scores_line(scores))}[/]", highlight=False)
    for finding in findings:
        console.print(f"[bold]{finding.kind}[/]: {escape(finding.text)}", highlight=False)
    if spikes:
        console.print(spike_table(spikes, pairs))
    if len(spikes) > MOST_ROWS:
        by_layer = Counter(spike.layer for spike in spikes)
        rest = ", ".join(f"{layer} {n}" for layer, n in by_layer.most_common())
        console.print(f"[dim]the {MOST_ROWS} strongest of {len(spikes)}; by layer: {rest}; all with --json[/]")
    if dips:
        console.print(dip_table(dips, pairs, within))
        for control in staleness_controls(trace, dips):
            console.print(f"Step {control['step']}: {control['text']}.", markup=False, highlight=False)
    if not has_curve(trace):
        console.print("[dim]no kNN curve in this run, so no dips to look for[/]")


def staleness_controls(trace: "Trace | FileTable", dips: Sequence["Dip"]) -> list[dict[str, Any]]:
    """What the run's staleness control said of each dip where it was deepest.

    The number of the dip, the step, the sentence, and two kNN accuracies (0 to 1) with keys encoded anew: `fresh`, and
    `before`, that of the weights from before the dip; None where a run lacks it.
    """
    said = [event for event in getattr(trace, "events", ()) if event["kind"] == "staleness"]
    controls = []
    for number, dip in enumerate(dips):
        inside = [e for e in said if dip.onset_by <= e["step"] and (dip.end is None or e["step"] <= dip.end)]
        if inside:
            step, text = inside[-1]["step"], inside[-1]["text"]
            values = {name: _at(trace, f"knn_accuracy_{name}", step) for name in ("fresh", "before")}
            controls.append({"dip": number, "step": step, "text": text} | values)
    return controls


def _at(trace: Any, scalar: str, step: int) -> float | None:
    return float(trace[scalar][trace.steps == step][0]) if scalar in trace.scalars else None


def scores_line(scores: "RunScores") -> str:
    """The scores of a run in one line.

    >>> from foreshock.probes import RunScores
    >>> scores_line(RunScores(5000, 2, 3.0, 0.01, "patch_embed", 4.0, 1, 1.25, None, None))
    '3.0 spikes per 10,000 steps and layer, 1.0 % of the run in one, most in patch_embed (4.0); dip mass 1.25'
    """
    line = (
        f"{scores.spikes_per_10k:.1f} spikes per 10,000 steps and layer, {scores.share_in_spike:.1%} of the run in one"
    )
    line = line.replace("%", " %") + f", most in {scores.worst_layer} ({scores.worst_per_10k:.1f})"
    return line + ("" if scores.dip_mass is None else f"; dip mass {scores.dip_mass:.2f}")


def spike_table(spikes: Sequence["Spike"], pairs: Sequence["Precedence"]) -> Table:
    """The strongest spikes in the order of their onsets, with the dip that each preceded."""
    table = Table(title="Gradient spikes", title_justify="left", header_style="bold")
    for heading in ("layer", "kind"):
        table.add_column(heading)
    for heading in ("onset", "peak", "end", "ratio", "z", "then a dip"):
        table.add_column(heading, justify="right")
    shown = sorted(sorted(spikes, key=strength, reverse=True)[:MOST_ROWS], key=lambda spike: spike.onset)
    for spike in shown:
        dips_after = [f"{pair.lag} steps later" for pair in pairs if pair.spike == spike]
        table.add_row(
            escape(spike.layer),
            spike.kind.replace("_", " ") + (" (warm-up)" if spike.warmup else ""),
            str(spike.onset),
            str(spike.peak),
            str(spike.end),
            f"{spike.ratio:.1f}×",
            f"{spike.z:.1f}",
            dips_after[0] if dips_after else "–",
            style="dim" if spike.warmup else None,
        )
    return table


def dip_table(dips: Sequence["Dip"], pairs: Sequence["Precedence"] = (), within: int | None = None) -> Table:
    """The dips, with `within` each with the spikes whose onset lies in so many steps before it."""
    table = Table(title="Accuracy dips (kNN)", title_justify="left", header_style="bold")
    for heading in ("onset", "depth", "lowest at", "recovered by"):
        table.add_column(heading, justify="right")
    table.add_column("kind")
    if within is not None:
        table.add_column(f"spikes in the {within} steps before")
    for dip in dips:
        table.add_row(
            f"{dip.onset_after}–{dip.onset_by}",
            f"{100 * dip.depth:.1f} points",
            str(dip.nadir),
            str(dip.end) if dip.end is not None and dip.kind != "unrecovered" else "–",
            dip.kind.replace("_", " "),
            *([] if within is None else [_before(dip, pairs)]),
        )
    return table


def _before(dip: "Dip", pairs: Sequence["Precedence"]) -> str:
    before = sorted((pair for pair in pairs if pair.dip == dip), key=lambda pair: -pair.lag)
    rest = f" and {len(before) - 4} more" if len(before) > 4 else ""
    told = ", ".join(f"{escape(p.spike.layer)} ({p.spike.ratio:.1f}×, {p.lag} before)" for p in before[:4])
    return told + rest or "none"


def strength(spike: "Spike") -> float:
    """A key that ranks spikes; a non-finite gradient outranks every finite one."""
    return float("inf") if spike.kind == "nonfinite" else spike.ratio


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "spike"), count(2, "dip")
    ('1 spike', '2 dips')
    """
    return f"{n} {noun}{'' if n == 1 else 's'}"
