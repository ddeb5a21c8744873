"""Fig. 6: a frozen random patch projection against a learned one in SimCLR and BYOL (ViT-B/16, 100 epochs).

It brings 0.8 and 1.3 points; the accuracies themselves, and BYOL's momentum (0.99 here), are not stated.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

OPTIM = {
    "simclr": {"base_lr": 2e-4, "weight_decay": 0.1},
    "byol": {"base_lr": 1e-4, "weight_decay": 0.03},
}
"""Base learning rate and weight decay of each method."""
_GAIN = {"simclr": "0.8", "byol": "1.3"}

RECIPES = {
    f"fig6-{name}-{patch}": Recipe(
        vit_run(method={"name": name, "patch_projection": patch}, optim=optim),
        f"{'SimCLR' if name == 'simclr' else 'BYOL'}, patch projection {patch}.",
        hardware(),
        f"linear +{_GAIN[name]} over learned" if patch == "frozen" else "",
    )
    for name, optim in OPTIM.items()
    for patch in ("learned", "frozen")
}
