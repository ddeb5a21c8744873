"""A small ViT on Fashion-MNIST whose gradients spike and whose kNN curve dips, in minutes on two CPU cores.

The learning rate is chosen to provoke: base 4e-2 for a batch of 256, held after 150 steps of warm-up, is five times
that of `fashion-vit-tiny`, where the same model trains calmly. It shows the picture of arXiv 2104.02057, Fig. 4: the
gradient of the patch projection spikes, and the accuracy dips. At which step that happens depends on the seed.
"""

__all__ = ["recipe"]

from ..config import AugmentConfig, HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig


def recipe() -> TrainConfig:
    """1,500 steps of 256 images; ViT of 8 blocks, width 32, patches of 7 x 7 pixels."""
    return TrainConfig(
        vit=VitConfig(image_size=28, in_chans=1, patch_size=7, dim=32, depth=8, heads=4),
        heads=HeadConfig(hidden=256, out=64),
        method=MethodConfig(temperature=0.2, momentum=0.99),
        optim=OptimConfig(base_lr=4e-2, weight_decay=0.1, warmup_steps=150, schedule="constant"),
        augment=AugmentConfig(saturation=0.0, hue=0.0, gray_p=0.0),
        batch_size=256,
        steps=1500,
        seed=1,
    )
