"""The L2 norm of every layer's weights, in the unit of the weights."""

from __future__ import annotations

__all__ = ["WeightNorm"]

from typing import ClassVar, Self

from torch import nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import ByLayer, Layers, Look, TensorSensor
from ._piece import Piece
from ._sampling import Sampling

WEIGHT_NORM = Series("weight_norm", ("layer", "step"), doc="L2 norm of each layer's weights before this step's update")


class WeightNorm(Sampling, TensorSensor):
    """`weight_norm: f32[L]`, the L2 norm over all weights of a layer before this step's update.

    Frozen layers are measured too: they have weights. NaN in the steps between two samples. Inf: a weight that is not
    finite. Raises ValueError for `every` below 1.

    Cost: one pass over the weights every `every` steps (10). No host sync.

    >>> import torch
    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 4.0]])
    >>> WeightNorm(model).observe()["weight_norm"]
    tensor([5.])
    """

    series: ClassVar[tuple[Series, ...]] = (WEIGHT_NORM,)
    cost: ClassVar[str] = "one pass over the weights every 10 steps"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(self, layers: Layers | nn.Module, *, every: int = 10) -> None:
        super().__init__(every)
        self._by_layer = ByLayer(layers)
        self.layers = self._by_layer.layers

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    def look(self) -> Look:
        """`{"weight_norm": f32[L]}` of the weights as they are now."""
        if not self.take_turn():
            return Look((), lambda: {"weight_norm": self._by_layer.unknown})
        squares = self._by_layer.sum(range(len(self._by_layer.parameters)), Piece.weight_squares)
        return Look([squares], lambda squares: {"weight_norm": squares.sqrt().float()})
