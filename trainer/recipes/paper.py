"""Tables 1, 2 and 3: the paper's models on ImageNet, 300 epochs with a frozen random patch projection.

arXiv 2104.02057, Sec. 5: AdamW at base learning rate 1.5e-4 and weight decay 0.1, 4,096 images a step, 40 epochs of
warm-up, temperature 0.2, momentum 0.99. The ResNet-50 is the appendix's, with LARS.
"""

__all__ = ["RECIPES"]

from typing import Any

from ..config import AugmentConfig, DataConfig, HeadConfig, MethodConfig, OptimConfig, ProbeConfig, TrainConfig
from ..config_backbone import ResNetConfig
from . import Recipe
from ._paper import hardware, vit_run


def _vit(size: str, epochs: float = 300, **vit: Any) -> TrainConfig:
    return vit_run(size, epochs, vit=vit, method={"patch_projection": "frozen"}, optim={"base_lr": 1.5e-4})


def resnet50(epochs: float, momentum: float = 0.996, weight_decay: float = 1.5e-6) -> TrainConfig:
    """MoCo v3 with ResNet-50: LARS at 0.3, temperature 1, a momentum that rises to 1, larger crops."""
    return TrainConfig(
        backbone="resnet",
        resnet=ResNetConfig(),
        heads=HeadConfig(projector_layers=2, predictor_last_bn=False),
        method=MethodConfig(temperature=1.0, momentum=momentum, momentum_schedule="cosine"),
        optim=OptimConfig(name="lars", base_lr=0.3, weight_decay=weight_decay, warmup_epochs=10),
        data=DataConfig(dataset="folder:imagenet", workers=16),
        augment=AugmentConfig(crop_min=0.2),
        probe=ProbeConfig(knn_every=10),
        batch_size=4096,
        epochs=epochs,
        steps=None,
        amp="bf16",
    )


RECIPES = {
    "paper-vit-s": Recipe(
        _vit("vit-s/16"), "ViT-S/16 (12 heads) for 300 epochs.", hardware("vit-s/16", 300), "linear 72.5"
    ),
    "paper-vit-b": Recipe(
        _vit("vit-b/16"),
        "ViT-B/16 for 300 epochs.",
        hardware("vit-b/16", 300),
        "linear 76.5",
    ),
    "paper-vit-l": Recipe(_vit("vit-l/16"), "ViT-L/16 for 300 epochs.", hardware("vit-l/16", 300), "linear 77.6"),
    "paper-vit-h": Recipe(_vit("vit-h/14"), "ViT-H/14 for 300 epochs.", hardware("vit-h/14", 300), "linear 78.1"),
    "paper-r50": Recipe(resnet50(800), "ResNet-50 for 800 epochs, LARS (Sec. 3 and appendix).", "", "linear 73.8"),
}
