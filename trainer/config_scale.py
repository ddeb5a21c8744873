"""Settings of several processes, memory and speed, as a frozen dataclass; they leave what is learned as it is."""

__all__ = ["ScaleConfig"]

from dataclasses import dataclass
from typing import Literal

from .config_checks import choice, positive

Parallel = Literal["auto", "ddp", "fsdp"]


@dataclass(frozen=True)
class ScaleConfig:
    """How a run is spread over the processes that torchrun starts; the results are those of one process."""

    parallel: Parallel = "auto"
    """With ddp, which auto takes, each process has the whole model; with fsdp, which suits large ones, a part of it."""
    sync_batch_norm: bool = True
    """With several processes, BatchNorm over the whole batch as in the paper; without, over each process's part."""
    timeout: float = 600.0
    """Seconds without a sign of another process after which the run gives up."""

    accumulate: int = 1
    """Parts in which the backbone takes a batch, to save memory; heads and loss see it whole, so gradients are the same
    as in one. Costs one more forward pass."""
    checkpoint_activations: bool = False
    """Keep only each block's input for the backward pass, which computes the rest again: less memory, more time."""
    channels_last: bool = False
    """Weights of convolutions in the layout that GPUs are faster with."""
    compile: bool = False
    """Compile the backbone (torch.compile); takes a minute at the start, and sums are rounded differently."""

    def __post_init__(self) -> None:
        choice(self, "parallel", Parallel)
        positive(self, "timeout", "accumulate")
