"""ViT-B/16 on ImageNet for 300 epochs, as in the paper: 76.5 % in its linear probe.

arXiv 2104.02057, Sec. 5 and Table 1: AdamW at base learning rate 1.5e-4 and weight decay 0.1, 4,096 images a step, 40
epochs of warm-up, temperature 0.2, a constant momentum of 0.99 and a frozen random patch projection. The images are
read from the folder `imagenet`; name another by `--data folder:PATH`.
"""

__all__ = ["recipe"]

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


def recipe() -> TrainConfig:
    """The paper's settings; kNN every 10 steps ("every tens of iterations", appendix)."""
    return TrainConfig(
        vit=VitConfig(image_size=224, in_chans=3, patch_size=16, dim=768, depth=12, heads=12),
        heads=HeadConfig(hidden=4096, out=256),
        method=MethodConfig(temperature=0.2, momentum=0.99, patch_projection="frozen"),
        optim=OptimConfig(base_lr=1.5e-4, weight_decay=0.1, warmup_epochs=40, schedule="cosine"),
        data=DataConfig(dataset="folder:imagenet", workers=16),
        augment=AugmentConfig(),
        probe=ProbeConfig(knn_every=10),
        batch_size=4096,
        epochs=300,
        steps=None,
        amp="bf16",
    )
