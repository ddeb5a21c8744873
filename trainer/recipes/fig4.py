"""Fig. 4: gradient magnitude of every layer beside the kNN curve; give --trace.

The paper does not state the run; this is the one of Fig. 2 with the most dips, with kNN at every step.
"""

__all__ = ["RECIPES"]

from . import Recipe
from ._paper import hardware, vit_run

RECIPES = {
    "fig4-spike-and-dip": Recipe(
        vit_run(optim={"base_lr": 1.5e-4}, knn_every=1), "Spikes of the patch projection before dips.", hardware()
    ),
}
