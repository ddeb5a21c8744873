"""LARS as MoCo v3 and its forerunners use it; learning rates are those of the global batch.

It is our own because the public ones differ from the published code's and from one another: by up to 0.84 in a
weight after 20 steps of a changing learning rate.
"""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

__all__ = ["LARS"]

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Momentum SGD whose step for a matrix is scaled to the matrix's own norm (arXiv 1708.03888).

    For a tensor p with gradient g: u = g; if it has two axes or more, u = g + wd p and then u *= c |p| / |u| (unless
    one of the norms is 0); buffer = momentum * buffer + u; p -= lr * buffer. The buffer holds no learning rate, so
    that a change of lr acts at once.

    Args:
        params: parameters or groups of them.
        lr: learning rate (of the global batch).
        momentum: share of the buffer that is kept at a step, from 0 up to, but not, 1.
        weight_decay: wd.
        trust_coefficient: c.

    >>> p = torch.nn.Parameter(torch.ones(2, 2))
    >>> p.grad = torch.full((2, 2), 5.0)
    >>> LARS([p], lr=10.0, weight_decay=0.0).step()
    >>> p[0, 0].item()
    0.9900000095367432
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and trust_coefficient > 0 and 0 <= momentum < 1):
            raise ValueError(
                f"lr {lr} and weight_decay {weight_decay} must not be negative, trust_coefficient "
                f"{trust_coefficient} must be positive, and momentum {momentum} from 0 up to, but not, 1."
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; parameters without a gradient stay. Returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        vectors = [p for p in parameters if p.ndim <= 1]
        matrices = [p for p in parameters if p.ndim > 1]
        updates = [_grad(p) for p in vectors]
        updates += _scaled(matrices, group["weight_decay"], group["trust_coefficient"])
        parameters = vectors + matrices
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def _scaled(matrices: list[Tensor], weight_decay: float, trust_coefficient: float) -> list[Tensor]:
    """Decayed gradients, scaled to the norms of their matrices; all norms stay on the device."""
    if not matrices:
        return []
    updates = list(torch._foreach_add([_grad(p) for p in matrices], matrices, alpha=weight_decay))
    own, other = torch.stack(torch._foreach_norm(matrices)), torch.stack(torch._foreach_norm(updates))
    trust = torch.where((own > 0) & (other > 0), trust_coefficient * own / other, torch.ones_like(own))
    torch._foreach_mul_(updates, list(trust.unbind()))
    return updates


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
