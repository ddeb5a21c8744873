"""Fashion-MNIST: the demo's model by every method and treatment, calm, in minutes on a CPU.

Base learning rate 8e-3 with a half cosine to 0, where MoCo v3 has no spikes. kNN accuracies were measured here, in the
training's own queue of augmented crops; they depend on seed and number of threads in the second decimal.
"""

__all__ = ["RECIPES"]

from dataclasses import replace
from typing import Any

from ..config import HeadConfig, ResNetConfig, TrainConfig, VitConfig
from . import Recipe
from ._fashion import fashion_run

CPU = "1 CPU core, 5 min"


def _method(name: str, **settings: Any) -> TrainConfig:
    return fashion_run(method={"name": name, **settings})


def _treated(treatment: str, **settings: Any) -> TrainConfig:
    return fashion_run(method={"patch_projection": treatment, **settings})


def _resnet() -> TrainConfig:
    """ResNet-18 on 32 x 32 pixels, with the heads of the paper's ResNet-50."""
    return replace(
        fashion_run(
            method={"momentum": 0.996, "momentum_schedule": "cosine", "temperature": 1.0},
            optim={"name": "lars", "base_lr": 0.3, "weight_decay": 1.5e-6},
            steps=300,
        ),
        backbone="resnet",
        vit=VitConfig(),
        resnet=ResNetConfig(name="resnet18", image_size=32, in_chans=1),
        heads=HeadConfig(hidden=256, out=64, projector_layers=2, predictor_last_bn=False),
    )


_SWAV = {"temperature": 0.1, "prototypes": 300, "prototype_frozen_steps": 234}

RECIPES = {
    "fashion-vit-tiny": Recipe(fashion_run(), "MoCo v3 as in the paper, but for the sizes.", CPU, "kNN 62 (ours)"),
    "fashion-vit-frozen": Recipe(_treated("frozen"), "The patch projection frozen at its random start.", CPU),
    "fashion-vit-slow": Recipe(_treated("slow"), "A fifth of the learning rate for the patch projection.", CPU),
    "fashion-vit-clip": Recipe(_treated("clip"), "The gradient of the patch projection clipped to 0.01.", CPU),
    "fashion-vit-batch-norm": Recipe(_treated("batch_norm"), "BatchNorm after the patch projection.", CPU),
    "fashion-vit-weight-norm": Recipe(_treated("weight_norm"), "WeightNorm on the patch projection.", CPU),
    "fashion-vit-simclr": Recipe(_method("simclr"), "SimCLR on the same ViT.", CPU),
    "fashion-vit-byol": Recipe(
        replace(_method("byol"), heads=HeadConfig(hidden=256, out=64)), "BYOL on the same ViT.", CPU
    ),
    "fashion-vit-swav": Recipe(_method("swav", momentum=0.99, **_SWAV), "SwAV with 300 prototypes on it.", CPU),
    "fashion-resnet18": Recipe(_resnet(), "ResNet-18 by MoCo v3 with LARS, 300 steps.", "2 CPU cores, 10 min"),
}
