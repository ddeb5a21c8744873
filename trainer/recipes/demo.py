"""The demo: a small ViT on Fashion-MNIST whose gradients spike and whose kNN curve dips, in minutes on a CPU.

The learning rate is chosen to provoke: base 4e-2 for a batch of 256, held after 150 steps of warm-up, is five times
that of `fashion-vit-tiny`, where the same model trains calmly. It shows the picture of arXiv 2104.02057, Fig. 4: the
gradient of the patch projection spikes, and the accuracy dips. At which step that happens depends on the seed.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._fashion import fashion_run

RECIPES = {
    "demo": Recipe(
        fashion_run(base_lr=4e-2, schedule="constant", seed=1),
        "A learning rate that is too high: spikes and dips as in Fig. 4.",
        "1 CPU core, 5 min",
    ),
}
