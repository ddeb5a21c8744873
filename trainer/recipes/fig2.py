"""Fig. 2: base learning rates of ViT-B/16, 100 epochs of ImageNet at batch 4,096.

The smallest is stable but fits less, the largest has more dips.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

_LINEAR = {"0.5e-4": 70.4, "1.0e-4": 72.2, "1.5e-4": 71.7}

RECIPES = {
    f"fig2-lr-{lr}": Recipe(
        vit_run(optim={"base_lr": float(lr)}), f"Base learning rate {lr}.", hardware(), f"linear {linear}"
    )
    for lr, linear in _LINEAR.items()
}
