"""The memory that a run takes, in bytes: of its GPU what torch has allocated, on a CPU the whole process."""

from __future__ import annotations

__all__ = ["Memory"]

import math
import os
import sys
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import Layers
from ._sampling import Sampling


def _series(name: str, doc: str) -> Series:
    return Series(name, ("step",), "float64", "bytes", doc=doc)


class Memory(Sampling):
    """`memory_allocated: f64[]` and `memory_peak: f64[]`, in bytes.

    On CUDA what torch's allocator has handed out now, and at most since the run began (or since somebody called
    `reset_peak_memory_stats`, which this does not). Elsewhere the resident memory of the whole process now (Linux only,
    else NaN) and at most. Measured at every `every`-th step (10), NaN in between.

    Raises ValueError for `every` below 1.

    Cost: about 0.1 ms of the host every `every` steps: counters that the allocator keeps anyhow. No host sync.

    >>> Memory("cpu").observe()["memory_peak"].item() > 1e6
    True
    """

    series: ClassVar[tuple[Series, ...]] = (
        _series("memory_allocated", "memory in use: the GPU's allocated by torch, on a CPU the process's resident"),
        _series("memory_peak", "the most memory in use so far"),
    )
    cost: ClassVar[str] = "about 0.1 ms of the host every 10 steps"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(self, device: torch.device | str, *, every: int = 10) -> None:
        super().__init__(every)
        self.device = torch.device(device)

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor of the device that the model's first parameter is on."""
        return cls(next((p.device for parameters in layers.values() for _, p in parameters), torch.device("cpu")))

    def observe(self) -> dict[str, Tensor]:
        """Both series, as they are now."""
        now = peak = math.nan
        if self.take_turn():
            if self.device.type == "cuda":
                now, peak = torch.cuda.memory_allocated(self.device), torch.cuda.max_memory_allocated(self.device)
            else:
                now = _resident()
                peak = max(_most_resident(), 0.0 if math.isnan(now) else now)  # the system updates its maximum late
        return {
            "memory_allocated": torch.tensor(now, dtype=torch.float64),
            "memory_peak": torch.tensor(peak, dtype=torch.float64),
        }


def _resident() -> float:
    """The process's resident memory in bytes; NaN where the system has no /proc."""
    statm = Path("/proc/self/statm")
    return float(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else math.nan


def _most_resident() -> float:
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kibibytes
