"""Which signal warns of dips, and how early, when all give the same number of false alarms; times in steps.

At thresholds of their own choosing signals can't be compared: the one that cries most often warns of most dips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .alarms import Falls, Scored, calm_steps, heard
from .dips import Dip, find_dips
from .leaderboard_report import Leaderboard
from .leaderboard_rows import ranked, signal_row
from .precursors import MIN_DIPS
from .series import is_trace, read_rows
from .sessions import session
from .surrogates import BLOCK_PER_LAG, block_shifts, max_t
from .unusual import unusual

if TYPE_CHECKING:
    from ..traces.reader import Trace

__all__ = ["SCHEDULES", "leaderboard"]

SCHEDULES = ("lr", "momentum", "chance_loss", "wall_time", "knn_queries")
"""Scalars that are set or counted and not measured: they can't warn."""

_PER_STEPS = 10_000


def leaderboard(
    runs: Trace | Sequence[Trace],
    dips: Sequence[Dip] | Sequence[Sequence[Dip]] | None = None,
    *,
    signals: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    curve: str = "knn_accuracy",
    lag: int = 64,
    false_alarms: float = 10.0,
    warmup_steps: int | None = None,
    surrogates: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> Leaderboard:
    """Rank every layer series and scalar of a run by the dips that it warns of.

    A signal gives an alarm when it is more robust standard deviations away from its recent median than its threshold.
    The threshold is the one at which it gives the allowed number of alarms outside the dips and the lag before them.

    Args:
        runs: a trace; or several, one a seed, for one threshold over all.
        dips: of the run, or of each (default: `find_dips`).
        signals: only these series and scalars (default: all but the curve itself and what is scheduled, `SCHEDULES`).
        layers: only these layers of the layer series.
        curve: the accuracy curve.
        lag: L, steps before a dip in which an alarm is a warning.
        false_alarms: how many each signal may give, per 10,000 steps.
        warmup_steps: steps below this don't count (default: the trace's own).
        surrogates: N data sets in which the dips are shifted inside blocks of 10 lags.
        alpha: the level of the verdict.
        seed: of the random numbers.

    Returns:
        The signals, best first. With fewer than 5 dips, or a run shorter than 20 lags, `testable=False`, and the
        signals have no p-values.

    Raises:
        ValueError: an unknown signal or layer, a number out of range, no steps beyond the warm-up.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter, open_trace
    >>> folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    >>> norms, accuracy = np.exp(rng.normal(0, 0.1, (2, 4000))), np.full(4000, 0.6)
    >>> for at in range(500, 4000, 500):
    ...     norms[0, at], accuracy[at + 20 : at + 30] = 5.0, 0.4
    >>> with TraceWriter(folder.name + "/run", layers=["patch_embed", "norm"]) as writer:
    ...     writer.extend(np.arange(4000), {"grad_norm": norms.astype(np.float32), "knn_accuracy": accuracy})
    >>> best = leaderboard(open_trace(folder.name + "/run")).signals[0]
    >>> best.name, best.warned.hits, best.lead.median, best.p
    ('grad_norm/patch_embed', 7, 20.0, 0.001)
    >>> folder.cleanup()
    """
    _check(lag, false_alarms, surrogates, alpha)
    traces, given = _listed(runs, dips)
    found = [find_dips(run, series=curve) for run in traces] if given is None else given
    falls = [_falls(run, own, warmup_steps) for run, own in zip(traces, found, strict=True)]
    calm = sum(calm_steps(one, lag) for one in falls)
    allowed = math.floor(false_alarms * calm / _PER_STEPS)
    reason = _untestable(falls, lag)
    rng = np.random.default_rng(seed)
    shifted = []
    if not reason:
        for one in falls:
            moved = block_shifts(one.by, one.first, one.last, BLOCK_PER_LAG * lag, surrogates, rng)
            shifted.append(one.moved(moved))
    rows, counts, drawn = [], [], []
    for series, layer, tables in _signals(traces, signals, layers, curve):
        scored = [_scored(*table, one, lag) for table, one in zip(tables, falls, strict=True)]
        if not any(len(one.peaks) for one in scored):
            continue  # it was never measured, or never changed
        own = heard(scored, falls, lag, allowed)
        rows.append(signal_row(series, layer, scored, falls, own, lag, calm, rng))
        counts.append(int(own.warned.sum()))
        if shifted:
            drawn.append(heard(scored, shifted, lag, allowed).warned.sum(axis=-1))
    told = ranked(rows, max_t(np.array(counts), np.array(drawn).T) if drawn else None)
    return Leaderboard(
        testable=not reason,
        reason=reason,
        signals=tuple(told),
        lag=lag,
        false_alarms=false_alarms,
        allowed=allowed,
        dips=sum(len(one.by) for one in falls),
        runs=len(traces),
        steps=sum(one.last - one.first + 1 for one in falls),
        alpha=alpha,
        surrogates=surrogates,
        seed=seed,
        notes=_notes(allowed, false_alarms, len(told)),
    )


def _check(lag: int, false_alarms: float, surrogates: int, alpha: float) -> None:
    if isinstance(lag, bool) or lag < 1 or lag != int(lag):
        raise ValueError(f"lag={lag!r}; give a whole number of steps, at least 1")
    if not 0 < false_alarms < _PER_STEPS:
        raise ValueError(
            f"false_alarms={false_alarms:g}; give more than 0 and fewer than {_PER_STEPS} per 10,000 steps"
        )
    if not 0 < alpha < 1 or surrogates + 1 < 1 / alpha:
        raise ValueError(
            f"surrogates={surrogates} can't reach p = {alpha}; give alpha in 0 to 1, and best 999 surrogates"
        )


def _listed(
    runs: Trace | Sequence[Trace], dips: Sequence[Dip] | Sequence[Sequence[Dip]] | None
) -> tuple[list[Trace], list[Sequence[Dip]] | None]:
    if is_trace(runs):
        return [runs], None if dips is None else [dips]  # pyright: ignore[reportReturnType]
    traces = list(runs)  # pyright: ignore[reportArgumentType]
    if not traces or (dips is not None and len(dips) != len(traces)):
        told = "no" if dips is None else len(dips)
        raise ValueError(
            f"{len(traces)} runs came with {told} lists of dips; give at least one run, and a list for each"
        )
    return traces, None if dips is None else list(dips)  # pyright: ignore[reportReturnType]


def _falls(run: Trace, dips: Sequence[Dip], warmup_steps: int | None) -> Falls:
    kept = session([], dips, run, (), warmup_steps)
    ends = {dip.onset_by: dip.end if dip.end is not None else dip.nadir for dip in dips}
    return Falls(kept.first, kept.last, kept.after, kept.by, np.array([ends[by] for by in kept.by.tolist()], np.int64))


def _untestable(falls: Sequence[Falls], lag: int) -> str:
    count = sum(len(one.by) for one in falls)
    if count < MIN_DIPS:
        return (
            f"{count} dip{'s' if count != 1 else ''}, at least {MIN_DIPS} are needed: add runs, or record longer ones"
        )
    if min(one.last - one.first + 1 for one in falls) < 2 * BLOCK_PER_LAG * lag:
        return f"a run is shorter than {2 * BLOCK_PER_LAG} times the lag, {lag} steps"
    return ""


def _signals(
    traces: Sequence[Trace], signals: Sequence[str] | None, layers: Sequence[str] | None, curve: str
) -> Iterator[tuple[str, str | None, list[tuple[np.ndarray, np.ndarray]]]]:
    """Series, layer, and (values, steps) in each run, of all that every run has."""
    names = [name for name in (*traces[0].series, *traces[0].scalars) if name not in (curve, *SCHEDULES)]
    names = [name for name in names if all(name in run.series or name in run.scalars for run in traces)]
    for name in names if signals is None else signals:
        tables = [read_rows(run, name) for run in traces]  # an unknown name is told of here
        scalar = name in traces[0].scalars
        if scalar:
            yield name, None, [(rows.values[0], rows.steps) for rows in tables]
            continue
        common = [row for row in tables[0].names if all(row in rows.names for rows in tables)]
        unknown = [row for row in layers or () if row not in common]
        if unknown:
            raise ValueError(f"unknown layer {unknown[0]!r}; known are {', '.join(common)}")
        for row in common if layers is None else layers:
            yield name, row, [(rows.values[rows.names.index(row)], rows.steps) for rows in tables]


def _scored(values: np.ndarray, steps: np.ndarray, falls: Falls, lag: int) -> Scored:
    widths = sorted(set((falls.by - falls.after).tolist()))
    return Scored(unusual(values, steps, falls.first, falls.last), falls.first, lag, widths)


def _notes(allowed: int, false_alarms: float, signals: int) -> tuple[str, ...]:
    notes = [f"p-values are corrected for having looked at {signals} signals; the best of many looks good by chance"]
    if allowed < 3:
        notes.append(
            f"{false_alarms:g} false alarms per 10,000 steps are {allowed} in so short a run: thresholds rest on few "
            f"values, and runs of another seed would move them; allow more, or add runs"
        )
    return tuple(notes)
