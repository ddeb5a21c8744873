"""AdamW with clipped updates (StableAdamW, arXiv 2304.13013, Algorithm 2): a later remedy for the spikes of the paper.

When a tensor's gradient outgrows the second moment that Adam remembers of it, the root mean square of g / sqrt(v),
RMS_t, rises above 1, and the step is too long. StableAdamW divides that tensor's learning rate by RMS_t then.
"""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

__all__ = ["StableAdamW"]

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW whose learning rate for a tensor is lr / max(1, RMS_t), RMS_t = sqrt(mean(g^2 / max(v, eps^2))).

    v is the bias-corrected second moment including this step's g. Weight decay uses the divided learning rate too. All
    norms stay on the device.

    Args:
        params: parameters or groups of them.
        lr: learning rate (of the global batch).
        betas: decay per step of the running mean of the gradient and of its square.
        eps: added to sqrt(v) in the update.
        weight_decay: decoupled decay, in units of 1 / lr.

    Raises ValueError for a setting out of range.

    >>> p = torch.nn.Parameter(torch.ones(4))
    >>> optimizer = StableAdamW([p], lr=0.1, weight_decay=0.0)
    >>> for gradient in (0.01, 1.0):  # the second is 100 times the first: AdamW would step by 0.075, this one by 0.053
    ...     p.grad = torch.full((4,), gradient)
    ...     optimizer.step()
    >>> round(p[0].item(), 3)
    0.847
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
    ) -> None:
        if not (lr >= 0 and weight_decay >= 0 and eps > 0 and all(0 <= beta < 1 for beta in betas)):
            raise ValueError(
                f"lr {lr} and weight_decay {weight_decay} must not be negative, eps {eps} must be positive, and betas "
                f"{betas} from 0 up to, but not, 1."
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

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
        (beta1, beta2), eps = group["betas"], group["eps"]
        states = [self._state(p) for p in parameters]
        grads = [p.grad for p in parameters if p.grad is not None]
        means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        for state in states:
            state["step"] += 1  # a number of the host: reading it waits for nothing
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        variances = torch._foreach_div(squares, [1 - beta2 ** s["step"] for s in states])
        rates = _clipped(grads, variances, group["lr"], eps)
        roots = torch._foreach_sqrt(variances)
        torch._foreach_add_(roots, eps)
        updates = torch._foreach_div(torch._foreach_div(means, [1 - beta1 ** s["step"] for s in states]), roots)
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(updates, rates)
        torch._foreach_sub_(parameters, updates)

    def _state(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        return state


def _clipped(grads: list[Tensor], variances: list[Tensor] | tuple[Tensor, ...], lr: float, eps: float) -> list[Tensor]:
    """The learning rate of every tensor, 0-dim each: lr / max(1, RMS_t)."""
    ratios = torch._foreach_div(torch._foreach_pow(grads, 2), torch._foreach_clamp_min(variances, eps**2))
    rms = torch.stack([ratio.mean() for ratio in ratios]).sqrt()
    return list((lr / rms.clamp(min=1)).unbind())
