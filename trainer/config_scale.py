"""Settings of several processes, memory and speed, as a frozen dataclass; they leave what is learned as it is."""

__all__ = ["ScaleConfig"]

from dataclasses import dataclass
from typing import Literal

from .config_checks import choice, positive

Parallel = Literal["auto", "ddp"]


@dataclass(frozen=True)
class ScaleConfig:
    """How a run is spread over the processes that torchrun starts; the results are those of one process."""

    parallel: Parallel = "auto"
    """How several processes share the work: with ddp, which auto takes, each has the whole model."""
    sync_batch_norm: bool = True
    """With several processes, BatchNorm over the whole batch as in the paper; without, over each process's part."""
    timeout: float = 600.0
    """Seconds without a sign of another process after which the run gives up."""

    def __post_init__(self) -> None:
        choice(self, "parallel", Parallel)
        positive(self, "timeout")
