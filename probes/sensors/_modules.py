"""The module whose output is a layer's: found from the names of the layer's parameters."""

from __future__ import annotations

__all__ = ["first_tensor", "layer_modules", "refuse_compiled"]

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ._by_layer import Layers

_COMPILED = (
    "{who} reads {what} by forward hooks, which torch.compile leaves out of a model that it has compiled: leave this "
    "sensor out of a compiled run"
)


def layer_modules(model: nn.Module, layers: Layers) -> list[nn.Module | None]:
    """The innermost module that holds all parameters of a layer, for each of `layers`; None if it holds others' too.

    So a bare parameter of the model, such as a class token, belongs to no module of its own.

    >>> model = nn.Sequential()
    >>> model.patch_embed, model.head = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    >>> layers = {name: [(n, p) for n, p in model.named_parameters() if n.startswith(name)]
    ...           for name in ("patch_embed", "head")}
    >>> [type(module).__name__ for module in layer_modules(model, layers)]
    ['Linear', 'Sequential']
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    owner = {name: layer for layer, parameters in layers.items() for name, _ in parameters}
    found = []
    for layer, parameters in layers.items():
        path = ".".join(_shared(name.split(".")[:-1] for name, _ in parameters))
        module = modules.get(path)
        start = path + "." if path else ""
        alone = all(of == layer for name, of in owner.items() if name.startswith(start))
        # A list is never called itself.
        found.append(module if alone and not isinstance(module, nn.ModuleList | nn.ModuleDict) else None)
    return found


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor in a module's output: itself, or in a tuple, list, dict or dataclass.

    >>> import torch
    >>> first_tensor({"logits": torch.ones(2)}).tolist()
    [1.0, 1.0]
    """
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, Mapping):
        parts: Iterable[Any] = output.values()
    else:
        parts = (
            output if isinstance(output, tuple | list) else vars(output).values() if hasattr(output, "__dict__") else ()
        )
    return next((tensor for part in parts if (tensor := first_tensor(part)) is not None), None)


def refuse_compiled(model: nn.Module, who: str, what: str) -> None:
    """Raise ValueError if `model`, or a module in it, has been through torch.compile."""
    for module in model.modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(_COMPILED.format(who=who, what=what))


def _shared(paths: Iterable[list[str]]) -> list[str]:
    prefix, *rest = paths
    for path in rest:
        same = 0
        while same < min(len(prefix), len(path)) and prefix[same] == path[same]:
            same += 1
        prefix = prefix[:same]
    return prefix
