"""The recipes by name; a file here holds those of one figure or table, or of one family.

The folder is the registry: `RECIPES` of every file, a dict from name to `Recipe`, is on the command line. A file whose
name begins with an underscore holds what several share.
"""

__all__ = ["Recipe", "load_recipe", "recipe_groups", "recipe_names", "summary"]

import pkgutil
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from ..config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """A configuration, and what it stands for."""

    config: TrainConfig
    reproduces: str
    """What it reproduces, in a sentence."""
    hardware: str = ""
    """What it needs, or what the published run took."""
    published: str = ""
    """The published accuracy in percent, and of which evaluation; empty where there is none."""


def recipe_names() -> list[str]:
    """All recipes, in the order of the files and of the recipes in them.

    >>> "paper-vit-b" in recipe_names()
    True
    """
    return [name for group in recipe_groups().values() for name in group]


def load_recipe(name: str) -> TrainConfig:
    """The configuration of the recipe `name`; ValueError lists those with a similar name.

    >>> load_recipe("fig2-lr-1.5e-4").lr
    0.0024
    """
    return _recipe(name).config


def summary(name: str) -> str:
    """What the recipe reproduces, in a sentence.

    >>> summary("paper-vit-b")
    'ViT-B/16 for 300 epochs.'
    """
    return _recipe(name).reproduces


@cache
def recipe_groups() -> dict[str, dict[str, Recipe]]:
    """The recipes by group, of which a file is one; the group is called by the first sentence of the file.

    >>> len(recipe_groups()["Fig. 2: base learning rates of ViT-B/16, 100 epochs of ImageNet at batch 4,096."])
    3
    """
    groups: dict[str, dict[str, Recipe]] = {}
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            module = import_module(f"{__name__}.{found.name}")
            groups[(module.__doc__ or "").strip().splitlines()[0]] = module.RECIPES
    return groups


def _recipe(name: str) -> Recipe:
    for group in recipe_groups().values():
        if name in group:
            return group[name]
    close = get_close_matches(name, recipe_names(), 5, 0.5)
    known = f"did you mean {', '.join(close)}?" if close else "the small ones are demo and fashion-vit-tiny."
    raise ValueError(f"no recipe {name!r}: {known} `foreshock train --list` shows all {len(recipe_names())}.")
