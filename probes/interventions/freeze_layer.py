"""Leave a layer as it is for some steps once its gradient norm has spiked."""

from __future__ import annotations

__all__ = ["FreezeLayer"]

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ._acting import Intervention
from ._rule import Verdict


class FreezeLayer(Intervention):
    """Takes away the gradient of a layer that spikes, at that step and the following ones, `steps` in all.

    It is the paper's trick for stability, a frozen patch projection (arXiv 2104.02057, Sec. 4.2), for a while. The
    optimizer leaves out weights without a gradient, so the layer's weights, momentum and second moments stay what they
    were, nothing creeps on and nothing decays (zeroed gradients would let all three move). The other layers train on. A
    spike of the layer while it is frozen begins its steps anew; each is told, the quiet steps between are not.

    Reads once a step from the device, a bool for each layer that it watches. See `Intervention` for the other
    parameters; "total" is refused.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    >>> freeze = FreezeLayer(steps=5).attach({"head": list(model.named_parameters())}, optimizer)
    >>> moved = 0
    >>> for step in range(80):
    ...     model.weight.grad = torch.full((1, 2), 9.0 if step == 70 else 1.0)
    ...     norm, before = model.weight.grad.norm(), model.weight.detach().clone()
    ...     _ = freeze.act(norm[None], norm)
    ...     optimizer.step()
    ...     moved += not torch.equal(before, model.weight)
    >>> freeze.count, moved
    (1, 75)
    """

    reads_host: ClassVar[bool] = True
    of_total: ClassVar[bool] = False

    def __init__(self, layer: str | Sequence[str] | None = None, *, steps: int = 20, **thresholds: float) -> None:
        super().__init__(layer, **thresholds)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is {steps!r}; a layer is frozen for a whole number of steps, at least 1")
        self.steps = steps
        self._left: dict[str, int] = {}  # of the layers that are frozen: how many steps more

    def _act(self, verdict: Verdict, norms: Tensor) -> tuple[Tensor, Tensor]:
        frozen: list[int] = []
        for row, spikes in enumerate(verdict.spikes.tolist()):
            name = self.watched[row]
            left = self.steps if spikes else self._left.get(name, 0)
            self._left[name] = max(0, left - 1)
            if left:
                frozen.append(row)
                for parameter in self._parameters[row]:
                    parameter.grad = None
        return verdict.spikes, self._without(norms, frozen) if frozen else norms

    def words(self, risen: str) -> str:
        """What was done.

        >>> FreezeLayer(steps=20).words("patch_embed rose 5.2-fold")
        'patch_embed rose 5.2-fold: frozen for 20 steps'
        """
        return f"{risen}: frozen for {self.steps} step{'s' if self.steps > 1 else ''}"

    def state_dict(self) -> dict[str, Any]:
        """As of every intervention, and the steps that are left to frozen layers."""
        return super().state_dict() | {"left": dict(self._left)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; ValueError if it was of other layers or thresholds."""
        super().load_state_dict(state)
        self._left = dict(state["left"])
