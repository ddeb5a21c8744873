"""Do spikes precede dips? Which came before which (`preceding`), and does it beat chance (`precursors`); in steps.

The pairing alone says nothing: where spikes are frequent most dips have one before them, and both are frequent where
the learning rate is high.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from . import precursor_evidence as evidence
from .dips import Dip
from .layers import first_layer
from .precursor_report import PrecursorReport
from .precursor_tests import Chance, against_chance, lags_that_fit
from .sessions import Session, Source, sessions
from .spikes import Spike
from .surrogates import BLOCK_PER_LAG

__all__ = ["LAGS", "MIN_DIPS", "MIN_RUNS", "Precedence", "preceding", "precursors"]

LAGS = (8, 16, 32, 64, 128)
MIN_DIPS = 5
MIN_RUNS = 5


@dataclass(frozen=True)
class Precedence:
    """A spike with its onset shortly before a dip's.

    Attributes:
        spike: the earlier event.
        dip: the later one.
        lag: steps from the spike's onset to the first bad evaluation, `dip.onset_by`: an upper bound, since the dip
            began somewhere after `dip.onset_after`.
    """

    spike: Spike
    dip: Dip
    lag: int


def preceding(spikes: Iterable[Spike], dips: Iterable[Dip], *, within: int = 64) -> list[Precedence]:
    """Pair each dip with the spikes that began in the `within` steps before it.

    The dip began at an unknown step of (onset_after, onset_by]; a spike counts if some step of that interval lies 1 to
    `within` steps after the spike's onset (event coincidence analysis, Donges et al. 2016). This is a list of who came
    before whom and no evidence by itself: where spikes are frequent most dips have one before them.

    Args:
        spikes: of any layers and kinds; filter them first (`spike.warmup`, `spike.layer`) as the question demands.
        dips: of the same run, in the same step numbers.
        within: the window, in steps.

    Returns:
        One entry a pair, sorted by dip, then by the spike's onset. A dip without a foreshock has none.

    Raises:
        ValueError: `within` is below 1.

    >>> spike = Spike("patch_embed", start=432, onset=432, peak=432, end=433, ratio=6.9, z=20, area=2.5, kind="spike")
    >>> dip = Dip(433, 434, 436, 450, depth=.1, area=.9, t50=9, t90=14, kind="dip", base=.55, staleness=24)
    >>> [pair.lag for pair in preceding([spike], [dip])]
    [2]
    """
    if isinstance(within, bool) or within < 1:
        raise ValueError(f"within={within!r}; the window before a dip is a whole number of steps, at least 1")
    spikes = sorted(spikes, key=lambda spike: spike.onset)
    return [
        Precedence(spike, dip, dip.onset_by - spike.onset)
        for dip in sorted(dips, key=lambda dip: dip.onset_by)
        for spike in spikes
        if dip.onset_after + 1 - within <= spike.onset < dip.onset_by
    ]


def precursors(
    spikes: Iterable[Spike] | Sequence[Iterable[Spike]],
    dips: Iterable[Dip] | Sequence[Iterable[Dip]],
    source: Source | Sequence[Source],
    *,
    layers: Sequence[str] | None = None,
    primary: str | None = None,
    lags: Sequence[int] = LAGS,
    warmup_steps: int | None = None,
    surrogates: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> PrecursorReport:
    """Test whether spikes precede dips more often than chance.

    Coincidence counts of every layer at every lag are compared with those of `surrogates` data sets in which the dips
    are shifted circularly inside blocks of 10 lags, under one correction for all layers and lags that costs the
    primary layer little; with at least 5 runs of one recipe also with dips of other seeds, and the larger p counts.

    Args:
        spikes: of one run; or a list of such lists, one a run.
        dips: of the same run or runs.
        source: the run's trace, its step numbers i64[T], or their count T; or a list of them, one a run.
        layers: look only at these, in this order. Fewer layers make a stronger test: name the one that the question is
            about (default: the trace's, else all that have spikes).
        primary: the layer that the question is about, named before looking at the data (default: the one that sees the
            input, as in the paper's claim). It is corrected for its own lags first, and the others for all (see
            `foreshock.probes.surrogates.max_t`).
        lags: windows in steps, at least 1. A lag L needs a run of 20 L steps to be tested.
        warmup_steps: events below this step are left out (default: the trace's own; else the last spike marked
            `warmup`).
        surrogates: N, at least 999 unless speed matters more than the p-value.
        alpha: the level of the verdict.
        seed: of the random numbers.

    Returns:
        The report. Fewer than 5 dips in all, no spikes, or runs shorter than 20 times the shortest lag are
        `testable=False` with the reason; the rates are given all the same.

    Raises:
        ValueError: lags, surrogates or alpha out of range; an unknown primary layer; lists of different length; no
            steps left.

    >>> from dataclasses import replace
    >>> spike = Spike("patch_embed", start=0, onset=0, peak=0, end=1, ratio=6, z=20, area=2.5, kind="spike")
    >>> dip = Dip(0, 1, 2, 9, depth=.1, area=.9, t50=9, t90=14, kind="dip", base=.55, staleness=24)
    >>> spikes = [replace(spike, onset=at) for at in range(500, 9500, 700)]
    >>> dips = [replace(dip, onset_after=s.onset + 10, onset_by=s.onset + 12) for s in spikes[::2]]
    >>> report = precursors(spikes, dips, 10_000)
    >>> report.best.precursor.hits, report.dips, report.p
    (7, 7, 0.001)
    """
    _check(lags, surrogates, alpha)
    runs = sessions(spikes, dips, source, layers, warmup_steps)
    rng = np.random.default_rng(seed)
    names, lags = list(runs[0].onsets), sorted({int(lag) for lag in lags})
    if primary is not None and primary not in names:
        raise ValueError(f"unknown primary layer {primary!r}; known are {', '.join(names) or 'none'}")
    primary = primary or (first_layer(names) if names else None)
    dip_count = sum(len(run.by) for run in runs)
    spike_counts = {name: sum(len(run.onsets[name]) for run in runs) for name in names}
    fitting = lags_that_fit(lags, min(run.steps for run in runs))
    reason = _untestable(dip_count, sum(spike_counts.values()), lags, fitting)
    chance = None if reason else against_chance(runs, names, fitting, surrogates, MIN_RUNS, rng, primary)
    rows = evidence.rows(runs, names, lags, chance)
    best = min((row for row in rows if row.p is not None), key=lambda row: (row.p or 0, -row.z), default=None)
    return PrecursorReport(
        testable=not reason,
        reason=reason,
        p=None if best is None else best.p,
        alpha=alpha,
        best=best,
        primary=primary,
        rows=rows,
        lead=None if best is None or chance is None else evidence.lead(runs, best, names, chance, rng),
        molchan=evidence.curves(runs, names, chance),
        controls=None if best is None else evidence.controls(runs, names, best, rows, surrogates, rng),
        runs=len(runs),
        steps=sum(run.steps for run in runs),
        dips=dip_count,
        spikes=spike_counts,
        left_out=sum(run.left_out for run in runs),
        surrogates=surrogates,
        seed=seed,
        notes=_notes(runs, lags, fitting, chance),
    )


def _check(lags: Sequence[int], surrogates: int, alpha: float) -> None:
    if not len(lags) or any(isinstance(lag, bool) or lag < 1 or lag != int(lag) for lag in lags):
        raise ValueError(f"lags={lags!r}; give whole numbers of steps, at least 1")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}; give a level between 0 and 1, such as 0.05")
    if surrogates + 1 < 1 / alpha:
        raise ValueError(
            f"surrogates={surrogates} can't reach p = {alpha}; give at least {1 / alpha - 1:.0f}, best 999"
        )


def _untestable(dips: int, spikes: int, lags: Sequence[int], fitting: Sequence[int]) -> str:
    if dips < MIN_DIPS:
        return f"{dips} dip{'s' if dips != 1 else ''}, at least {MIN_DIPS} are needed: add runs, or record longer ones"
    if not spikes:
        return "no spikes in the layers looked at"
    if not fitting:
        return f"the run is shorter than {2 * BLOCK_PER_LAG} times the shortest lag, {lags[0]} steps"
    return ""


def _notes(
    runs: Sequence[Session], lags: Sequence[int], fitting: Sequence[int], chance: Chance | None
) -> tuple[str, ...]:
    if chance is None:
        return ()
    notes = []
    if len(fitting) < len(lags):
        left = ", ".join(str(lag) for lag in lags if lag not in fitting)
        notes.append(f"lags {left} are not tested: the run is shorter than two blocks of {BLOCK_PER_LAG} lags")
    if 1 < len(runs) < MIN_RUNS:
        notes.append(f"{len(runs)} runs: the permutation of runs, which holds for any rates, needs {MIN_RUNS}")
    elif len(runs) >= MIN_RUNS and chance.sessions is None:
        notes.append("the runs have no steps in common, so they were not permuted against each other")
    if len(runs) < MIN_RUNS:
        shortest = BLOCK_PER_LAG * fitting[0]
        notes.append(
            f"busy periods that spikes and dips share and that are shorter than a block ({shortest} to "
            f"{BLOCK_PER_LAG * fitting[-1]} steps) count as precedence; look at the reverse direction"
        )
    return tuple(notes)
