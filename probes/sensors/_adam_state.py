"""What an Adam-like optimizer remembers of a parameter: its second moment v, beta2 and the number of updates."""

from __future__ import annotations

__all__ = ["AdamState"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._by_layer import wide


class AdamState:
    """Reads `exp_avg_sq`, `betas` and `step` of torch's, timm's and similar Adams, without waiting for the device.

    Raises ValueError for an optimizer without `betas`, and at the first look for one whose states lack a second moment.

    >>> weight = nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.AdamW([weight])
    >>> state = AdamState(optimizer, "update_rms")
    >>> state.known([weight])
    [False]
    """

    def __init__(self, optimizer: Optimizer, asked_by: str) -> None:
        self.optimizer, self._asked_by = optimizer, asked_by
        if not all("betas" in group for group in optimizer.param_groups):
            raise self._refusal("no betas")
        self._groups: dict[nn.Parameter, dict[str, Any]] = {}
        self._size = -1

    def known(self, parameters: Sequence[nn.Parameter]) -> list[bool]:
        """Which of the parameters have a second moment: those that were updated at least once."""
        return [self._has_moment(parameter) for parameter in parameters]

    def moments(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """The second moments before this step's gradient enters them, not bias-corrected."""
        return [self.optimizer.state[p]["exp_avg_sq"] for p in parameters]

    def decay(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """1 - beta2 of each."""
        return [1 - self._group(p)["betas"][1] for p in parameters]

    def corrections(self, parameters: Sequence[nn.Parameter]) -> list[float] | Tensor:
        """1 - beta2^t of each, where t counts the update that is about to be made.

        Numbers where the optimizer counts on the host, as most do; else f64[n] on the device, and nothing waits.
        """
        steps = [self._step(p) for p in parameters]
        rates = [self._group(p)["betas"][1] for p in parameters]
        # Of a tensor on the host numpy reads the number at once.
        counts = [float(s.numpy()) if _on_host(s) else s for s in steps]
        if not any(isinstance(count, Tensor) for count in counts):
            return [1 - rate ** (count + 1) for rate, count in zip(rates, counts, strict=True)]
        device = next(count.device for count in counts if isinstance(count, Tensor))
        stacked = torch.stack([torch.as_tensor(c).to(device, non_blocking=True).reshape(()) for c in counts])
        powers = torch.tensor(rates, dtype=wide(stacked).dtype).to(device, non_blocking=True)
        return 1 - powers ** (wide(stacked) + 1)

    def _has_moment(self, parameter: nn.Parameter) -> bool:
        state = self.optimizer.state.get(parameter)  # not [parameter], which would make an empty one
        if not state:
            return False
        if "exp_avg_sq" not in state:
            raise self._refusal(f"only {', '.join(map(str, state))} in its state")
        return True

    def _step(self, parameter: nn.Parameter) -> Any:
        step = self.optimizer.state[parameter].get("step", self._group(parameter).get("step"))  # LAMB counts by group
        if step is None:
            raise self._refusal("no count of its steps")
        return step

    def _group(self, parameter: nn.Parameter) -> dict[str, Any]:
        size = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if size != self._size:  # add_param_group in mid-run
            self._groups = {p: group for group in self.optimizer.param_groups for p in group["params"]}
            self._size = size
        return self._groups[parameter]

    def _refusal(self, found: str) -> ValueError:
        return ValueError(
            f"{self._asked_by} needs the second moment of Adam (exp_avg_sq), and {type(self.optimizer).__name__} has "
            f"{found}: leave this sensor out, or train with an Adam"
        )


def _on_host(step: Any) -> bool:
    return isinstance(step, Tensor) and step.device.type == "cpu" and type(step) is Tensor
