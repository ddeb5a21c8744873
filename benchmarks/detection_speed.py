"""How long finding spikes takes: a whole long trace on disk, and one step at a time, in CPU time of one core.

    OMP_NUM_THREADS=1 python benchmarks/detection_speed.py                       # 150 layers x 1,000,000 steps, robust
    python benchmarks/detection_speed.py --steps 20000 --detectors robust zclip  # smaller, and others beside it

The trace is written first, to --folder (2 GB for the million), and removed at the end. `ns/value` counts everything
between opening the trace and the list of spikes: reading, decompressing, judging, grouping. Memory is the process's
largest resident set. The live figure is a `SpikeFinder` that gets one step of all layers at a time, after a million
values.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from foreshock.probes import SpikeFinder, find_spikes
from foreshock.traces import TraceWriter, open_trace

BLOCK = 8192


def write(path: Path, layers: int, steps: int) -> None:
    """A trace of log-normal noise with a spike in one of 2,000 values."""
    rng = np.random.default_rng(0)
    with TraceWriter(path, layers=[f"blocks.{i:03d}" for i in range(layers)]) as writer:
        for start in range(0, steps, BLOCK):
            n = min(BLOCK, steps - start)
            values = np.exp(0.2 * rng.standard_normal((layers, n), np.float32))
            values[rng.random((layers, n), np.float32) < 5e-4] *= 8
            writer.extend(np.arange(start, start + n), {"grad_norm": values})


def whole(path: Path, detector: str) -> tuple[int, float, float]:
    """Spikes found in a trace, CPU seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    spikes = find_spikes(open_trace(path), detector=detector)
    return len(spikes), time.process_time() - cpu, time.perf_counter() - wall


def live(path: Path, detector: str, warm: int, steps: int) -> float:
    """CPU milliseconds a step of a finder that gets the layers' values step by step."""
    trace = open_trace(path)
    block = np.ascontiguousarray(trace.read("grad_norm", stop=warm + steps).T)
    finder = SpikeFinder(trace.layers, detector)
    for i in range(warm):
        finder.update(i, block[i])
    began = time.process_time()
    for i in range(warm, len(block)):
        finder.update(i, block[i])
    return 1000 * (time.process_time() - began) / (len(block) - warm)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=150)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--live-steps", type=int, default=2000)
    parser.add_argument("--detectors", nargs="+", default=["robust"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    path = Path(tempfile.mkdtemp(dir=options.folder)) / "run"
    try:
        write(path, options.layers, options.steps)
        print(f"{options.layers} layers x {options.steps:,} steps")
        print("detector      spikes  cpu s  wall s  ns/value  peak MB  live ms/step")
        for name in options.detectors:
            found, cpu, wall = whole(path, name)
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            warm = min(options.steps // 2, 1_000_000 // options.layers)
            step = live(path, name, warm, min(options.live_steps, options.steps // 2))
            ns = 1e9 * cpu / (options.layers * options.steps)
            print(f"{name:12s} {found:7d} {cpu:6.1f} {wall:7.1f} {ns:9.0f} {megabytes:8.0f} {step:13.3f}", flush=True)
    finally:
        shutil.rmtree(path.parent)


if __name__ == "__main__":
    main()
