"""The sizes of a model's parameters, in weights, for a model that is given by name."""

from __future__ import annotations

__all__ = ["parameter_sizes"]

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn


def parameter_sizes(name: str) -> dict[str, int]:
    """`{parameter name: number of weights}` of a timm model, or of what `module:function` returns.

    A timm model is built without memory for its weights. A module is looked for in the current folder too.

    Raises ValueError for a name that is neither, a module or function that is not there, and a function that returns no
    `nn.Module`.

    >>> sum(parameter_sizes("resnet18").values())
    11689512
    """
    model = _from_function(name) if ":" in name else _from_timm(name)
    return {key: parameter.numel() for key, parameter in model.named_parameters()}


def _from_timm(name: str) -> nn.Module:
    import timm

    known = timm.list_models()
    if not timm.is_model(name):
        close = get_close_matches(name, known, 3)
        hint = f" (close: {', '.join(close)})" if close else ""
        raise ValueError(f"{name!r} is no run here and no timm model{hint}: give one of these, or module:function")
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False)


def _from_function(name: str) -> nn.Module:
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        built = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name!r} can't be called ({error}): give module:function, a function without arguments"
        ) from error
    if not isinstance(built, nn.Module):
        raise ValueError(f"{name!r} returns a {type(built).__name__}; it must return an nn.Module")  # noqa: TRY004
    return built
