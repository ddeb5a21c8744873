"""RMS_t, the gradient over the root of Adam's second moment of it: above 1 the moment is out of date. Without unit."""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

__all__ = ["UpdateRMS"]

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._adam_state import AdamState
from ._by_layer import ByLayer, Layers, Look, TensorSensor
from ._piece import Piece, sums

UPDATE_RMS = Series(
    "update_rms",
    ("layer", "step"),
    doc="root mean square of g / sqrt(v), v Adam's bias-corrected second moment including g; NaN: no gradient or v",
)


class UpdateRMS(TensorSensor):
    """`update_rms: f32[L]`, RMS_t = sqrt(mean(g² / max(v̂_t, ε²))) over all weights of a layer.

    v̂_t is Adam's bias-corrected second moment **with this step's gradient in it**, as StableAdamW uses it (Wortsman et
    al., arXiv 2304.13013, Algorithm 2, where RMS_t of 2.3 and more comes 1 to 8 steps before a loss spike). The paper
    has it per tensor: group the layers per parameter for that. It is worked out before the optimizer's step, from the
    gradients as they are: unclipped, if the clip comes later. At most it is 1 / sqrt(1 - beta2), which is 32 for 0.999.

    - NaN: no gradient (frozen), or the optimizer has not updated the layer yet (the first step).
    - Inf: a gradient or moment that is Inf or NaN, or whose square is beyond float32.

    Works with torch's Adam, AdamW, NAdam, RAdam and timm's LAMB and AdamP, fused or not. Raises ValueError for an
    optimizer without a second moment.

    Cost: 5 passes over the gradients, in pieces (64 MiB on a GPU). No host sync.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    >>> sensor = UpdateRMS(model, optimizer)
    >>> for gradient in (0.01, 0.01, 1.0):
    ...     model.weight.grad = torch.full((1, 1), gradient)
    ...     print(round(sensor.observe()["update_rms"].item(), 3))
    ...     optimizer.step()
    nan
    1.0
    1.731
    """

    series: ClassVar[tuple[Series, ...]] = (UPDATE_RMS,)
    cost: ClassVar[str] = "5 passes over the gradients a step; two temporaries of at most 64 MiB"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(self, layers: Layers | nn.Module, optimizer: Optimizer, *, eps: float = 1e-6) -> None:
        if not eps > 0:
            raise ValueError(f"eps is {eps}; it must be above 0 (the paper's is 1e-6)")
        self._by_layer, self._state, self.eps = ByLayer(layers), AdamState(optimizer, "update_rms"), eps
        self.layers = self._by_layer.layers
        self.loss_scale: Tensor | float | None = None

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over `layers`."""
        return cls(layers, optimizer)

    def look(self) -> Look:
        """`{"update_rms": f32[L]}` of the gradients as they are now."""
        members = self._state.members(self._by_layer)
        sizes = self._by_layer.sizes(members)
        return Look(
            [self._by_layer.sum(members, self._sums)], lambda sums: {"update_rms": (sums / sizes).sqrt().float()}
        )

    def _sums(self, piece: Piece) -> Tensor:
        """The sum of g² / max(v̂, ε²) over each parameter: [n]."""
        corrections = self._state.corrections(piece)
        squares = torch._foreach_mul(grads := piece.gradients(self.loss_scale), grads)
        # v̂ = (beta2 v + (1 - beta2) g²) / c, so g² / max(v̂, ε²) = c g² / max(beta2 v + (1 - beta2) g², c ε²).
        updated = _towards(self._state.moments(piece), squares, self._state.decay(piece))
        if isinstance(corrections, list):
            torch._foreach_clamp_min_(updated, [c * self.eps**2 for c in corrections])
            corrections = torch.tensor(corrections, dtype=squares[0].dtype).to(squares[0].device, non_blocking=True)
        else:
            for moment, floor in zip(updated, (corrections * self.eps**2).to(squares[0].dtype).unbind(), strict=True):
                moment.clamp_(min=floor)
        torch._foreach_div_(squares, updated)
        return sums(squares) * corrections


def _towards(moments: list[Tensor], squares: tuple[Tensor, ...] | list[Tensor], shares: list[float]) -> list[Tensor]:
    """New tensors `moment + share (square - moment)`."""
    if len(set(shares)) == 1:
        return list(torch._foreach_lerp(moments, squares, shares[0]))
    return [torch.lerp(m, s, share) for m, s, share in zip(moments, squares, shares, strict=True)]
