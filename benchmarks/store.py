"""What the store costs: microseconds a step, milliseconds a commit or a read, bytes a value, for 150 layers."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foreshock.traces import TraceWriter, open_trace

SCALARS = (
    "loss",
    "lr",
    "momentum",
    "contrastive_accuracy",
    "knn_accuracy",
    "wall_time",
    "step_time",
    "grad_norm_total",
)


def gradient_norms(layers: int, steps: int) -> np.ndarray:
    """Log-normal series that wander slowly, [layers, steps], as gradient norms do."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(layers, 1)) + np.cumsum(rng.normal(scale=0.003, size=(layers, steps)), axis=1)
    return np.exp(level + rng.normal(scale=0.1, size=(layers, steps))).astype(np.float32)


def best(repeats: int, work: Callable[[], object]) -> float:
    """Return the shortest of `repeats` durations, in seconds."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return min(durations)


def append_seconds(path: Path, norms: np.ndarray) -> float:
    """Append row by row; return the seconds that append() took, the final flush not counted."""
    rows = np.ascontiguousarray(norms.T)
    scalars = dict.fromkeys(SCALARS, 0.5)
    with TraceWriter(path, layers=[f"layer.{i:03d}" for i in range(len(norms))]) as writer:
        start = time.perf_counter()
        for step, row in enumerate(rows):
            writer.append(step, {"grad_norm": row, **scalars})
        return time.perf_counter() - start


def commit_seconds(path: Path, norms: np.ndarray) -> float:
    """Return the seconds of one commit of 64 new rows, on the caller's own thread."""
    names = [f"layer.{i:03d}" for i in range(len(norms))]
    writer = TraceWriter(path, layers=names, background=False, flush_rows=4096, flush_seconds=1e9)
    durations = []
    for start in range(0, 2048, 64):
        steps = np.arange(start, start + 64)
        writer.extend(steps, {"grad_norm": norms[:, steps], **dict.fromkeys(SCALARS, steps * 0.5)})
        durations.append(best(1, writer.flush))
    writer.close()
    return float(np.median(durations))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=150)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    norms = gradient_norms(options.layers, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        append = append_seconds(path, norms)
        trace = open_trace(path)
        np.testing.assert_array_equal(trace["grad_norm"], norms)
        sizes = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
        raw = sum(size for file, size in sizes.items() if file.is_relative_to(path / "grad_norm"))
        pyramid = sum(size for file, size in sizes.items() if file.is_relative_to(path / "overview"))
        last = int(trace.steps[-1])
        figures = [
            ("append, a step", f"{append / options.steps * 1e6:.1f} us"),
            ("commit of 64 rows", f"{commit_seconds(Path(folder) / 'commits', norms) * 1e3:.1f} ms"),
            ("grad_norm on disk", f"{raw / norms.size:.2f} B/value"),
            ("everything on disk", f"{sum(sizes.values()) / norms.size:.2f} B/value in {len(sizes)} files"),
            ("of which the pyramid", f"{pyramid / sum(sizes.values()):.0%}"),
            ("open", f"{best(20, lambda: open_trace(path)) * 1e3:.1f} ms"),
            (
                "live tick: refresh + last 100 steps",
                f"{best(20, lambda: trace.refresh().since(last - 100)) * 1e3:.1f} ms",
            ),
            ("all layers, all steps", f"{best(5, lambda: trace['grad_norm']) * 1e3:.1f} ms"),
            ("overview of 1,500 columns", f"{best(5, lambda: trace.overview('grad_norm')) * 1e3:.1f} ms"),
            (
                "overview of one layer",
                f"{best(5, lambda: trace.overview('grad_norm', layer=trace.layers[0])) * 1e3:.1f} ms",
            ),
        ]
    print(f"{options.layers} layers, {options.steps:,} steps")
    for name, value in figures:
        print(f"{name:<38}{value}")


if __name__ == "__main__":
    main()
