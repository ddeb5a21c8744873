"""List a run's gradient spikes and accuracy dips, and which spike came before which dip."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

__all__ = ["SpikesCommand", "main"]


@dataclass(frozen=True)
class SpikesCommand:
    """List a run's gradient spikes and accuracy dips, and which spike came before which dip."""

    run: tyro.conf.Positional[Path]
    """The run: the folder that was given to --trace, or a .csv or .npy file."""
    layer: str | None = None
    """Only this layer's spikes."""
    column: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of a file: a column to search (give it several times for several); by default all but steps and accuracy. Of a
    run: a series, grad_norm by default."""
    step_column: str | None = None
    """Of a CSV file: the column with the step numbers; by default the one called step or iteration."""
    detector: str = "robust"
    """Rule that finds the spikes."""
    ratio: float | None = None
    """Smallest rise over the baseline that counts (times); the detector's own by default."""
    z: float | None = None
    """Smallest robust z-score that counts; the detector's own by default."""
    within: int = 64
    """Steps before a dip in which a spike counts as preceding it."""
    json: bool = False
    """Print one JSON object instead of tables."""


def main(argv: Sequence[str]) -> int:
    """Entry point of `foreshock spikes`; exit code 0 whether or not there are any."""
    command = tyro.cli(SpikesCommand, args=list(argv), prog="foreshock spikes")
    from ..probes import findings, preceding, run_scores
    from ..probes.records import plain
    from ._sources import dips_of, has_curve, open_source, spikes_of

    trace = open_source(command.run, columns=command.column, step_column=command.step_column)
    thresholds = {key: value for key in ("ratio", "z") if (value := getattr(command, key)) is not None}
    spikes = spikes_of(trace, command.column, layer=command.layer, detector=command.detector, **thresholds)
    dips = dips_of(trace) if has_curve(trace) else []
    pairs = preceding(spikes, dips, within=command.within)
    # Of one layer, or of chosen columns, the scores of the run would say something else.
    whole = command.layer is None and not command.column and "grad_norm" in trace.series
    run: Any = trace  # a table of a file reads like a trace
    scores = run_scores(run, spikes=spikes, dips=dips, olmo=False) if whole else None
    found = findings(run)
    if command.json:
        more = {"findings": [plain(dataclasses.asdict(one)) for one in found]}
        more |= {"scores": plain(dataclasses.asdict(scores)) if scores else None}
        print(json.dumps(as_json(trace, spikes, dips, pairs) | more, allow_nan=False))
    else:
        from ._findings import print_findings

        print_findings(trace, spikes, dips, pairs, within=command.within, scores=scores, findings=found)
    return 0


def as_json(trace: Any, spikes: Sequence[Any], dips: Sequence[Any], pairs: Sequence[Any]) -> dict[str, Any]:
    """The findings as plain JSON values; non-finite numbers, which JSON lacks, become null."""
    from ._findings import staleness_controls

    return {
        "run": str(trace.path),
        "state": trace.state,
        "steps": len(trace),
        "layers": list(trace.layers),
        "spikes": [finite(dataclasses.asdict(spike)) for spike in spikes],
        "dips": [finite(dataclasses.asdict(dip)) for dip in dips],
        "precedences": [
            {"spike": spikes.index(p.spike), "dip": dips.index(p.dip), "layer": p.spike.layer, "lag": p.lag}
            for p in pairs
        ],
        "staleness": staleness_controls(trace, dips),
    }


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with NaN and infinities replaced by None.

    >>> finite({"ratio": float("inf"), "peak": 3})
    {'ratio': None, 'peak': 3}
    """
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in record.items()}
