"""ViT-S/16 on ImageNet for 300 epochs, as in the paper: 72.5 % in its linear probe.

arXiv 2104.02057, Table 1 and Table 2: width 384 and, unlike elsewhere, 12 heads; all else as in `paper-vit-b`.
"""

__all__ = ["recipe"]

from dataclasses import replace

from ..config import TrainConfig, VitConfig
from . import paper_vit_b


def recipe() -> TrainConfig:
    """The paper's ViT-B recipe with the smaller model."""
    small = VitConfig(image_size=224, in_chans=3, patch_size=16, dim=384, depth=12, heads=12)
    return replace(paper_vit_b.recipe(), vit=small)
