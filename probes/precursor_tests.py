"""The test behind `precursors`: coincidence counts of all layers and lags, and their surrogates, in dips and spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coincidence import coincidences
from .molchan import alarm_shares
from .sessions import Session, common_range
from .surrogates import BLOCK_PER_LAG, MaxT, block_shifts, max_t, permutations

__all__ = ["Chance", "Counts", "against_chance", "lags_that_fit", "observed_counts"]


@dataclass(frozen=True)
class Counts:
    """Coincidences by layer and lag; the surrogates' have a leading axis of N.

    Attributes:
        before: [..., L, G] dips with a spike before them.
        spikes: [..., L, G] spikes with a dip after them.
        behind: [..., L, G] dips with a spike after them: the reverse direction.
        skill: f[..., L] Molchan area skill, filled in at the last lag.
        lead: f[L, G] median steps back to the spike, over the dips of all surrogates that have one; NaN if none.
    """

    before: np.ndarray
    spikes: np.ndarray
    behind: np.ndarray
    skill: np.ndarray
    lead: np.ndarray


def lags_that_fit(lags: Sequence[int], steps: int) -> list[int]:
    """Keep the lags whose block fits into a run of `steps` steps twice.

    With fewer blocks the shift mixes busy periods with calm ones, which is what it must not do.

    >>> lags_that_fit([8, 16, 32, 64, 128], 1500)
    [8, 16, 32, 64]
    """
    return [lag for lag in lags if 2 * BLOCK_PER_LAG * lag <= steps]


def observed_counts(runs: Sequence[Session], layers: Sequence[str], lags: Sequence[int]) -> Counts:
    """Count the coincidences of the runs as they are, summed over runs."""
    return _sum([_count(run, layers, lags, [run.by] * len(lags)) for run in runs], runs)


@dataclass(frozen=True)
class Chance:
    """The data against surrogates: L layers x G tested lags, in that order, flat where it says K = L · G.

    Attributes:
        lags: the G lags that were tested.
        forward: max-T over K of dips with a spike before them.
        reverse: the same of dips with a spike after them.
        sessions: max-T over K against permuted runs; None with fewer runs than asked for.
        spikes: f[L, G] the surrogates' mean number of spikes with a dip.
        lead: f[L, G] the surrogates' median lead.
        skill: f[L] the surrogates' mean Molchan skill, at the longest lag's blocks.
    """

    lags: tuple[int, ...]
    forward: MaxT
    reverse: MaxT
    sessions: MaxT | None
    spikes: np.ndarray
    lead: np.ndarray
    skill: np.ndarray


def against_chance(
    runs: Sequence[Session],
    layers: Sequence[str],
    lags: Sequence[int],
    count: int,
    min_runs: int,
    rng: np.random.Generator,
    primary: str | None = None,
) -> Chance:
    """Compare the runs with `count` surrogates of each kind, each lag with blocks of 10 lags.

    All layers see the same shifted dips, so that whatever ties the layers together stays in the surrogates. Each run's
    dips move on their own. The lags of the layer `primary` are the primary tests (see `max_t`).
    """
    tables = []
    for run in runs:
        moved = [block_shifts(run.by, run.first, run.last, BLOCK_PER_LAG * lag, count, rng) for lag in lags]
        tables.append(_count(run, layers, lags, moved))
    first = np.repeat([layer == primary for layer in layers], len(lags))
    drawn, seen = _sum(tables, runs), observed_counts(runs, layers, lags)
    return Chance(
        tuple(lags),
        max_t(seen.before.ravel(), drawn.before.reshape(count, -1), first),
        max_t(seen.behind.ravel(), drawn.behind.reshape(count, -1), first),
        _session_test(runs, layers, lags, count, rng, first) if len(runs) >= min_runs else None,
        drawn.spikes.mean(axis=0),
        drawn.lead,
        drawn.skill.mean(axis=0),
    )


def _session_test(
    runs: Sequence[Session],
    layers: Sequence[str],
    lags: Sequence[int],
    count: int,
    rng: np.random.Generator,
    first: np.ndarray,
) -> MaxT | None:
    """Compare each run's spikes with its own dips and with other runs' dips: max-T over K.

    Exact whatever the rates do, as long as the runs are exchangeable: same recipe, other seed. Only the steps that all
    runs have are used; None if they have none in common.
    """
    runs = common_range(runs)
    if not runs:
        return None
    pairs = np.array([[_pair(spikes, dips, layers, lags) for dips in runs] for spikes in runs])
    own = np.arange(len(runs))
    others = permutations(len(runs), count, rng)
    return max_t(pairs[own, own].sum(axis=0), pairs[own, others].sum(axis=1), first)


def _pair(spikes: Session, dips: Session, layers: Sequence[str], lags: Sequence[int]) -> list[int]:
    return [int(coincidences(spikes.onsets[k], dips.after, dips.by, lag)[0]) for k in layers for lag in lags]


def _count(run: Session, layers: Sequence[str], lags: Sequence[int], moved: Sequence[np.ndarray]) -> Counts:
    """Count one run's coincidences with its dips at `moved[g]` for lag g."""
    width = run.by - run.after
    shape = (*moved[0].shape[:-1], len(layers), len(lags))
    before, spikes, behind = (np.zeros(shape, np.int64) for _ in range(3))
    skill, lead = np.full(shape[:-1], 0.5), np.full((len(layers), len(lags)), np.nan)
    for g, (lag, by) in enumerate(zip(lags, moved, strict=True)):
        for k, name in enumerate(layers):
            onsets = run.onsets[name]
            if not len(onsets):
                continue
            before[..., k, g], spikes[..., k, g] = coincidences(onsets, by - width, by, lag)
            behind[..., k, g] = coincidences(onsets, by - width, by, lag, reverse=True)[0]
            back = by - onsets[np.maximum(np.searchsorted(onsets, by) - 1, 0)]
            hit = (back >= 1) & (back < lag + width)
            lead[k, g] = np.median(back[hit]) if hit.any() else np.nan
            if g == len(lags) - 1 and len(run.by):
                skill[..., k] = 1 - alarm_shares(onsets, by - width, by, run.first, run.last).mean(axis=-1)
    return Counts(before, spikes, behind, skill, lead)


def _sum(tables: Sequence[Counts], runs: Sequence[Session]) -> Counts:
    weight = np.array([len(run.by) for run in runs], float)
    weight /= max(weight.sum(), 1.0)
    leads = np.array([table.lead for table in tables])
    known = ~np.isnan(leads)
    lead = np.where(known, leads, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return Counts(
        np.sum([table.before for table in tables], axis=0),
        np.sum([table.spikes for table in tables], axis=0),
        np.sum([table.behind for table in tables], axis=0),
        np.tensordot(weight, [table.skill for table in tables], axes=1),
        np.where(known.any(axis=0), lead, np.nan),
    )
