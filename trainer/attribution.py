"""Where a value that is not finite comes from: the first layer of a forward pass that puts one out."""

__all__ = ["first_nonfinite"]

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..probes.layers import group_layers


@torch.no_grad()
def first_nonfinite(model: nn.Module, x1: Tensor, x2: Tensor) -> str | None:
    """The layer whose output is the first that is not finite when `model` sees these views `[N, C, H, W]`.

    "weights of LAYER" if it has such a weight before that, "the images" if they have such a tone; None if all is well.
    The pass is one of training, but changes nothing: BatchNorm's running statistics are put back. It waits for the
    device after every module, so it is for the moment when something has gone wrong.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> model.forward = lambda x1, x2, momentum: nn.Sequential.forward(model, x1 / 0)
    >>> first_nonfinite(model, torch.ones(1, 2), torch.ones(1, 2))
    '0'
    """
    named = dict(model.named_parameters())
    layers = {name: layer for layer, names in group_layers(named).items() for name in names}
    for name, parameter in named.items():
        if not parameter.isfinite().all():
            return f"weights of {layers[name]}"
    if not (x1.isfinite().all() and x2.isfinite().all()):
        return "the images"
    watch = _Watch()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        watch.over(model)
        model(x1, x2, 1.0)  # at a momentum of 1 the momentum encoder stays as it is
    finally:
        watch.end()
        for buffer, saved in buffers:
            buffer.copy_(saved)
    return None if watch.first is None else _layer_of(watch.first, layers)


class _Watch:
    """Hooks on the modules without children, in the order in which they run."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def first(self) -> str | None:
        """The momentum encoder's modules run first, but follow the encoder's, so these come before them."""
        own = [name for name in self._found if not name.startswith("momentum_encoder.")]
        return next(iter(own or self._found), None)

    def over(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(self._hook(name)))

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                self._found.append(name)

        return look


def _layer_of(module: str, layers: dict[str, str]) -> str:
    """The layer of the parameter whose name begins most like the module's."""
    path = module.split(".")
    return layers[max(layers, key=lambda name: _common(path, name.split(".")))]


def _common(a: Iterable[str], b: Iterable[str]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count
