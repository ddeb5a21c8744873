"""Scale the gradient of a layer that spikes back to a multiple of its own baseline."""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

__all__ = ["Clip"]

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ._acting import TOTAL, Intervention
from ._rule import Verdict


class Clip(Intervention):
    """Scales the gradient of a layer that spikes down to `factor` times its baseline, the median of the steps before.

    A limit that follows the run, after ZClip (arXiv 2504.02507): no norm has to be chosen beforehand, and a step
    that does not spike is left alone to the last bit, whatever its height. With layer="total" all gradients are scaled
    by one number. A gradient that is not finite is left as it is. Several layers are scaled each by its own.

    Reads nothing from the device. See `Intervention` for the other parameters.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> clip = Clip(factor=1.5).attach({"head": list(model.named_parameters())}, optimizer)
    >>> for step in range(80):
    ...     model.weight.grad = torch.tensor([[0.0, 9.0 if step == 70 else 1.0]])
    ...     norm = model.weight.grad.norm()
    ...     _ = clip.act(norm[None], norm)
    ...     if step == 70:
    ...         print(model.weight.grad)
    tensor([[0.0000, 1.5000]])
    """

    reads_host: ClassVar[bool] = False

    def __init__(self, layer: str | Sequence[str] | None = None, *, factor: float = 1.0, **thresholds: float) -> None:
        super().__init__(layer, **thresholds)
        if not 0 < factor <= self.thresholds.ratio:
            raise ValueError(
                f"factor is {factor}; it must be above 0 and at most the ratio {self.thresholds.ratio} from which a "
                "norm spikes, or a gradient would be made larger"
            )
        self.factor = factor

    def _act(self, verdict: Verdict, norms: Tensor) -> tuple[Tensor, Tensor]:
        scales = torch.where(verdict.spikes, self.factor / verdict.ratio, 1.0)
        for row, scale in enumerate(scales.unbind()):
            grads = [_own_part(p.grad) for p in self._parameters[row] if p.requires_grad and p.grad is not None]
            if grads:
                torch._foreach_mul_(grads, scale)  # by exactly 1 where nothing spikes
        after = norms
        for row, name in enumerate(self.watched):
            here = (
                torch.ones_like(norms)
                if name == TOTAL
                else torch.arange(len(norms), device=norms.device) == self._rows[row]
            )
            after = torch.where(here.bool(), after * scales[row].to(norms.dtype), after)
        return verdict.spikes, after

    def words(self, risen: str) -> str:
        """What was done.

        >>> Clip().words("patch_embed rose 5.2-fold")
        'patch_embed rose 5.2-fold: its gradient was scaled down to 1 times the baseline'
        """
        return f"{risen}: its gradient was scaled down to {self.factor:g} times the baseline"


def _own_part(grad: Tensor) -> Tensor:
    """The gradient itself; of a sharded one this process's part, to be changed in place."""
    return grad.to_local() if hasattr(grad, "to_local") else grad  # pyright: ignore[reportAttributeAccessIssue]
