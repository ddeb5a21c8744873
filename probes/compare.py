"""What an intervention does, over seeds: to the rates of spikes and dips a step, and to the final accuracy.

That spikes come before dips is no proof that they cause them; a run in which only one thing was changed is (Chen, Xie
and He freeze the patch projection, Sec. 4.3, arXiv 2104.02057). Runs differ by their seed alone, so seeds are the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .compare_report import Comparison
from .dips import find_dips
from .mean_difference import mean_difference
from .rate_ratio import LEAST_SEEDS, rate_ratio
from .rises import events_of
from .series import read_rows
from .sessions import session
from .spikes import find_spikes

if TYPE_CHECKING:
    from ..traces.reader import Trace

__all__ = ["compare", "final_accuracy"]

_LAST = 5  # evaluations at the end whose median is the final accuracy


def compare(
    runs_a: Sequence[Trace],
    runs_b: Sequence[Trace],
    *,
    layers: Sequence[str] | None = None,
    series: str = "grad_norm",
    curve: str = "knn_accuracy",
    within: int = 32,
    detector: str = "robust",
    confidence: float = 0.95,
    permutations: int = 9999,
    alpha: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Compare runs with an intervention (a) with runs without it (b).

    Args:
        runs_a: traces, one a seed.
        runs_b: traces, one a seed; as alike to those of a as can be, but for the intervention.
        layers: count spikes in these only (default: all that every run measured. A frozen layer has no gradient and so
            no spikes; counted on one side only it would make any freezing look like a cure).
        series: the series in which spikes are sought.
        curve: the accuracy curve.
        within: spikes with onsets at most this many steps apart are one event, whatever their layers.
        detector: the rule that finds the spikes.
        confidence: of the intervals.
        permutations: at most so many ways to deal the seeds to the sides.
        alpha: the level of the verdict.
        seed: of the random numbers.

    Returns:
        Ratios a over b and differences a less b, with intervals.

    Raises:
        ValueError: a side without runs, a layer that some run did not measure, no layer that all measured.

    >>> import tempfile
    >>> from foreshock.traces import TraceWriter, open_trace
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name, spiked in {"frozen": [900], "learned": [300, 500, 700, 900]}.items():
    ...     norms = np.full((1, 1000), 0.5, np.float32)
    ...     norms[:, spiked] = 4.0
    ...     with TraceWriter(f"{folder.name}/{name}", layers=["blocks.00"]) as writer:
    ...         writer.extend(np.arange(1000), {"grad_norm": norms})
    >>> frozen, learned = (open_trace(f"{folder.name}/{name}") for name in ("frozen", "learned"))
    >>> print(compare([frozen], [learned]).verdict)
    no evidence that spike events differ: 0.25 times as many [0.01, 2.53], p = 0.38
    >>> folder.cleanup()
    """
    if not runs_a or not runs_b:
        raise ValueError(f"{len(runs_a)} runs are compared with {len(runs_b)}; give at least one on each side")
    runs = [*runs_a, *runs_b]
    names, notes = _common_layers(runs, series, layers)
    with_curve = all(curve in run.scalars for run in runs)
    events, falls, steps = [], [], []
    for run in runs:
        spikes = find_spikes(run, layer=names, series=series, detector=detector)
        kept = session(spikes, find_dips(run, series=curve) if with_curve else [], run, names, None)
        inside = [spike for spike in spikes if kept.first <= spike.onset <= kept.last]
        events.append(len(events_of(inside, within)))
        falls.append(len(kept.by))
        steps.append(kept.steps)
    n, rng = len(runs_a), np.random.default_rng(seed)
    options = {"confidence": confidence, "permutations": permutations, "rng": rng}
    spike_rates = rate_ratio(events[:n], steps[:n], events[n:], steps[n:], **options)
    dip_rates = accuracy = None
    if with_curve:
        dip_rates = rate_ratio(falls[:n], steps[:n], falls[n:], steps[n:], **options)
        ends = [final_accuracy(run[curve]) for run in runs]
        accuracy = mean_difference(ends[:n], ends[n:], **options)
    else:
        notes.append(f"not every run has the curve {curve}, so dips and accuracies are not compared")
    return Comparison(
        spikes=spike_rates,
        dips=dip_rates,
        accuracy=accuracy,
        seeds=(n, len(runs_b)),
        layers=names,
        within=within,
        alpha=alpha,
        confidence=confidence,
        seed=seed,
        notes=(*notes, *_notes(runs, (n, len(runs_b)), steps)),
    )


def final_accuracy(curve: np.ndarray) -> float:
    """Return the median of the last five evaluations of a curve f[T], NaN where there was none.

    Raises:
        ValueError: there is no evaluation.

    >>> final_accuracy(np.array([0.1, 0.5, 0.6, np.nan, 0.2, 0.6, 0.7]))
    0.6
    """
    known = np.asarray(curve, float)
    known = known[~np.isnan(known)]
    if not len(known):
        raise ValueError("the accuracy curve has no evaluation; give a run that was evaluated at least once")
    return float(np.median(known[-_LAST:]))


def _common_layers(
    runs: Sequence[Trace], series: str, layers: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """The layers that every run measured, and a note on those that some did not."""
    tables = [read_rows(run, series) for run in runs]
    measured = [
        {name for name, row in zip(rows.names, rows.values, strict=True) if not np.isnan(row).all()} for rows in tables
    ]
    everywhere = set.intersection(*measured)
    known = tuple(dict.fromkeys(name for rows in tables for name in rows.names))
    wanted = known if layers is None else tuple(layers)
    missing = [name for name in wanted if name not in everywhere]
    if len(missing) == len(wanted) or (layers is not None and missing):
        told = ", ".join(name for name in known if name in everywhere) or "no layer"
        raise ValueError(f"not every run measured {', '.join(missing)}; every run measured {told}: compare those")
    notes = [f"not measured in every run, so not counted: {', '.join(missing)}"] if missing else []
    return tuple(name for name in wanted if name in everywhere), notes


def _notes(runs: Sequence[Trace], seeds: tuple[int, int], steps: Sequence[int]) -> list[str]:
    notes = []
    if min(seeds) < LEAST_SEEDS:
        notes.append(
            f"with fewer than {LEAST_SEEDS} seeds a side the scatter between seeds is unknown: the intervals take "
            f"every event for independent, which events in bursts are not"
        )
    if max(steps) > 1.05 * min(steps):
        notes.append(f"the runs have {min(steps):,} to {max(steps):,} steps: cut them alike if rates change with time")
    unfinished = sum(run.state not in ("finished", "file") for run in runs)
    if unfinished:
        notes.append(f"{unfinished} of {len(runs)} runs are not finished")
    return notes
