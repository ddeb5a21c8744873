"""What an Adam-like optimizer remembers of a parameter: its second moment v, beta2 and the number of updates."""

from __future__ import annotations

__all__ = ["AdamState"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._by_layer import ByLayer
from ._piece import Piece, floats, wide


class AdamState:
    """Reads `exp_avg_sq`, `betas` and `step` of torch's, timm's and similar Adams, without waiting for the device.

    Raises ValueError for an optimizer without `betas`, and at the first look for one whose states lack a second moment.

    >>> model = nn.Linear(1, 1)
    >>> AdamState(torch.optim.AdamW(model.parameters()), "update_rms").members(ByLayer(model))
    []
    """

    def __init__(self, optimizer: Optimizer, asked_by: str) -> None:
        self.optimizer, self._asked_by = optimizer, asked_by
        if not all("betas" in group for group in optimizer.param_groups):
            raise self._refusal("no betas")
        self._groups: dict[nn.Parameter, dict[str, Any]] = {}

    def members(self, by_layer: ByLayer) -> list[int]:
        """Which parameters have a gradient and a second moment: those that were updated at least once."""
        if len(self._groups) != sum(len(group["params"]) for group in self.optimizer.param_groups):
            self._groups = {p: group for group in self.optimizer.param_groups for p in group["params"]}
        return [i for i in by_layer.with_gradient() if self._has_moment(by_layer.parameters[i])]

    def moments(self, piece: Piece) -> list[Tensor]:
        """The second moments before this step's gradient enters them, not bias-corrected; in float32 or wider."""
        state = self.optimizer.state
        return piece.once(("moments", id(state)), lambda: floats([state[p]["exp_avg_sq"] for p in piece.parameters]))

    def decay(self, piece: Piece) -> list[float]:
        """1 - beta2 of each."""
        return [1 - self._groups[p]["betas"][1] for p in piece.parameters]

    def corrections(self, piece: Piece) -> list[float] | Tensor:
        """1 - beta2^t of each, where t counts the update that is about to be made.

        Numbers where the optimizer counts on the host, as most do; else f64[n] on the device, and nothing waits.
        """
        return piece.once(("corrections", id(self.optimizer)), lambda: self._corrections(piece.parameters))

    def _corrections(self, parameters: Sequence[nn.Parameter]) -> list[float] | Tensor:
        steps = [self._step(p) for p in parameters]
        rates = [self._groups[p]["betas"][1] for p in parameters]
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
        step = self.optimizer.state[parameter].get("step", self._groups[parameter].get("step"))  # LAMB counts by group
        if step is None:
            raise self._refusal("no count of its steps")
        return step

    def _refusal(self, found: str) -> ValueError:
        return ValueError(
            f"{self._asked_by} needs the second moment of Adam (exp_avg_sq), and {type(self.optimizer).__name__} has "
            f"{found}: leave this sensor out, or train with an Adam"
        )


def _on_host(step: Any) -> bool:
    return isinstance(step, Tensor) and step.device.type == "cpu" and type(step) is Tensor
