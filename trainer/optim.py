"""The optimizer of a run: torch's AdamW, timm's LAMB, our LARS or StableAdamW; lr is that of the global batch."""

__all__ = ["build_optimizer", "set_lr"]

from typing import Any

from timm.optim.lamb import Lamb
from torch import nn
from torch.optim import AdamW, Optimizer

from .config import OptimConfig
from .lars import LARS
from .stable_adamw import StableAdamW


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> Optimizer:
    """An optimizer over the trainable parameters of `model`; frozen ones are not in it.

    AdamW, StableAdamW and LAMB decay every parameter, LARS the matrices only. A model may have `groups`: a dict from
    the start of parameters' names to `{"lr_scale": 0.2}` (their learning rate in units of the others') or
    `{"frozen_steps": 313}` (their learning rate is 0 for so many steps at the start). LAMB's own clipping of the
    gradient, on by default in timm, is off.

    Raises ValueError if nothing is trainable.

    >>> optimizer = build_optimizer(nn.Linear(3, 2), OptimConfig(), lr=1e-3)
    >>> optimizer.param_groups[0]["weight_decay"]
    0.1
    """
    groups = _groups(model)
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise ValueError("the model has no trainable parameter: nothing would be optimized, so unfreeze some.")
    if config.name == "lars":
        return LARS(groups, lr, config.momentum, config.weight_decay, config.trust_coefficient)
    if config.name == "lamb":
        return Lamb(groups, lr, betas=config.betas, weight_decay=config.weight_decay, max_grad_norm=None)
    if config.name == "stableadamw":
        return StableAdamW(groups, lr, config.betas, weight_decay=config.weight_decay)
    # The fused step is one call for all parameters; a small ViT spends a tenth of a step in the others.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return AdamW(groups, lr, config.betas, weight_decay=config.weight_decay, fused=fused)


def set_lr(optimizer: Optimizer, lr: float, step: int = 0) -> None:
    """Set the learning rate of every group, before the step with this number (0 is the first).

    >>> optimizer = build_optimizer(nn.Linear(3, 2), OptimConfig(), lr=1e-3)
    >>> set_lr(optimizer, 0.25)
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """
    for group in optimizer.param_groups:
        frozen = step < group.get("frozen_steps", 0)
        group["lr"] = 0.0 if frozen else lr * group.get("lr_scale", 1.0)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in the model's order, those with options of their own in groups after the others."""
    special: dict[str, dict[str, float]] = getattr(model, "groups", {})
    groups: dict[str, dict[str, Any]] = {"": {"params": []}}
    groups |= {prefix: {"params": [], **options} for prefix, options in special.items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            prefix = next((p for p in special if name.startswith(p)), "")
            groups[prefix]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
