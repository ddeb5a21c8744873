"""Gradient clipping by the norm of all layers together, or of each one; norms are in loss per weight, as the gradient.

The layers are those of the trace. arXiv 2104.02057, Sec. 4.2, clips the patch projection's gradient alone: with a small
threshold that amounts to freezing it.
"""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

__all__ = ["Clipping", "build_clipping", "clips"]

from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor, nn

from ..traces.schema import GRAD_NORM_CLIPPED
from .config import TrainConfig
from .whole import local

Layers = Mapping[str, Sequence[tuple[str, nn.Parameter]]]


class Clipping:
    """Scales gradients down to the largest norms allowed: `total` over all layers, and `limits` of single layers.

    A layer with a limit is clipped by itself first; then all are scaled together if their norm is above `total`.
    Nothing waits for the device. A norm that is not finite gives NaN gradients, as torch's own clipping does.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> clip = Clipping({"head": list(model.named_parameters())}, total=1.0)
    >>> round(clip(torch.tensor([5.0]))["grad_norm_clipped"].item(), 3)
    1.0
    """

    def __init__(self, layers: Layers, *, total: float = inf, limits: Mapping[str, float] | None = None) -> None:
        self._layers = [[p for _, p in parameters] for parameters in layers.values()]
        self._limits = torch.tensor([(limits or {}).get(name, inf) for name in layers])
        self._total = total

    @torch.no_grad()
    def __call__(self, norms: Tensor) -> dict[str, Tensor]:
        """Clip gradients of these `norms: f32[L]` in place; `{"grad_norm_clipped": f32[L]}`, the norms afterwards.

        NaN is a layer without a gradient, before and after.
        """
        # Like torch's clip_grad_norm_, a hair below the limit, so that no division by 0 is needed.
        self._limits = self._limits.to(norms)
        scale = (self._limits / (norms + 1e-6)).clamp(max=1)
        total = (norms * scale).square().nansum().sqrt()
        scale = scale * (self._total / (total + 1e-6)).clamp(max=1)
        for layer, factor in zip(self._layers, scale.unbind(), strict=True):
            grads = [local(p.grad) for p in layer if p.requires_grad and p.grad is not None]
            if grads:
                torch._foreach_mul_(grads, factor)
        return {GRAD_NORM_CLIPPED.name: norms * scale}


def clips(config: TrainConfig) -> bool:
    """Whether `optim.clip` or `method.patch_projection` asks for clipping.

    >>> clips(TrainConfig())
    False
    """
    return config.optim.clip != "off" or config.method.patch_projection == "clip"


def build_clipping(config: TrainConfig, layers: Layers) -> Clipping | None:
    """The clipping of a run; None for none. A patch projection's own limit takes the place of the common one."""
    if not clips(config):
        return None
    optim, method = config.optim, config.method
    limits = dict.fromkeys(layers, optim.clip_norm) if optim.clip == "layer" else {}
    if method.patch_projection == "clip":
        limits["patch_embed"] = method.patch_clip
    return Clipping(layers, total=optim.clip_norm if optim.clip == "global" else inf, limits=limits)
