"""The recipes, one a file: the docstring of `x.py` says what it reproduces, its `recipe()` returns the configuration.

The folder is the registry: a new file is a new recipe. On the command line `fashion-vit-tiny` is `fashion_vit_tiny.py`.
"""

__all__ = ["load_recipe", "recipe_names", "summary"]

import pkgutil
from importlib import import_module
from types import ModuleType

from ..config import TrainConfig


def recipe_names() -> list[str]:
    """The recipes in this folder, as they are written on the command line.

    >>> "paper-vit-b" in recipe_names()
    True
    """
    return sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(__path__))


def load_recipe(name: str) -> TrainConfig:
    """The configuration of the recipe `name`; ValueError lists the known ones.

    >>> load_recipe("paper-vit-b").lr
    0.0024
    """
    return _module(name).recipe()


def summary(name: str) -> str:
    """The first sentence of the recipe's docstring.

    >>> summary("paper-vit-b")
    'ViT-B/16 on ImageNet for 300 epochs, as in the paper: 76.5 % in its linear probe.'
    """
    return (_module(name).__doc__ or "").strip().splitlines()[0]


def _module(name: str) -> ModuleType:
    if name.replace("_", "-") not in recipe_names():
        raise ValueError(f"no recipe {name!r}: choose one of {', '.join(recipe_names())}.")
    return import_module(f"{__name__}.{name.replace('-', '_')}")
