"""Updates that are left out when a loss or a gradient is not finite, before optimizer and running means take it in."""

__all__ = ["Guard"]

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Guard:
    """Makes the optimizer's steps; with `protect`, not those that are not finite.

    A step that is left out moves neither weights nor the optimizer's memory, and BatchNorm's running statistics go back
    to what they were. The momentum encoder follows the weights, so it stays too. A fused optimizer decides on the
    device; for another one the host has to wait for the answer, at every step (a CPU has it at once).

    >>> weight = nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0, fused=True)
    >>> guard = Guard(nn.ParameterList([weight]), optimizer, torch.amp.GradScaler("cpu", enabled=False))
    >>> weight.grad = torch.tensor([float("nan")])
    >>> guard.step(torch.tensor(True))
    >>> weight.item()
    1.0
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        protect: bool = True,
        skips: bool = False,
    ) -> None:
        self.optimizer, self.scaler, self.protect = optimizer, scaler, protect
        self._buffers = list(model.buffers()) if protect or skips else []
        self._saved = [buffer.clone() for buffer in self._buffers]

    def step(self, bad: Tensor, skipped: bool = False) -> None:
        """Step if the 0-dim bool `bad` is False; after backward, unscaling and clipping.

        `skipped` (of a guard that `skips`): an intervention took the gradients away, so the optimizer's step does
        nothing, and running statistics go back too.
        """
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # which leaves out an overflow by itself
            self.scaler.update()
        elif not self.protect:
            self.optimizer.step()
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False):
            # The way by which a gradient scaler tells a fused optimizer: it makes no step where this is not 0.
            self.optimizer.found_inf = bad.to(torch.float32)  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
        elif not bad.item():
            self.optimizer.step()
        if skipped or not self.protect:
            bad = torch.full_like(bad, skipped)
        self._settle(bad)

    def _settle(self, bad: Tensor) -> None:
        """Take back the running statistics of a bad step, or remember those of a good one."""
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            torch.where(bad, saved, buffer, out=buffer)
            saved.copy_(buffer)
