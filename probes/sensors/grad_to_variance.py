"""A layer's squared gradient norm over the sum of Adam's second moment of it: the cheap relative of RMS_t. No unit."""

from __future__ import annotations

__all__ = ["GradToVariance"]

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._adam_state import AdamState
from ._by_layer import ByLayer, Layers, Look, TensorSensor
from ._piece import Piece, sums, wide

GRAD_TO_VARIANCE = Series(
    "grad_to_variance",
    ("layer", "step"),
    doc="squared L2 norm of the gradient over the L1 norm of Adam's bias-corrected second moment, which includes it",
)


class GradToVariance(TensorSensor):
    """`grad_to_variance: f32[L]`, ‖g‖² / ‖v̂_t‖₁ over all weights of a layer; near 1 while v keeps up with g².

    v̂_t is bias-corrected and has this step's gradient in it. When v decays by itself and no longer answers to the
    gradient, the ratio is far below 1, and a spike makes it shoot up (Bai et al., arXiv 2506.04805, who look at g² and
    v this way; the correction is ours, so that the first steps read alike). Two norms are all it takes:
    ‖v_t‖₁ = beta2 ‖v_{t-1}‖₁ + (1 - beta2) ‖g‖².

    NaN: no gradient (frozen), or the optimizer has not updated the layer yet. Inf: a gradient that is not finite.
    Raises ValueError for an optimizer without a second moment.

    Cost: one pass over the gradients and one over the second moments. No host sync.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    >>> sensor = GradToVariance(model, optimizer)
    >>> for gradient in (0.01, 0.01, 1.0):
    ...     model.weight.grad = torch.full((1, 1), gradient)
    ...     print(round(sensor.observe()["grad_to_variance"].item(), 3))
    ...     optimizer.step()
    nan
    1.0
    2.996
    """

    series: ClassVar[tuple[Series, ...]] = (GRAD_TO_VARIANCE,)
    cost: ClassVar[str] = "one pass over the gradients and one over the second moments a step"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(self, layers: Layers | nn.Module, optimizer: Optimizer) -> None:
        self._by_layer, self._state = ByLayer(layers), AdamState(optimizer, "grad_to_variance")
        self.layers = self._by_layer.layers
        self.loss_scale: Tensor | float | None = None

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers, optimizer)

    def look(self) -> Look:
        """`{"grad_to_variance": f32[L]}` of the gradients as they are now."""
        members = self._state.members(self._by_layer)
        return Look([self._by_layer.sum(members, measure) for measure in (self._squares, self._variances)], _ratio)

    def _squares(self, piece: Piece) -> Tensor:
        squares = piece.gradient_squares()
        return squares if self.loss_scale is None else squares / self.loss_scale**2

    def _variances(self, piece: Piece) -> Tensor:
        """The sum of v̂ of each parameter: f64[n]."""
        moments = wide(sums(self._state.moments(piece)))
        share = torch.tensor(self._state.decay(piece), dtype=moments.dtype).to(moments.device, non_blocking=True)
        corrections = torch.as_tensor(self._state.corrections(piece), dtype=moments.dtype)
        return torch.lerp(moments, self._squares(piece), share) / corrections.to(moments.device, non_blocking=True)


def _ratio(squares: Tensor, variances: Tensor) -> dict[str, Tensor]:
    # Of a gradient that is not finite both are Inf, and their ratio must not read as "not measured".
    return {"grad_to_variance": torch.where(squares.isinf(), squares, squares / variances).float()}
