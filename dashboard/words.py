"""Sentences about a run, for the header and for those who cannot see a chart."""

from __future__ import annotations

__all__ = [
    "NEEDED",
    "about_dip",
    "about_event",
    "about_focus",
    "about_slope",
    "about_spike",
    "counts",
    "headline",
    "interventions",
    "no_event",
    "times",
    "unclear_spikes",
    "unmeasured",
]

import math
from collections.abc import Sequence

import numpy as np

from ..probes.dips import Dip
from ..probes.precursors import Precedence
from ..probes.spikes import Spike
from .event import Event
from .neighbours import Neighbours
from .view import View, episodes

NEEDED = 64  # steps that the detector waits for before it judges the first one


def headline(view: View) -> str:
    """The run in a sentence: the deepest dip with what came before it, or the strongest spike, or all quiet."""
    if not view.rows:
        return "No steps have been recorded yet."
    if view.searched < 1:
        return _searching(view)
    return _story(_usual(view), view.dips, view.pairs) or _quiet(view)


def no_event(view: View) -> str:
    """Why there is no event to look at."""
    return _searching(view) if view.searched < 1 else "No spikes and no dips so far."


def _searching(view: View) -> str:
    return f"Looking for spikes: {view.searched:.0%} of {view.rows:,} steps read."


def _quiet(view: View) -> str:
    """Nothing was found; whether that is because there was little to find it in."""
    so_far = " so far" if view.state == "running" else ""
    if unmeasured(view):
        return f"No layer's gradient norm was measured{so_far}."
    if view.rows <= NEEDED:
        return f"Too few steps{so_far} to tell: a spike is judged against the {NEEDED} before it."
    return f"All quiet{so_far}."


def counts(view: View) -> str:
    """How many spikes and dips in how many steps."""
    if not view.rows:
        return ""
    groups, steps = len(episodes(_usual(view), view.layers)), f"{view.rows:,} {_plural(view.rows, 'step')}"
    if view.searched < 1:
        return f"{groups} {_plural(groups, 'spike')} so far; the run has {steps}."
    spiky = f"{groups} {_plural(groups, 'spike')}" if groups else "No gradients" if unmeasured(view) else "No spikes"
    if not view.measured("knn_accuracy"):
        return f"{spiky} in {steps}; this run has no kNN curve."
    dippy = f"{len(view.dips)} {_plural(len(view.dips), 'dip')}" if view.dips else "no dips"
    return f"{spiky} and {dippy} in {steps}."


def unmeasured(view: View) -> bool:
    """Whether no layer of the whole run has a gradient norm; not known of a tail."""
    return not view.tail and len(view.columns) > 0 and not np.isfinite(view.columns.ratio.mean).any()


def _usual(view: View) -> list[Spike]:
    return [spike for spike in view.spikes if not spike.warmup]


def _story(spikes: Sequence[Spike], dips: Sequence[Dip], pairs: Sequence[Precedence]) -> str:
    if pairs:
        pair = max(pairs, key=lambda p: (p.dip.depth, p.lag))
        return f"{about_spike(pair.spike)}; {about_dip(pair.dip)}."
    parts = []
    if spikes:
        parts.append(about_spike(max(spikes, key=lambda s: s.ratio if math.isfinite(s.ratio) else math.inf)))
    if dips:
        parts.append(about_dip(max(dips, key=lambda d: d.depth)))
    return "; ".join(parts) + "." if parts else ""


def about_spike(spike: Spike) -> str:
    """`patch_embed rose 6.9x at step 432`."""
    if spike.kind == "nonfinite":
        return f"{spike.layer} became non-finite at step {spike.onset:,}"
    moved = "moved to a new level" if spike.kind == "level_shift" else "rose"
    return f"{spike.layer} {moved} {times(spike.ratio)} at step {spike.onset:,}"


def about_dip(dip: Dip) -> str:
    """`kNN fell 10.0 points at 434 and recovered by 470`."""
    fell = f"kNN fell {dip.depth * 100:.1f} points by step {dip.onset_by:,}"
    if dip.kind == "partial_restart":
        return f"{fell} and climbed anew from a lower place"
    if dip.kind == "unrecovered":
        return f"{fell} and has not recovered"
    recovered = dip.end if dip.end is not None else dip.t50
    return f"{fell} and recovered by {recovered:,}" if recovered is not None else f"{fell} and is still down"


def about_focus(focus: Neighbours, flagged: Sequence[Spike] = ()) -> str:
    """Who rose first, who last, by how many steps, and whether depth explains the order.

    `flagged` are the event's spikes: the detector judges by the run so far, an onset by the 64 steps before it, so in
    a noisy stretch a layer may be flagged whose onset nobody can tell. Then this is what it says.
    """
    order, unclear = focus.order, unclear_spikes(focus, flagged)
    if not order and unclear:
        told = about_spike(unclear[0]) + (f", {_some([s.layer for s in unclear[1:]])} with it" if unclear[1:] else "")
        why = "too few steps come before it" if focus.early else "no rise stands clear of the noise of the steps before"
        return f"{told}; {why}, so which layer was first can't be told."
    if not order:
        why = "Too few steps before it to tell which layer rose when" if focus.early else "No layer rose clearly"
        return f"{why} around step {focus.step:,}."
    text = _order(focus, order)
    if not unclear:
        return text
    several = "Their onsets are" if len(unclear) > 1 else "Its onset is"
    return f"{text} {_some([spike.layer for spike in unclear])} spiked too. {several} not clear of the noise."


def unclear_spikes(focus: Neighbours, flagged: Sequence[Spike]) -> list[Spike]:
    """Of each layer that has no clear onset the first of its spikes in `flagged`, by onset."""
    clear = {focus.layers[i] for i in focus.order}
    first: dict[str, Spike] = {}
    for spike in sorted(flagged, key=lambda spike: spike.onset):
        if spike.layer not in clear:
            first.setdefault(spike.layer, spike)
    return list(first.values())


def _order(focus: Neighbours, order: Sequence[int]) -> str:
    first, last = order[0], order[-1]
    text = f"{focus.layers[first]} rose first, at step {focus.step + int(focus.onset[first]):,}"
    text += f" ({times(focus.height[first])} its normal)"
    if len(focus.layers) == 1:
        return f"{text}."
    if len(order) == 1:
        return f"{text}; no other layer rose clearly above its own noise."
    lag = int(focus.onset[last] - focus.onset[first])
    others = f"{len(order)} of {len(focus.layers)} layers rose"
    if lag == 0:
        return f"{text}; {others}, all at the same step."
    text += f"; {focus.layers[last]} came last, {lag} {_plural(lag, 'step')} later. {others}"
    rho = focus.depth_correlation
    if math.isfinite(rho):
        sense = "deeper layers later" if rho > 0.5 else "deeper layers earlier" if rho < -0.5 else "no order by depth"
        text += f", {sense} (rank correlation {rho:.2f})"
    return f"{text}."


def about_slope(focus: Neighbours) -> str:
    """How many steps later each deeper layer rises, with its interval."""
    slope, count = focus.slope, len(focus.order)
    if slope is None:
        clear = f"Only {count} {_plural(count, 'layer')} rose" if count else "No layer rose"
        return f"{clear} clear of the noise: too few for an order."
    text = f"{slope.steps:+.2f} steps a layer [{slope.low:+.2f}, {slope.high:+.2f}]"
    sense = (
        "deeper layers follow" if slope.low > 0 else "deeper layers come first" if slope.high < 0 else "no clear order"
    )
    return f"{text}: {sense}. One event is a hint: “Which layer is first?” under Precursors tests all of them."


def about_event(event: Event) -> str:
    """The event in a sentence: who rose, who with it, and what became of the accuracy."""
    parts = []
    if event.spikes:
        parts.append(_risen(event))
    elif event.kind == "place":
        parts.append(f"no spike and no dip begins at step {event.step:,}")
    if event.dip is not None:
        parts.append(about_dip(event.dip))
    elif event.kind == "spike":
        parts.append("no dip follows")
    if event.kind == "dip" and not event.spikes:
        parts.append("no spike comes before it")
    text = "; ".join(parts)
    return f"{text[:1].upper() if not event.spikes else text[:1]}{text[1:]}."


def _risen(event: Event) -> str:
    """`patch_embed rose 6.9× at step 432, blocks.03 with it, blocks.11 9 steps later`."""
    first = event.spikes[0]
    others = [spike for spike in event.spikes[1:] if spike.layer != first.layer]
    at_once = list(dict.fromkeys(spike.layer for spike in others if spike.onset - first.onset <= 1))
    later = [spike for spike in others if spike.onset - first.onset > 1]
    text = about_spike(first)
    if at_once:
        text += f", {_some(at_once)} with it"
    if later:
        lag = later[-1].onset - first.onset
        text += f", {later[-1].layer} {lag} {_plural(lag, 'step')} later"
    return text


def _some(names: Sequence[str]) -> str:
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} more layers"


def interventions(view: View) -> str:
    """How often something was done to the run, and what it was last; empty if never."""
    acted = [remark for remark in view.remarks if remark["kind"] == "intervention"]
    if not acted:
        return ""
    last = acted[-1]
    return f"{len(acted)} {_plural(len(acted), 'intervention')}, the last at step {last['step']:,}: {last['text']}."


def times(ratio: float) -> str:
    """A ratio as text.

    >>> times(6.87), times(float("inf")), times(143.2)
    ('6.9×', 'beyond measure', '143×')
    """
    if not math.isfinite(ratio):
        return "beyond measure"
    return f"{ratio:.1f}×" if ratio < 99.95 else f"{ratio:,.0f}×"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
