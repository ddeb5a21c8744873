"""Whether a run is still sound: loss that is not finite, and steps that the gradient scaler skipped.

Both are kept in counters on the device, so that looking at every step makes none of them wait for the host.
"""

__all__ = ["Health"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# A scaler that starts too high makes a few bad steps, each skipped and followed by half the scale.
SCALER_PATIENCE = 20


class Health:
    """Counters on `device`; `scaled` says that a gradient scaler skips the steps in which `parameters` overflow.

    >>> health = Health(torch.device("cpu"), [], scaled=False)
    >>> for step, loss in enumerate([4.4, float("nan"), float("nan")]):
    ...     health.observe(step, torch.tensor(loss))
    >>> health.read(2)
    (True, 1, 0)
    """

    def __init__(self, device: torch.device, parameters: Sequence[nn.Parameter], *, scaled: bool) -> None:
        self.parameters, self.scaled = parameters, scaled
        self.overflow = torch.zeros((), device=device)
        self._bad_since = torch.full((), -1, dtype=torch.int64, device=device)
        self._overflows = torch.zeros((), dtype=torch.int64, device=device)

    def observe(self, step: int, loss: Tensor) -> None:
        """Look at `step`, after its backward and unscaling."""
        bad = ~loss.detach().isfinite()
        fresh = bad & (self._bad_since < 0)
        since = torch.where(fresh, step, self._bad_since)
        if self.scaled:
            # Such a step changes no weight, so a finite loss after it ends the matter.
            since = torch.where(bad, since, -1)
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            largest = nn.utils.get_total_norm(gradients, float("inf"))
            self.overflow = (~largest.isfinite()).to(torch.float32)
            self._overflows = self._overflows + self.overflow.to(torch.int64)
        self._bad_since = since

    def read(self, step: int) -> tuple[bool, int, int]:
        """After `step`: is the run lost, the step since which the loss is not finite or -1, and overflows so far.

        This waits for the device.
        """
        since, overflows = torch.stack([self._bad_since, self._overflows]).tolist()
        return since >= 0 and step - since >= (SCALER_PATIENCE if self.scaled else 0), since, overflows
