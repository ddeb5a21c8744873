"""What the recipes on Fashion-MNIST share: a ViT of 8 blocks and width 32, 256 images a step."""

__all__ = ["fashion_run"]

from typing import Any, Literal

from ..config import AugmentConfig, HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig


def fashion_run(
    *,
    base_lr: float = 8e-3,
    schedule: Literal["cosine", "constant"] = "cosine",
    method: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    steps: int = 1500,
    seed: int = 0,
) -> TrainConfig:
    """1,500 steps (6.4 epochs), 150 of them warm-up; patches of 7 x 7 pixels."""
    the_method: dict[str, Any] = {"temperature": 0.2, "momentum": 0.99}
    the_optim: dict[str, Any] = {"base_lr": base_lr, "weight_decay": 0.1, "warmup_steps": 150, "schedule": schedule}
    return TrainConfig(
        vit=VitConfig(image_size=28, in_chans=1, patch_size=7, dim=32, depth=8, heads=4),
        heads=HeadConfig(hidden=256, out=64),
        method=MethodConfig(**the_method | (method or {})),
        optim=OptimConfig(**the_optim | (optim or {})),
        augment=AugmentConfig(saturation=0.0, hue=0.0, gray_p=0.0),
        batch_size=256,
        steps=steps,
        seed=seed,
    )
