"""The direction of every layer's gradient against the step before: a cosine from -1 (turned round) to 1."""

from __future__ import annotations

__all__ = ["GradCosine"]

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import ByLayer, Layers, Look, TensorSensor
from ._piece import Piece
from ._sampling import Sampling

GRAD_COSINE = Series(
    "grad_cosine",
    ("layer", "step"),
    doc="cosine of each layer's gradient with that of the step before, -1 to 1; NaN: either is missing or not finite",
)


class GradCosine(Sampling, TensorSensor):
    """`grad_cosine: f32[L]`, the signed cosine between this step's gradient of a layer and the last step's.

    Near -1 step after step the weights jump to and fro across a valley that is too narrow for the learning rate. With
    `every=E` (10) it is measured at every E-th step, always against the step right before, which alone is copied.

    NaN: frozen, not sampled, or the two steps have not the same weights' gradients, or one is not finite or all 0: a
    broken gradient has no direction, and `grad_norm` tells of it. A GradScaler's factor does not matter to a cosine.
    Raises ValueError for `every` below 1.

    Cost: a copy of the gradients and 3 passes over them every `every` steps; memory for one more model. No host sync.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> sensor = GradCosine(model, every=1)
    >>> for gradient in ([1.0, 0.0], [0.0, 2.0], [0.0, -1.0]):
    ...     model.weight.grad = torch.tensor([gradient])
    ...     print(sensor.observe()["grad_cosine"].item())
    nan
    0.0
    -1.0
    """

    series: ClassVar[tuple[Series, ...]] = (GRAD_COSINE,)
    cost: ClassVar[str] = "a copy of the gradients and 3 passes over them every 10 steps; memory for one more model"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(self, layers: Layers | nn.Module, *, every: int = 10) -> None:
        super().__init__(every)
        self._by_layer = ByLayer(layers)
        self.layers = self._by_layer.layers
        self._copies: dict[int, Tensor] = {}  # kept from sample to sample
        self._last: set[int] = set()  # which of them are the last step's
        self._squares = self._by_layer.unknown  # squared norms of those, by layer

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    def look(self) -> Look:
        """`{"grad_cosine": f32[L]}` of the gradients as they are now."""
        present, owner = self._by_layer.with_gradient(), self._by_layer.owner
        due = self.take_turn()
        changed = {owner[i] for i in self._last ^ set(present)}
        members = [i for i in present if owner[i] not in changed] if due else []
        kept = present if self.due else []  # the next step is a sample, held against this one
        theirs, before = self._squares, self._copies
        if members and kept and members != kept:
            self._copies = {}  # those that this step has still to read must not be overwritten
        self._last = set(kept)

        def keep(piece: Piece) -> Tensor:
            for i, gradient in zip(piece.members, piece.gradients(), strict=True):
                if i in self._copies:
                    self._copies[i].copy_(gradient)
                else:
                    self._copies[i] = gradient.clone()
            return piece.gradient_squares()

        def then(dots: Tensor, ours: Tensor, squares: Tensor) -> dict[str, Tensor]:
            self._squares = squares
            if not members:
                return {"grad_cosine": self._by_layer.unknown}
            cosine = dots / (ours.sqrt() * theirs.sqrt())
            return {"grad_cosine": cosine.where(ours.isfinite() & theirs.isfinite(), math.nan).float()}

        by_layer = self._by_layer
        dots = by_layer.sum(members, lambda piece: _dots(piece.gradients(), [before[i] for i in piece.members]))
        return Look([dots, by_layer.sum(members, Piece.gradient_squares), by_layer.sum(kept, keep)], then)


def _dots(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    return torch.stack([torch.dot(a.flatten(), b.flatten()) for a, b in zip(ours, theirs, strict=True)])
