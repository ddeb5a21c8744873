"""Settings of the heads and of the self-supervised method, as frozen dataclasses.

A method reads some of these fields only; one that it doesn't read must be at its default (`methods/` refuses it).
"""

__all__ = ["HeadConfig", "MethodConfig"]

from dataclasses import dataclass
from typing import Literal

from .config_checks import choice, fraction, not_negative, positive, without_effect

HeadNorm = Literal["all", "hidden", "none"]
MomentumSchedule = Literal["constant", "cosine"]
PatchProjection = Literal["learned", "frozen", "slow", "clip", "batch_norm", "weight_norm"]


@dataclass(frozen=True)
class HeadConfig:
    """Projection (3 layers) and prediction head (2 layers); the defaults are the paper's (Sec. 5)."""

    hidden: int = 4096
    """Width of the hidden layers of both heads."""
    out: int = 256
    """Width of the output: the dimension in which queries and keys are compared."""
    projector_layers: int = 3
    """Layers of the projection head: 3 for ViT, 2 for ResNet-50."""
    batch_norm: HeadNorm | None = None
    """BatchNorm after all layers, after the hidden ones only, or nowhere; None takes the method's own choice."""
    predictor: bool | None = None
    """Whether a prediction head follows the projection; None takes the method's own choice."""
    predictor_last_bn: bool = True
    """Whether the prediction head ends in a BatchNorm, where all layers have one; False for ResNet-50."""

    def __post_init__(self) -> None:
        positive(self, "hidden", "out", "projector_layers")
        if self.batch_norm is not None:
            choice(self, "batch_norm", HeadNorm)
        if self.predictor is False:
            without_effect(self, "without a predictor", "predictor_last_bn")
        if self.batch_norm in ("hidden", "none"):
            without_effect(self, f"with batch_norm {self.batch_norm!r}", "predictor_last_bn")


@dataclass(frozen=True)
class MethodConfig:
    """The self-supervised method; the defaults are the paper's for ViT (Sec. 3 and 5)."""

    name: str = "mocov3"
    """File name in `trainer/methods/` of the method: mocov3, simclr, byol or swav."""
    temperature: float = 0.2
    """Temperature of a contrastive loss or of SwAV's prediction (cosine similarities are divided by it)."""
    momentum: float = 0.99
    """Share of its old value that a momentum encoder keeps at a step, 0 to 1 (at the start of a "cosine")."""
    momentum_schedule: MomentumSchedule = "constant"
    """Constant as in the paper, or a half cosine from `momentum` to 1 over the run, as in the published code."""
    patch_projection: PatchProjection = "learned"
    """Learned; frozen at its random start, the paper's trick for stability; slow (its own learning rate); its gradient
    clipped; or followed by BatchNorm, or with WeightNorm (Sec. 4.2)."""
    patch_lr_scale: float = 0.2
    """slow only: learning rate of the patch projection in units of the others' (0.2: arXiv 2304.07193)."""
    patch_clip: float = 0.01
    """clip only: largest norm of the patch projection's gradient; towards 0 this becomes frozen."""
    loss_scale: bool = True
    """Multiply a contrastive loss by 2 x temperature (Alg. 1), so that the best lr depends less on temperature."""
    prototypes: int = 3000
    """swav only: number of prototypes, the clusters that crops are assigned to."""
    sinkhorn_epsilon: float = 0.05
    """swav only: softness of the assignment, in units of cosine similarity."""
    sinkhorn_iterations: int = 3
    """swav only: rounds of normalisation that give every prototype the same share of the batch."""
    prototype_frozen_steps: int = 313
    """swav only: steps at the start in which the prototypes stay as they are (an epoch of ImageNet at 4,096)."""

    def __post_init__(self) -> None:
        positive(self, "temperature", "patch_lr_scale", "patch_clip", "prototypes", "sinkhorn_epsilon")
        positive(self, "sinkhorn_iterations")
        not_negative(self, "prototype_frozen_steps")
        fraction(self, "momentum")
        choice(self, "momentum_schedule", MomentumSchedule)
        choice(self, "patch_projection", PatchProjection)
        if self.momentum == 1.0 and self.momentum_schedule == "cosine":
            raise ValueError("momentum_schedule 'cosine' would have no effect from momentum 1.0: start below it.")
        self._check_patch()

    def _check_patch(self) -> None:
        for treatment, name in (("slow", "patch_lr_scale"), ("clip", "patch_clip")):
            if self.patch_projection != treatment:
                without_effect(self, f"with patch_projection {self.patch_projection!r}", name)
        if self.patch_lr_scale == 1.0:
            raise ValueError("patch_lr_scale 1.0 would have no effect: use another, or patch_projection 'learned'.")
