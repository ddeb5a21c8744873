"""Under data parallelism the recorded norm is that of the global batch: two real processes against one."""

from pathlib import Path

import numpy as np
import torch
from processes import two_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foreshock.probes.recorder import Recorder
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.probes.watch import watch
from foreshock.traces import open_trace

STEPS, BATCH, PARTS = 5, 16, 2


class Kept:
    """A writer that keeps float64, which a trace rounds to float32."""

    def __init__(self) -> None:
        self.norms: list[np.ndarray] = []

    def extend(self, steps: np.ndarray, values: dict[str, np.ndarray]) -> None:
        self.norms.append(values["grad_norm"])

    def close(self, status: str = "finished", message: str = "") -> None:
        pass


def train(rank: int, world: int, folder: Path) -> np.ndarray:
    """f64[L, steps], recorded by hand; rank 0 writes a trace as well. Two backward passes a step, clipped after."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 2)).double()
    parallel = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=0.05)
    kept = Kept()
    data = torch.Generator().manual_seed(1)
    with (
        watch(parallel, optimizer, folder / f"run{world}", enabled=rank == 0) as w,
        Recorder(kept, [GradNorm(parallel)]) as recorder,
    ):
        for step in range(STEPS):
            images = torch.randn(PARTS, BATCH, 6, dtype=torch.float64, generator=data)
            for part in range(PARTS):
                shard = images[part].chunk(world)[rank]
                if world > 1:
                    parallel.require_backward_grad_sync = part == PARTS - 1
                (parallel(shard).square().mean() / PARTS).backward()
            recorder.observe(step)
            w.observe()
            nn.utils.clip_grad_norm_(parallel.parameters(), 0.01)
            optimizer.step()
            w.step()
            optimizer.zero_grad()
    return np.concatenate(kept.norms, axis=1)


def worker(rank: int, folder: Path) -> None:
    np.save(folder / f"norms{rank}.npy", train(rank, 2, folder))


def test_two_processes_record_what_one_process_does(tmp_path: Path) -> None:
    two_processes(worker, tmp_path)
    one = train(0, 1, tmp_path)
    assert one.shape == (3, STEPS)
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"norms{rank}.npy"), one, rtol=1e-9)
    traces = [open_trace(tmp_path / f"run{world}") for world in (1, 2)]
    assert traces[0].layers == traces[1].layers
    for trace in traces:
        np.testing.assert_allclose(trace["grad_norm"], one, rtol=1e-6)
