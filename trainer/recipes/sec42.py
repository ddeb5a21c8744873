"""Sec. 4.2: SwAV, and other treatments of the patch projection (ViT-B/16, 100 epochs, batch 4,096).

SwAV's loss diverges to NaN when it is not stable; `--nonfinite record` keeps the trace going. Its learning rate is not
stated ("the largest stable one"), nor its number of prototypes: here 1.0e-4 and 3,000. The treatments are reported in
words only: BatchNorm and WeightNorm do not help, clipping does if its threshold is small. `slow` is a later remedy
(arXiv 2304.07193).
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

_SWAV = {"learned": "65.8", "frozen": "66.4"}
_TREATMENTS = {
    "batch_norm": "BatchNorm after the patch projection: no more stable.",
    "weight_norm": "WeightNorm on the patch projection: no more stable.",
    "clip": "The patch projection's gradient clipped: more stable.",
    "slow": "A fifth of the learning rate for the patch projection.",
}

RECIPES = {
    f"sec42-swav-{patch}": Recipe(
        vit_run(method={"name": "swav", "temperature": 0.1, "patch_projection": patch}),
        f"SwAV, patch projection {patch}.",
        hardware(),
        f"linear {linear}",
    )
    for patch, linear in _SWAV.items()
} | {
    f"sec42-patch-{name.replace('_', '-')}": Recipe(
        vit_run(method={"patch_projection": name}, optim={"base_lr": 1.5e-4}), reproduces, hardware()
    )
    for name, reproduces in _TREATMENTS.items()
}
