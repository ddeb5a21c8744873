"""One row a signal: alarms, dips warned, lead in steps, area skill; and the rows in order with their p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .alarms import Falls, Heard, Scored, alarms
from .coincidence import rate
from .lead_time import lead_time
from .leaderboard_report import Signal
from .molchan import alarm_shares
from .surrogates import MaxT

__all__ = ["ranked", "signal_row"]

_PER_STEPS = 10_000


def signal_row(
    series: str,
    layer: str | None,
    scored: Sequence[Scored],
    falls: Sequence[Falls],
    own: Heard,
    lag: int,
    calm: int,
    rng: np.random.Generator,
) -> Signal:
    """Tell what one signal heard: `own` at its threshold, over `calm` steps; p-values come with `ranked`."""
    begun = [alarms(one, float(own.threshold)) for one in scored]
    false = sum(int((~dips.busy(at, lag)).sum()) for at, dips in zip(begun, falls, strict=True))
    upper, lower, shares, done = [], [], [], 0
    for at, dips in zip(begun, falls, strict=True):
        warned = own.warned[done : done + len(dips.by)]
        done += len(dips.by)
        place = np.searchsorted(at, dips.by) - 1
        told = warned & (place >= 0)
        nearest = at[np.maximum(place, 0)][told] if len(at) else dips.by[told]
        upper.append(dips.by[told] - nearest)
        lower.append(np.maximum(dips.after[told] + 1 - nearest, 1))
        shares.append(alarm_shares(at, dips.after, dips.by, dips.first, dips.last))
    widths = np.concatenate([dips.by - dips.after for dips in falls])
    by_chance = (lag + float(np.median(widths))) / 2 if len(widths) else math.nan
    share = np.concatenate(shares)
    return Signal(
        name=series if layer is None else f"{series}/{layer}",
        series=series,
        layer=layer,
        threshold=float(own.threshold),
        alarms=sum(map(len, begun)),
        false_alarms=false * _PER_STEPS / calm if calm else math.nan,
        warned=rate(int(own.warned.sum()), len(own.warned)),
        expected=math.nan,
        lead=lead_time(np.concatenate(upper), np.concatenate(lower), by_chance, rng),
        skill=1 - float(share.mean()) if len(share) and any(map(len, begun)) else math.nan,
        p=None,
        p_single=None,
    )


def ranked(rows: Sequence[Signal], chance: MaxT | None) -> list[Signal]:
    """Put the p-values in, and the signals in order."""
    if chance is not None:
        rows = [
            replace(
                row,
                expected=float(chance.expected[k]) / max(row.warned.trials, 1),
                p=float(chance.p[k]),
                p_single=float(chance.p_single[k]),
            )
            for k, row in enumerate(rows)
        ]
    return sorted(rows, key=lambda row: (-row.warned.hits, -row.lead.median if row.lead.events else 0.0, row.name))
