"""The largest absolute gradient of every layer (the L-infinity norm), in the unit of the gradient itself."""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

__all__ = ["GradMax"]

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import ByLayer, Layers, Look, TensorSensor
from ._piece import Piece

GRAD_MAX = Series(
    "grad_max", ("layer", "step"), doc="largest absolute gradient of each layer, before clipping; NaN: no gradient"
)


class GradMax(TensorSensor):
    """`grad_max: f32[L]`, max |g| over all weights of a layer: one weight that explodes, which a norm dilutes.

    NaN: no gradient (frozen). Inf: a gradient that holds Inf or NaN.

    Cost: one pass over the gradients a step. No host sync.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[3.0, -4.0]])
    >>> GradMax(model).observe()["grad_max"]
    tensor([4.])
    """

    series: ClassVar[tuple[Series, ...]] = (GRAD_MAX,)
    cost: ClassVar[str] = "one pass over the gradients a step"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(self, layers: Layers | nn.Module) -> None:
        self._by_layer = ByLayer(layers)
        self.layers = self._by_layer.layers
        self.loss_scale: Tensor | float | None = None

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    def look(self) -> Look:
        """`{"grad_max": f32[L]}` of the gradients as they are now."""
        largest = self._by_layer.max(self._by_layer.with_gradient(), _maxima)
        scale = 1.0 if self.loss_scale is None else self.loss_scale
        return Look([largest], lambda largest: {"grad_max": (largest / scale).float()})


def _maxima(piece: Piece) -> Tensor:
    grads = [g if g.numel() else g.new_zeros(1) for g in piece.gradients()]  # an empty tensor has no maximum
    if grads[0].device.type != "cpu":
        return torch.stack(torch._foreach_norm(grads, math.inf))
    # On a CPU that norm is not vectorised, and eight times slower than the two extremes.
    low, high = (torch.stack(ends) for ends in zip(*(torch.aminmax(g) for g in grads), strict=True))
    return torch.maximum(-low, high)
