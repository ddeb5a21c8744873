"""Table 4 and Fig. 7: four frameworks on the same ViT, 300 epochs of ImageNet, the patch projection frozen.

Learning rates and decays are those of Fig. 6; SwAV's are not stated. The ResNet-50 rows of the other frameworks are
another paper's (arXiv 2011.10566), so only MoCo v3's is here.
"""

__all__ = ["RECIPES"]

from ..config import TrainConfig
from . import Recipe
from ._paper import hardware, vit_run
from .fig6 import OPTIM
from .paper import RECIPES as PAPER

_LINEAR = {
    ("mocov3", "s"): 72.5,
    ("mocov3", "b"): 76.5,
    ("simclr", "s"): 69.0,
    ("simclr", "b"): 73.9,
    ("byol", "s"): 71.0,
    ("byol", "b"): 73.9,
    ("swav", "s"): 67.1,
    ("swav", "b"): 71.6,
}
_NAMES = {"mocov3": "MoCo v3", "simclr": "SimCLR", "byol": "BYOL", "swav": "SwAV"}


def _run(name: str, size: str) -> TrainConfig:
    if name == "mocov3":
        return PAPER[f"paper-vit-{size}"].config
    own = {"temperature": 0.1} if name == "swav" else {}
    method = {"name": name, "patch_projection": "frozen", **own}
    return vit_run(f"vit-{size}/16", 300, method=method, optim=OPTIM.get(name))


RECIPES = {
    f"table4-{name}-vit-{size}": Recipe(
        _run(name, size),
        f"{_NAMES[name]} with ViT-{size.upper()}/16.",
        hardware(f"vit-{size}/16", 300),
        f"linear {linear}",
    )
    for (name, size), linear in _LINEAR.items()
} | {"table4-mocov3-r50": PAPER["paper-r50"]}
