"""Fig. 8 and Table 1: larger models, ViT-BN (BatchNorm in the MLP blocks), and patches of 7 x 7 pixels.

ViT-S and ViT-B are trained for 600 epochs, ViT-L and ViT-H for 300. A patch of 7 takes about 6 times the operations.
"""

__all__ = ["RECIPES"]

from typing import Any

from . import Recipe
from ._paper import hardware, vit_run

_LINEAR = {
    "vit": {"s/16": 73.4, "b/16": 76.7, "l/16": 77.6, "h/14": 78.1},
    "vit-bn": {"s/16": 74.1, "b/16": 77.5, "l/16": 78.6, "h/14": 79.1, "s/7": 77.0, "b/7": 79.5, "l/7": 81.0},
}


def _recipe(kind: str, size: str, linear: float) -> Recipe:
    epochs = 600 if size[0] in "sb" else 300
    vit: dict[str, Any] = {"mlp_norm": "batch"} if kind == "vit-bn" else {}
    config = vit_run(f"vit-{size}", epochs, vit=vit, method={"patch_projection": "frozen"}, optim={"base_lr": 1.5e-4})
    name = "ViT-BN" if kind == "vit-bn" else "ViT"
    # Table 3 has the times of the plain models.
    took = hardware(f"vit-{size}", epochs) if kind == "vit" else ""
    return Recipe(config, f"{name}-{size.upper()} for {epochs} epochs.", took, f"linear {linear}")


RECIPES = {
    f"fig8-{kind}-{size.replace('/', '-')}": _recipe(kind, size, linear)
    for kind, sizes in _LINEAR.items()
    for size, linear in sizes.items()
}
