"""What the recipes of arXiv 2104.02057 share: ViT on ImageNet with AdamW, 4,096 images a step (Sec. 4 and 5)."""

__all__ = ["TPU_HOURS", "hardware", "vit_run"]

from typing import Any

from ..config import (
    AugmentConfig,
    DataConfig,
    HeadConfig,
    MethodConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
    VitConfig,
)
from ..config_backbone import vit_of_size

TPU_HOURS = {"vit-s/16": (256, 1.2), "vit-b/16": (256, 2.1), "vit-l/16": (256, 6.1), "vit-h/14": (512, 9.8)}
"""TPU v3 cores, and hours for 100 epochs (Table 3)."""


def vit_run(
    size: str = "vit-b/16",
    epochs: float = 100,
    *,
    batch_size: int = 4096,
    vit: dict[str, Any] | None = None,
    heads: dict[str, Any] | None = None,
    method: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    knn_every: int = 10,
) -> TrainConfig:
    """The paper's run of a ViT, a learned patch projection at base lr 1.0e-4, with the fields given changed.

    The images are read from the folder `imagenet`; name another by `--data folder:PATH`. The warm-up is 40 epochs in
    all; kNN is measured every 10 steps ("every tens of iterations", appendix).
    """
    the_method: dict[str, Any] = {"temperature": 0.2, "momentum": 0.99}
    the_optim: dict[str, Any] = {"base_lr": 1.0e-4, "weight_decay": 0.1, "warmup_epochs": 40}
    return TrainConfig(
        vit=vit_of_size(size, VitConfig(image_size=224, in_chans=3, **(vit or {}))),
        heads=HeadConfig(**(heads or {})),
        method=MethodConfig(**the_method | (method or {})),
        optim=OptimConfig(**the_optim | (optim or {})),
        data=DataConfig(dataset="folder:imagenet", workers=16),
        augment=AugmentConfig(),
        probe=ProbeConfig(knn_every=knn_every),
        batch_size=batch_size,
        epochs=epochs,
        steps=None,
        amp="bf16",
    )


def hardware(size: str = "vit-b/16", epochs: float = 100) -> str:
    """What the paper's run of `epochs` epochs took (Table 3).

    >>> hardware("vit-b/16", 300)
    '256 TPU v3 cores, 6.3 h'
    """
    cores, hours = TPU_HOURS[size]
    return f"{cores} TPU v3 cores, {hours * epochs / 100:.3g} h"
