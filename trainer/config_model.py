"""Settings of backbone, heads, method and optimizer, as frozen dataclasses; image sizes are in pixels."""

__all__ = ["HeadConfig", "MethodConfig", "OptimConfig", "VitConfig"]

from dataclasses import dataclass
from typing import Literal

from .config_checks import choice, fraction, not_negative, positive, without_effect

OptimizerName = Literal["adamw", "lars"]
LrSchedule = Literal["cosine", "constant"]
MomentumSchedule = Literal["constant", "cosine"]
PatchProjection = Literal["learned", "frozen"]


@dataclass(frozen=True)
class VitConfig:
    """The backbone: a vision transformer with a class token and fixed positions (arXiv 2104.02057, Sec. 5)."""

    image_size: int | tuple[int, int] = 28
    """Side of a crop, or its height and width, in pixels; a multiple of the patch size."""
    in_chans: int = 1
    """Channels of an image: 1 (gray) or 3 (RGB)."""
    patch_size: int = 7
    """Side of a patch in pixels."""
    dim: int = 32
    """Width of a token; a multiple of 4 (sine and cosine of two axes) and of the number of heads."""
    depth: int = 8
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads in each block."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden MLP layer in multiples of dim."""

    def __post_init__(self) -> None:
        positive(self, "in_chans", "patch_size", "dim", "depth", "heads", "mlp_ratio")
        if min(self.size) < 1 or any(side % self.patch_size for side in self.size):
            raise ValueError(
                f"image_size {self.image_size} is not a positive multiple of patch_size {self.patch_size}: "
                f"choose sides such as {self.patch_size * 4}."
            )
        if self.dim % 4 or self.dim % self.heads:
            raise ValueError(
                f"dim {self.dim} must be a multiple of 4 (sine and cosine of two axes) and of heads {self.heads}: "
                f"choose for instance {4 * self.heads * max(1, self.dim // (4 * self.heads))}."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the height and the width."""
        return self.size[0] // self.patch_size, self.size[1] // self.patch_size


@dataclass(frozen=True)
class HeadConfig:
    """Projection (3 layers) and prediction head (2 layers); the defaults are the paper's (Sec. 5)."""

    hidden: int = 4096
    """Width of the hidden layers of both heads."""
    out: int = 256
    """Width of the output: the dimension in which queries and keys are compared."""

    def __post_init__(self) -> None:
        positive(self, "hidden", "out")


@dataclass(frozen=True)
class MethodConfig:
    """The self-supervised method; the defaults are the paper's for ViT (Sec. 3 and 5)."""

    name: str = "mocov3"
    """File name in `trainer/methods/` of the method."""
    temperature: float = 0.2
    """Temperature of the contrastive loss (cosine similarities are divided by it)."""
    momentum: float = 0.99
    """Share of its old value that the momentum encoder keeps at a step, 0 to 1 (at the start of a "cosine")."""
    momentum_schedule: MomentumSchedule = "constant"
    """Constant as in the paper, or a half cosine from `momentum` to 1 over the run, as in the published code."""
    patch_projection: PatchProjection = "learned"
    """Learned, or frozen at its random start: the paper's trick for stability (Sec. 4.2)."""

    def __post_init__(self) -> None:
        positive(self, "temperature")
        fraction(self, "momentum")
        choice(self, "momentum_schedule", MomentumSchedule)
        choice(self, "patch_projection", PatchProjection)


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning rate; the defaults are the paper's for ViT (Sec. 5), without a warm-up."""

    name: OptimizerName = "adamw"
    """AdamW, or LARS (arXiv 1708.03888)."""
    base_lr: float = 1.5e-4
    """Peak learning rate for a global batch of 256; the one used is base_lr x batch size / 256."""
    weight_decay: float = 0.1
    """With adamw decoupled and on every parameter, with lars added to the gradient of matrices only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw only: decay per step of the running mean of the gradient and of its square."""
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

    def __post_init__(self) -> None:
        choice(self, "name", OptimizerName)
        choice(self, "schedule", LrSchedule)
        positive(self, "base_lr", "trust_coefficient")
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
        unused = ("momentum", "trust_coefficient") if self.name == "adamw" else ("betas",)
        without_effect(self, f"with optimizer {self.name!r}", *unused)
