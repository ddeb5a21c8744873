"""The self-supervised methods, one a file: a file here named `x.py` with `TRAITS` and `build` is the method "x".

`build(backbone, heads, method)` returns a module whose `forward(x1, x2, momentum)` takes two views `f32[N, C, H, W]` of
the same images and the momentum of this step, and returns an `Output`. Its trainable parameters are named
`encoder.backbone.*`, `encoder.projector.*` and so on, in the order of the data flow. `TRAITS` says which settings it
reads and what its loss would be by chance. A module may have `groups`: options of the optimizer by the start of a
parameter's name (`optim.build_optimizer`).
"""

__all__ = ["Chance", "Method", "Output", "Traits", "build_method", "chance", "method_names", "settled", "traits"]

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ..backbone import parameter_groups
from ..config import HeadConfig, MethodConfig, TrainConfig
from ..config_checks import without_effect

COMMON = frozenset({"name", "patch_projection", "patch_lr_scale", "patch_clip"})


class Output(NamedTuple):
    """What one forward pass of a method gives; every tensor stays on the device."""

    loss: Tensor
    """0-dim, with a gradient."""
    logs: dict[str, Tensor]
    """Further scalars by name, 0-dim, without a gradient."""
    features: Tensor
    """`[2N, D]` backbone features, first view's first, without a gradient."""


class Method(Protocol):
    """The module that `build` returns (an `nn.Module`)."""

    def __call__(self, x1: Tensor, x2: Tensor, momentum: float) -> Output:
        """One forward pass over two views `[N, C, H, W]` of the same images."""
        ...


class Chance(NamedTuple):
    """Two lines between which a healthy loss falls: that of a model that guesses, and that of one that has it all."""

    loss: float
    """Of a guess."""
    formula: str
    """The same in words of numbers."""
    ideal: float
    """Where every positive pair coincides and all others are orthogonal; 0 where the task knows no others."""


@dataclass(frozen=True)
class Traits:
    """What is particular to a method."""

    reads: frozenset[str]
    """Fields of `MethodConfig` that it reads, beside those of the patch projection."""
    head_norm: str
    """`HeadConfig.batch_norm` that None stands for."""
    predictor: bool
    """Whether it has a prediction head."""
    chance: Callable[[MethodConfig, int], Chance | None]
    """Settings and global batch size to the loss of chance; None where there is none."""


def build_method(config: TrainConfig) -> nn.Module:
    """The method that `config.method.name` names, with fresh weights from torch's global random generator.

    Raises ValueError for an unknown name and for settings that this method would not read.

    >>> sum(p.numel() for p in build_method(TrainConfig()).parameters() if p.requires_grad)
    227744
    """
    model = _module(config.method.name).build(config.network, config.heads, config.method)
    model.groups = parameter_groups(config.method) | getattr(model, "groups", {})
    return model


def settled(heads: HeadConfig, method: MethodConfig, own: Traits) -> HeadConfig:
    """The heads with every None replaced by the method's own choice.

    Raises ValueError for a setting of heads or method that the method would not read.
    """
    why = f"with method {method.name!r}"
    unread = [f.name for f in fields(method) if f.name not in own.reads | COMMON]
    without_effect(method, why, *unread)
    if not own.predictor:
        if heads.predictor:
            raise ValueError(f"heads.predictor True: method {method.name!r} has no prediction head, leave it at None.")
        without_effect(heads, f"{why}, which has no prediction head", "predictor_last_bn")
    norm = heads.batch_norm or own.head_norm
    if norm != "all":
        without_effect(heads, f"with BatchNorm after {norm!r} layers", "predictor_last_bn")
    predictor = own.predictor if heads.predictor is None else heads.predictor
    return replace(heads, batch_norm=norm, predictor=predictor)


def chance(config: TrainConfig) -> Chance | None:
    """What a model that guesses has for a loss, and an ideal one; None where the method's loss has no such lines.

    >>> line = chance(TrainConfig(batch_size=256))
    >>> round(line.loss, 3), line.formula, round(line.ideal, 3)
    (4.436, '4 x 0.2 x ln 256', 0.8)
    """
    return traits(config).chance(config.method, config.batch_size)


def traits(config: TrainConfig) -> Traits:
    """The traits of the method that `config.method.name` names; ValueError for an unknown name."""
    return _module(config.method.name).TRAITS


def method_names() -> list[str]:
    """The names of the methods, sorted.

    >>> method_names()
    ['byol', 'mocov3', 'simclr', 'swav']
    """
    return sorted(found.name for found in iter_modules(__path__))


def _module(name: str) -> ModuleType:
    if name not in method_names():
        raise ValueError(f"method {name!r} is unknown: choose one of {', '.join(method_names())}.")
    return import_module(f"{__name__}.{name}")
