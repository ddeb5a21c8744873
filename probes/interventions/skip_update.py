"""Leave out the whole update of a step at which a watched gradient norm spikes."""

from __future__ import annotations

__all__ = ["SkipUpdate"]

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ._acting import Intervention
from ._rule import Verdict


class SkipUpdate(Intervention):
    """Takes away every gradient of the optimizer at a step that spikes, so that its `step()` changes nothing.

    Weights, momentum, second moments and step counts stay as they are, and nothing decays: to the optimizer the step
    has not been. A learning-rate schedule goes on, and BatchNorm's running statistics have seen the batch (the trainer
    of foreshock puts them back, and lets its momentum encoder wait). With `nonfinite` (default) an update is left out
    too if a watched norm is not finite. At most `longest` steps in a row are left out.

    Reads one bool a step from the device. See `Intervention` for the other parameters.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    >>> skip = SkipUpdate().attach({"head": list(model.named_parameters())}, optimizer)
    >>> for step in range(80):
    ...     model.weight.grad = torch.full((1, 2), 9.0 if step == 70 else 1.0)
    ...     norm = model.weight.grad.norm()
    ...     _ = skip.act(norm[None], norm)
    ...     optimizer.step()
    >>> skip.count, optimizer.state[model.weight]["step"].item()
    (1, 79.0)
    """

    reads_host: ClassVar[bool] = True

    def __init__(
        self, layer: str | Sequence[str] | None = None, *, nonfinite: bool = True, **thresholds: float
    ) -> None:
        super().__init__(layer, **thresholds)
        self.nonfinite = nonfinite

    def _act(self, verdict: Verdict, norms: Tensor) -> tuple[Tensor, Tensor]:
        acted = verdict.spikes | verdict.broken if self.nonfinite else verdict.spikes
        self.skipped = bool(acted.any())
        if not self.skipped:
            return acted, norms
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        return acted, torch.full_like(norms, torch.nan)

    def words(self, risen: str) -> str:
        """What was done.

        >>> SkipUpdate().words("patch_embed rose 5.2-fold")
        'patch_embed rose 5.2-fold: its update was skipped'
        """
        return f"{risen}: its update was skipped"
