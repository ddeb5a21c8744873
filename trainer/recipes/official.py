"""The authors' published code: a momentum that rises to 1 along a half cosine, float16 with a gradient scaler.

That is its one difference in method from the paper. The batch is 4,096, as for the published weights.
"""

__all__ = ["RECIPES"]

from dataclasses import replace

from ..config import MethodConfig, TrainConfig
from . import Recipe
from .paper import RECIPES as PAPER
from .paper import resnet50


def _official(paper: str) -> TrainConfig:
    method = MethodConfig(temperature=0.2, momentum=0.99, momentum_schedule="cosine", patch_projection="frozen")
    return replace(PAPER[paper].config, method=method, amp="fp16")


RECIPES = {
    f"official-vit-{size}": Recipe(
        _official(f"paper-vit-{size}"),
        f"ViT-{size.upper()}/16 for 300 epochs, momentum to 1.",
        PAPER[f"paper-vit-{size}"].hardware,
        f"linear {linear}",
    )
    for size, linear in (("s", 73.2), ("b", 76.7))
} | {"official-r50": Recipe(replace(resnet50(1000), amp="fp16"), "ResNet-50 for 1,000 epochs.", "", "linear 74.6")}
