"""ViT-S/16 on ImageNet for 300 epochs, as in the authors' published code: 73.2 % in its linear probe.

Its one difference in method from the paper: the momentum rises from 0.99 to 1 along a half cosine. Its mixed precision
is float16 with a gradient scaler. The batch is 4,096, as for the published weights.
"""

__all__ = ["recipe"]

from dataclasses import replace

from ..config import MethodConfig, TrainConfig
from . import paper_vit_s


def recipe() -> TrainConfig:
    """The paper's ViT-S recipe with the momentum and the precision of the code."""
    method = MethodConfig(temperature=0.2, momentum=0.99, momentum_schedule="cosine", patch_projection="frozen")
    return replace(paper_vit_s.recipe(), method=method, amp="fp16")
