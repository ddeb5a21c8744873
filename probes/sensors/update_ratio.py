"""How far a step moves a layer: the norm of its update over the norm of its weights, without unit."""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

__all__ = ["UpdateRatio"]

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import ByLayer, Layers, Look, TensorSensor, carry_out
from ._piece import Piece, floats, squared_norms
from ._sampling import Sampling

UPDATE_RATIO = Series(
    "update_ratio",
    ("layer", "step"),
    doc="L2 norm of this step's change of the weights over that of the weights before; NaN: frozen, or not sampled",
)


class UpdateRatio(Sampling, TensorSensor):
    """`update_ratio: f32[L]`, ‖w_after − w_before‖ / ‖w_before‖ over the weights of a layer that are not frozen.

    It is **measured, not predicted**: the weights are copied before the step and compared after it. So it is right for
    every optimizer, with clipping, weight decay, loss scaling, and steps that the optimizer leaves out. Working it out
    from Adam's state would save the copy, and be wrong as soon as anything acts on the gradients after the look. The
    copy is made every `every` steps (10) into a buffer that is kept, so its price is memory for one more model.

    The value is known after the step only: `observe()` returns NaN, and `after_step()`, which `Recorder.after_step`
    calls, the value. NaN: frozen, not sampled, or the optimizer was not called (a GradScaler skipped an overflow).
    Inf: weights that are not finite. A layer whose weights were all 0 reads Inf.

    Raises ValueError for `every` below 1.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 4.0]])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> sensor = UpdateRatio(model)
    >>> model.weight.grad = torch.tensor([[0.0, 5.0]])
    >>> _ = sensor.observe()
    >>> optimizer.step()
    >>> sensor.after_step()["update_ratio"]
    tensor([0.1000])
    """

    series: ClassVar[tuple[Series, ...]] = (UPDATE_RATIO,)
    cost: ClassVar[str] = "a copy of the weights and 3 passes over them every 10 steps; memory for one more model"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(self, layers: Layers | nn.Module, *, every: int = 10) -> None:
        super().__init__(every)
        self._by_layer = ByLayer(layers)
        self.layers = self._by_layer.layers
        self._copies: dict[int, Tensor] = {}  # kept from sample to sample
        self._members: list[int] = []  # of the copy at hand
        self._before = self._by_layer.unknown  # squared norms of the copies, by layer

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    def look(self) -> Look:
        """Copy the weights if it is time to; `{"update_ratio": f32[L]}`, all NaN until the step is over."""
        self._members = self._by_layer.trainable() if self.take_turn() else []

        def then(squares: Tensor) -> dict[str, Tensor]:
            self._before = squares
            return {"update_ratio": self._by_layer.unknown}

        return Look([self._by_layer.sum(self._members, self._copy)], then)

    def after_step(self) -> dict[str, Tensor]:
        """`{"update_ratio": f32[L]}` of the step just made; nothing if its weights were not copied."""
        members, self._members = self._members, []
        if not members:
            return {}
        return carry_out([Look([self._by_layer.sum(members, self._moved)], self._ratio)])[0]

    def _copy(self, piece: Piece) -> Tensor:
        for i, weight in zip(piece.members, piece.own_weights(), strict=True):
            if i not in self._copies:
                self._copies[i] = torch.empty_like(weight)
            self._copies[i].copy_(weight)
        return piece.weight_squares()

    def _moved(self, piece: Piece) -> Tensor:
        copies = floats([self._copies[i] for i in piece.members])
        return squared_norms(torch._foreach_sub(piece.weights(), copies))

    def _ratio(self, moved: Tensor) -> dict[str, Tensor]:
        ratio = (moved / self._before).sqrt()
        return {"update_ratio": torch.where(moved.isinf(), moved, ratio).float()}
