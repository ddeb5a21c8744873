"""What the user of `watch` chooses: which parameters form a layer, and which sensors look."""

from __future__ import annotations

__all__ = ["Layers", "choose_layers", "choose_sensors"]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from ..layers import group_layers
from . import Sensor, attach, layer_parameters

Layers = Literal["per-parameter"] | re.Pattern[str] | Callable[[str], str | None] | Mapping[str, Sequence[str]]


def choose_layers(model: nn.Module, layers: Layers | None) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """`{layer: [(name, parameter), ...]}` by the user's choice, by default `group_layers`'.

    Raises ValueError for names that the model lacks and for another word.

    >>> list(choose_layers(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), "per-parameter"))
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    if layers is None:
        return layer_parameters(model)
    if isinstance(layers, Mapping):
        parameters = dict(model.named_parameters(remove_duplicate=False))  # a tied weight by any of its names
        unknown = [name for names in layers.values() for name in names if name not in parameters]
        if unknown:
            raise ValueError(
                f"layers names {unknown[:5]}, which {type(model).__name__} lacks; its parameters are {list(parameters)}"
            )
        return {layer: [(n, parameters[n]) for n in names] for layer, names in layers.items() if names}
    if isinstance(layers, str) and layers != "per-parameter":
        raise ValueError(
            f"layers is {layers!r}; allowed are 'per-parameter', re.compile(...), a function, a dict of parameter names"
        )
    named = dict(model.named_parameters())
    grouped = group_layers(named, pattern=str if isinstance(layers, str) else layers)
    return {layer: [(name, named[name]) for name in names] for layer, names in grouped.items()}


def choose_sensors(
    sensors: Sequence[Sensor | str], model: nn.Module, optimizer: Optimizer, layers: Mapping[str, Any]
) -> dict[str, Any]:
    """The sensors by name; those given by name are built.

    Raises ValueError for an unknown name, one given twice, and for grad_norm, which is always there.
    """
    names = [s if isinstance(s, str) else type(s).__module__.rsplit(".", 1)[-1] for s in sensors]
    if "grad_norm" in names or len(set(names)) < len(names):
        raise ValueError(f"sensors is {names}; give each once, and leave out grad_norm, which is always there")
    built = attach([s for s in sensors if isinstance(s, str)], model, optimizer, layers)
    return {name: built.get(name, s) for name, s in zip(names, sensors, strict=True)}
