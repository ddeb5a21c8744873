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
    """The run: the folder that was given to --trace."""
    layer: str | None = None
    """Only this layer's spikes."""
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
    from ..probes import find_dips, find_spikes, preceding
    from ..traces import open_trace

    trace = open_trace(command.run)
    thresholds = {key: value for key in ("ratio", "z") if (value := getattr(command, key)) is not None}
    spikes = find_spikes(trace, layer=command.layer, detector=command.detector, **thresholds)
    dips = find_dips(trace) if "knn_accuracy" in trace.scalars else []
    pairs = preceding(spikes, dips, within=command.within)
    if command.json:
        print(json.dumps(as_json(trace, spikes, dips, pairs), allow_nan=False))
    else:
        from ._findings import print_findings

        print_findings(trace, spikes, dips, pairs, within=command.within)
    return 0


def as_json(trace: Any, spikes: Sequence[Any], dips: Sequence[Any], pairs: Sequence[Any]) -> dict[str, Any]:
    """The findings as plain JSON values; non-finite numbers, which JSON lacks, become null."""
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
    }


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with NaN and infinities replaced by None.

    >>> finite({"ratio": float("inf"), "peak": 3})
    {'ratio': None, 'peak': 3}
    """
    return {k: None if isinstance(v, float) and not abs(v) < float("inf") else v for k, v in record.items()}
