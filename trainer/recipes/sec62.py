"""Sec. 6.2: ablations of ViT-B/16 + MoCo v3, 300 epochs of ImageNet, each one change away from paper-vit-b (76.5).

Without BatchNorm in the heads the batch is 2,048, since 4,096 does not converge.
"""

__all__ = ["RECIPES"]

from typing import Any

from . import Recipe
from ._paper import hardware, vit_run

FROZEN: dict[str, Any] = {"patch_projection": "frozen"}


def _ablation(reproduces: str, linear: float, **changes: Any) -> Recipe:
    method = FROZEN | changes.pop("method", {})
    epochs = changes.pop("epochs", 300)
    size = changes.pop("size", "vit-b/16")
    config = vit_run(size, epochs, method=method, optim={"base_lr": 1.5e-4}, **changes)
    return Recipe(config, reproduces, hardware(size, epochs), f"linear {linear}")


RECIPES = {
    "position-learned": _ablation("A learned position embedding.", 76.1, vit={"position": "learned"}),
    "position-none": _ablation("No position embedding.", 74.9, vit={"position": "none"}),
    "pool-after-norm": _ablation(
        "No class token; LayerNorm, then the mean.", 69.7, vit={"pooling": "norm_then_mean_pool"}
    ),
    "pool": _ablation("No class token, no last LayerNorm; the mean.", 76.3, vit={"pooling": "mean_pool"}),
    "heads-without-bn": _ablation("No BatchNorm in the heads.", 74.4, heads={"batch_norm": "none"}, batch_size=2048),
    "without-predictor": _ablation("No prediction head.", 75.5, heads={"predictor": False}),
    "momentum-0": _ablation("m = 0: keys by the encoder itself.", 74.3, method={"momentum": 0.0}),
    "momentum-0.9": _ablation("m = 0.9.", 75.6, method={"momentum": 0.9}),
    "momentum-0.999": _ablation("m = 0.999.", 75.0, method={"momentum": 0.999}),
    "600-epochs-vit-s": _ablation("ViT-S/16 for 600 epochs.", 73.4, size="vit-s/16", epochs=600),
    "600-epochs-vit-b": _ablation("ViT-B/16 for 600 epochs.", 76.7, epochs=600),
}
RECIPES = {f"sec62-{name}": recipe for name, recipe in RECIPES.items()}
