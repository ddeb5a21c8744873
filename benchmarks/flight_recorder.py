"""What the flight recorder costs a training step: ms of the training thread, CPU ms of all threads, bytes on the disk.

A ViT of 12 blocks x 192 (150 tensors, 5.4 M parameters) has gradients, and three recorders observe them in turns:
plain, with a detector in its thread (what `on_spike` asks for), and with the flight recorder too. A round is 640 steps,
with a gradient that is 20 times as large at one of them, so that a window is written. The figures are medians over the
rounds; "thread" is the time in `observe`, "CPU" is that of the whole process, its writer and its detector included.

    OMP_NUM_THREADS=1 python benchmarks/flight_recorder.py --rounds 7
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch

from foreshock.probes.alerts import Alerts
from foreshock.probes.flight import FlightRecorder
from foreshock.probes.recorder import Recorder
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import TraceWriter, open_trace

STEPS, SPIKE = 640, 300


def recorder_of(kind: str, model: torch.nn.Module, path: Path) -> Recorder:
    flight = kind == "flight recorder"
    sensor = GradNorm(model, by_parameter=flight)
    writer = TraceWriter(path, layers=sensor.layers, parameters=sensor.parameters if flight else None)
    told: Any = writer
    if kind != "plain":
        told = Alerts(writer, (), flight=FlightRecorder(writer) if flight else None)
    return Recorder(told, [sensor])


def noisy(model: torch.nn.Module, step: int, spike: bool) -> None:
    """Another gradient for each step, cheaply: its norm is what counts."""
    factor = float(torch.randn((), generator=torch.Generator().manual_seed(step)) * 0.1 + 1) * (20 if spike else 1)
    for p in model.parameters():
        p.grad = p.grad_of_step_0 * factor  # pyright: ignore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    for p in model.parameters():
        p.grad_of_step_0 = p.grad.clone()
    kinds = ("plain", "detector in its thread", "flight recorder")
    thread: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        recorders = {kind: recorder_of(kind, model, Path(name) / kind) for kind in kinds}
        for number in range(options.rounds + 1):
            for kind, recorder in recorders.items():
                before, total, own = recorder.seconds, time.process_time(), 0.0
                for step in range(number * STEPS, (number + 1) * STEPS):
                    start = time.process_time()
                    noisy(model, step, step % STEPS == SPIKE)
                    own += time.process_time() - start
                    recorder.observe(step)
                recorder.flush()
                getattr(recorder.writer, "wait", bool)()
                thread[kind].append(1e3 * (recorder.seconds - before) / STEPS)
                cpu[kind].append(1e3 * (time.process_time() - total - own) / STEPS)
        sizes = {}
        for kind, recorder in recorders.items():
            recorder.close()
            sizes[kind] = sum(f.stat().st_size for f in (Path(name) / kind).rglob("*") if f.is_file())
        flights = open_trace(Path(name) / "flight recorder").flights
        print(f"{len(flights)} windows of {len(flights[0])} steps x {len(flights[0].parameters)} parameters")
        for kind in kinds:
            ms = f"thread {median(thread[kind][1:]):7.3f} ms a step   CPU {median(cpu[kind][1:]):7.3f} ms a step"
            print(f"{kind:24} {ms}   {sizes[kind]:9,d} bytes")
        more = sizes["flight recorder"] - sizes["detector in its thread"]
        print(f"a window takes {more / max(1, len(flights)):,.0f} bytes")


if __name__ == "__main__":
    main()
