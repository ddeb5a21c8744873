"""From counts to what a precursor report tells: rows of rates, lead times in steps, Molchan curves, controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .coincidence import rate
from .layers import first_layer, middle_block
from .lead_time import LeadTime, lead_time
from .molchan import Molchan, alarm_shares, molchan
from .precursor_controls import Controls, caught, layer_contrast, shuffled_labels
from .precursor_report import Coincidence
from .precursor_tests import Chance, observed_counts
from .sessions import Session

__all__ = ["controls", "curves", "lead", "rows"]

_PER_STEPS = 10_000  # false alarms are counted per so many steps


def rows(
    runs: Sequence[Session], layers: Sequence[str], lags: Sequence[int], chance: Chance | None
) -> tuple[Coincidence, ...]:
    """One row a layer and lag, tested or not; none without layers."""
    if not layers:
        return ()
    counts = observed_counts(runs, layers, lags)
    dips, steps = sum(len(run.by) for run in runs), sum(run.steps for run in runs)
    made = []
    for k, layer in enumerate(layers):
        spikes = sum(len(run.onsets[layer]) for run in runs)
        for g, lag in enumerate(lags):
            hits, warned, behind = (int(t[k, g]) for t in (counts.before, counts.spikes, counts.behind))
            told = _against(chance, k, lag, hits, warned, dips)
            made.append(
                Coincidence(
                    layer=layer,
                    lag=lag,
                    precursor=rate(hits, dips),
                    trigger=rate(warned, spikes),
                    false_alarms=(spikes - warned) * _PER_STEPS / steps,
                    reverse=rate(behind, dips),
                    **told,
                )
            )
    return tuple(made)


def _against(chance: Chance | None, k: int, lag: int, hits: int, warned: int, dips: int) -> dict[str, Any]:
    """The columns of a row that need surrogates: NaN and None where there are none."""
    if chance is None or lag not in chance.lags:
        unknown: dict[str, Any] = dict.fromkeys(("p", "p_block", "p_session", "p_single", "reverse_p"))
        return unknown | dict.fromkeys(("expected", "lift", "trigger_lift", "z"), math.nan)
    g = chance.lags.index(lag)
    at = k * len(chance.lags) + g
    expected, warned_by_chance = float(chance.forward.expected[at]), float(chance.spikes[k, g])
    block = float(chance.forward.p[at])
    session = None if chance.sessions is None else float(chance.sessions.p[at])
    return {
        "expected": expected / dips,
        "lift": hits / expected if expected else math.nan,
        "trigger_lift": warned / warned_by_chance if warned_by_chance else math.nan,
        "z": float(chance.forward.z[at]),
        "p": block if session is None else max(block, session),
        "p_block": block,
        "p_session": session,
        "p_single": float(chance.forward.p_single[at]),
        "reverse_p": float(chance.reverse.p[at]),
    }


def lead(
    runs: Sequence[Session], best: Coincidence, layers: Sequence[str], chance: Chance, rng: np.random.Generator
) -> LeadTime:
    """The lead times of the dips that the best layer warns of, from the nearest spike."""
    upper, lower = [], []
    for run in runs:
        hit, onsets = caught(run, best.layer, best.lag), run.onsets[best.layer]
        nearest = onsets[np.searchsorted(onsets, run.by[hit]) - 1] if hit.any() else run.by[hit]
        upper.append(run.by[hit] - nearest)
        lower.append(np.maximum(run.after[hit] + 1 - nearest, 1))
    by_chance = chance.lead[layers.index(best.layer), chance.lags.index(best.lag)]
    return lead_time(np.concatenate(upper), np.concatenate(lower), float(by_chance), rng)


def curves(runs: Sequence[Session], layers: Sequence[str], chance: Chance | None) -> dict[str, Molchan]:
    """The Molchan curve of each layer that has spikes, if there are dips."""
    drawn = {}
    for k, layer in enumerate(layers):
        if any(len(run.onsets[layer]) for run in runs) and any(len(run.by) for run in runs):
            shares = [alarm_shares(run.onsets[layer], run.after, run.by, run.first, run.last) for run in runs]
            drawn[layer] = molchan(np.concatenate(shares), math.nan if chance is None else float(chance.skill[k]))
    return drawn


def controls(
    runs: Sequence[Session],
    layers: Sequence[str],
    best: Coincidence,
    table: Sequence[Coincidence],
    count: int,
    rng: np.random.Generator,
) -> Controls:
    """The three controls at the best layer and lag."""
    first, middle = first_layer(layers), middle_block(layers)
    return Controls(
        best.reverse,
        min((row.reverse_p for row in table if row.reverse_p is not None), default=None),
        None if first == middle else layer_contrast(runs, first, middle, best.lag),
        shuffled_labels(runs, best.layer, best.lag, count, rng),
    )
