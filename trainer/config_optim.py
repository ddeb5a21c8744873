"""Settings of optimizer, learning rate and gradient clipping, as a frozen dataclass."""

__all__ = ["OptimConfig"]

from dataclasses import dataclass
from typing import Literal

from .config_checks import choice, not_negative, positive, without_effect

OptimizerName = Literal["adamw", "lars", "lamb", "stableadamw"]
LrSchedule = Literal["cosine", "constant"]
Clip = Literal["off", "global", "layer"]


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning rate; the defaults are the paper's for ViT (Sec. 5), without a warm-up."""

    name: OptimizerName = "adamw"
    """AdamW, LARS (arXiv 1708.03888), LAMB (1904.00962), or AdamW with clipped updates (StableAdamW, 2304.13013)."""
    base_lr: float = 1.5e-4
    """Peak learning rate for a global batch of 256; the one used is base_lr x batch size / 256."""
    weight_decay: float = 0.1
    """Decoupled and on every parameter; with lamb added to the update, with lars to the gradient of matrices only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """All but lars: decay per step of the running mean of the gradient and of its square."""
    momentum: float = 0.9
    """lars only: share of the update buffer that is kept at a step."""
    trust_coefficient: float = 0.001
    """lars only: length of a matrix's update at lr 1, in units of the matrix's own norm."""
    warmup_epochs: float | None = None
    """Epochs over which the learning rate rises linearly from 0; None leaves it to warmup_steps."""
    warmup_steps: int | None = None
    """The same in steps; with neither of the two there is no warm-up."""
    schedule: LrSchedule = "cosine"
    """After the warm-up: half a cosine down to 0 at the end of the run, or constant at the peak."""
    clip: Clip = "off"
    """Clip gradients to clip_norm: the norm over all layers, or each layer's own (the layers of the trace)."""
    clip_norm: float = 1.0
    """Largest gradient norm that clip lets through; a trace holds the norms before and after."""

    def __post_init__(self) -> None:
        choice(self, "name", OptimizerName)
        choice(self, "schedule", LrSchedule)
        choice(self, "clip", Clip)
        positive(self, "base_lr", "trust_coefficient", "clip_norm")
        not_negative(self, "weight_decay", "warmup_epochs", "warmup_steps")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum {self.momentum} must be from 0 up to, but not, 1.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must be two numbers from 0 up to, but not, 1.")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} and warmup_steps {self.warmup_steps} are both given: "
                "set one of them to None."
            )
        unused = ("betas",) if self.name == "lars" else ("momentum", "trust_coefficient")
        without_effect(self, f"with optimizer {self.name!r}", *unused)
        if self.clip == "off":
            without_effect(self, "with clip 'off'", "clip_norm")
