"""The direction of every layer's gradient against the step before: a cosine from -1 (turned round) to 1."""

from __future__ import annotations

__all__ = ["GradCosine"]

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import ByLayer, Layers, gradients
from ._sampling import Sampling

GRAD_COSINE = Series(
    "grad_cosine",
    ("layer", "step"),
    doc="cosine of each layer's gradient with that of the step before, -1 to 1; NaN: either is missing or not finite",
)


class GradCosine(Sampling):
    """`grad_cosine: f32[L]`, the signed cosine between this step's gradient of a layer and the last step's.

    Near -1 step after step the weights jump to and fro across a valley that is too narrow for the learning rate. With
    `every=E` (10) it is measured at every E-th step, always against the step right before, which alone is copied.

    NaN: frozen, not sampled, or the two steps have not the same weights' gradients, or one is not finite or all 0: a
    broken gradient has no direction, and `grad_norm` tells of it. A GradScaler's factor does not matter to a cosine.
    Raises ValueError for `every` below 1 and for sharded parameters.

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
        self._last: dict[int, Tensor] = {}

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    @torch.no_grad()
    def observe(self) -> dict[str, Tensor]:
        """`{"grad_cosine": f32[L]}` of the gradients as they are now."""
        present = self._by_layer.with_gradient()
        due = self.take_turn()
        owner = self._by_layer.owner
        changed = {owner[i] for i in set(present) ^ self._last.keys()}
        members = [i for i in present if owner[i] not in changed] if due else []
        dots = self._by_layer.reduce(members, self._dots)
        ours = self._by_layer.reduce(members, lambda part: _squares(self._gradients(part)))
        theirs = self._by_layer.reduce(members, lambda part: _squares([self._last[i].flatten() for i in part]))
        cosine = dots / (ours.sqrt() * theirs.sqrt())
        self._keep(present if self.due else [])
        return {"grad_cosine": cosine.float()}

    def _keep(self, present: list[int]) -> None:
        """Copy the gradients when the next step is a sample, into the buffers of the last copy where there are any."""
        last = dict(self._last) if present else {}
        self._last = {}
        for i, gradient in zip(present, gradients([self._by_layer.parameters[i] for i in present]), strict=True):
            buffer = last.get(i)
            self._last[i] = gradient.clone() if buffer is None else buffer.copy_(gradient)

    def _gradients(self, part: list[int]) -> list[Tensor]:
        return [g.flatten() for g in gradients([self._by_layer.parameters[i] for i in part])]

    def _dots(self, part: list[int]) -> Tensor:
        theirs = [self._last[i].flatten() for i in part]
        return torch.stack([torch.dot(a, b) for a, b in zip(self._gradients(part), theirs, strict=True)])


def _squares(tensors: list[Tensor]) -> Tensor:
    return torch.stack([torch.dot(t, t) for t in tensors])
