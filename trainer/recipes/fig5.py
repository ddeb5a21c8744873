"""Fig. 5: a frozen random patch projection against a learned one (MoCo v3, ViT-B/16, 100 epochs, batch 4,096).

The gain grows with the learning rate: 0.4, 0.6 and 1.7 points.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

_LINEAR = {
    ("frozen", "1.5e-4"): 73.4,
    ("learned", "1.5e-4"): 71.7,
    ("frozen", "1.0e-4"): 72.8,
    ("learned", "1.0e-4"): 72.2,
}

RECIPES = {
    f"fig5-{patch}" + ("" if lr == "1.5e-4" else f"-lr-{lr}"): Recipe(
        vit_run(method={"patch_projection": patch}, optim={"base_lr": float(lr)}),
        f"Patch projection {patch}, base learning rate {lr}.",
        hardware(),
        f"linear {linear}",
    )
    for (patch, lr), linear in _LINEAR.items()
}
