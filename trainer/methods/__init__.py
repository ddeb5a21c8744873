"""The self-supervised methods, one a file: a file here named `x.py` with a function `build` is the method "x".

`build(vit, heads, method)` returns a module whose `forward(x1, x2, momentum)` takes two views `f32[N, C, H, W]` of
the same images and the momentum of this step, and returns an `Output`. Its trainable parameters are named
`encoder.backbone.*`, `encoder.projector.*` and so on, in the order of the data flow.
"""

__all__ = ["Method", "Output", "build_method", "method_names"]

from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ..config import TrainConfig


class Output(NamedTuple):
    """What one forward pass of a method gives; every tensor stays on the device."""

    loss: Tensor
    """0-dim, with a gradient."""
    logs: dict[str, Tensor]
    """Further scalars by name, 0-dim, without a gradient."""
    features: Tensor
    """`[2N, D]` backbone features (class token), first view's first, without a gradient."""


class Method(Protocol):
    """The module that `build` returns (an `nn.Module`)."""

    def __call__(self, x1: Tensor, x2: Tensor, momentum: float) -> Output:
        """One forward pass over two views `[N, C, H, W]` of the same images."""
        ...


def build_method(config: TrainConfig) -> nn.Module:
    """The method that `config.method.name` names, with fresh weights from torch's global random generator.

    Raises ValueError for an unknown name.

    >>> sum(p.numel() for p in build_method(TrainConfig()).parameters() if p.requires_grad)
    227744
    """
    name = config.method.name
    if name not in method_names():
        raise ValueError(f"method {name!r} is unknown: choose one of {', '.join(method_names())}.")
    module = import_module(f"{__name__}.{name}")
    return module.build(config.vit, config.heads, config.method)


def method_names() -> list[str]:
    """The names of the methods, sorted.

    >>> "mocov3" in method_names()
    True
    """
    return sorted(found.name for found in iter_modules(__path__))
