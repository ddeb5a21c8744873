"""Fig. 1: batch sizes of ViT-B/16, 100 epochs of ImageNet at base lr 1.0e-4.

The larger the batch, the more dips: the curve of 6,144 images is partly restarted.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

_LINEAR = {1024: 71.5, 2048: 72.6, 4096: 72.2, 6144: 69.7}

RECIPES = {
    f"fig1-batch-{batch}": Recipe(
        vit_run(batch_size=batch), f"{batch:,} images a step.", hardware() if batch == 4096 else "", f"linear {linear}"
    )
    for batch, linear in _LINEAR.items()
}
