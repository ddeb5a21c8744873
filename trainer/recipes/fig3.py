"""Fig. 3: LAMB instead of AdamW, at three base learning rates and weight decay 1e-3.

The curves are smooth, but degrade in the middle.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

_LINEAR = {"5e-4": 72.5, "6e-4": 70.9, "8e-4": 66.5}

RECIPES = {
    f"fig3-lr-{lr}": Recipe(
        vit_run(optim={"name": "lamb", "base_lr": float(lr), "weight_decay": 1e-3}),
        f"LAMB at base learning rate {lr}.",
        hardware(),
        f"linear {linear}",
    )
    for lr, linear in _LINEAR.items()
}
