"""Some parameters at a time, few enough to stay in the cache while every sensor looks at them."""

# torch._foreach_* is private by its name only: torch.optim and third-party optimizers are built on it.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

__all__ = ["LOW_PRECISION", "Piece", "floats", "squared_norms", "sums", "wide"]

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ._shards import local, shards_of

T = TypeVar("T")
LOW_PRECISION = (torch.float16, torch.bfloat16)


class Piece:
    """`n` parameters of one device, dtype and sharding, `members` by number; of shards, what lies in this process.

    What several sensors ask of it is worked out once, and is gone with the piece.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> weight.grad = torch.tensor([4.0, 8.0])
    >>> piece = Piece([0], [weight])
    >>> piece.gradients(loss_scale=4.0)[0].tolist()
    [1.0, 2.0]
    """

    def __init__(self, members: Sequence[int], parameters: Sequence[nn.Parameter]) -> None:
        self.members, self.parameters = members, parameters
        self._known: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, from the first time that `key` is asked for."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def own_weights(self) -> list[Tensor]:
        """The weights as they are."""
        return self.once("own weights", lambda: [local(p) for p in self.parameters])

    def weights(self) -> list[Tensor]:
        """The weights in float32 or wider."""
        return self.once("weights", lambda: floats(self.own_weights()))

    def gradients(self, loss_scale: Tensor | float | None = None) -> list[Tensor]:
        """The gradients in float32 or wider, without the factor of a GradScaler; sparse ones as dense."""
        if loss_scale is None:
            return self.once("gradients", lambda: floats(self._raw()))
        return self.once(("gradients", id(loss_scale)), lambda: [g / loss_scale for g in self.gradients()])

    def gradient_squares(self) -> Tensor:
        """The squared L2 norm of each gradient, with the factor of a GradScaler: f64[n] (on MPS f32)."""
        return self.once("squares", lambda: squared_norms(self._raw()))

    def weight_squares(self) -> Tensor:
        """The squared L2 norm of each parameter's weights: f64[n]."""
        return self.once("weight squares", lambda: squared_norms(self.own_weights()))

    def _raw(self) -> list[Tensor]:
        return self.once("raw", lambda: [_own_gradient(p) for p in self.parameters])


def floats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's part of the tensors, those in float16 and bfloat16 as float32.

    >>> floats([torch.ones(1, dtype=torch.bfloat16)])[0].dtype
    torch.float32
    """
    return [t.float() if t.dtype in LOW_PRECISION else t for t in map(local, tensors)]


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, where the device has it: sums of squares then don't overflow.

    >>> wide(torch.ones(1)).dtype
    torch.float64
    """
    return tensor if tensor.device.type == "mps" else tensor.double()


def sums(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of each tensor, none of which has a value below 0: [n].

    >>> sums([torch.ones(3), torch.zeros(0)]).tolist()
    [3.0, 0.0]
    """
    if tensors[0].device.type == "cpu":
        return torch.stack([tensor.sum() for tensor in tensors])  # vectorised, as the L1 norm there is not
    return torch.stack(torch._foreach_norm(list(tensors), 1))


def squared_norms(tensors: Sequence[Tensor]) -> Tensor:
    """The squared L2 norm of each tensor, all of one dtype: f64[n] (on MPS f32).

    >>> squared_norms([torch.tensor([3.0, 4.0]), torch.zeros(0)]).tolist()
    [25.0, 0.0]
    """
    wider = torch.float32 if tensors[0].dtype in LOW_PRECISION else None
    return wide(torch.stack(torch._foreach_norm(list(tensors), 2, wider))).square()


def _own_gradient(parameter: nn.Parameter) -> Tensor:
    grad = parameter.grad
    assert grad is not None
    if type(grad) is not Tensor and shards_of(grad) != shards_of(parameter):
        raise ValueError(
            "got a gradient that is split over the processes in another way than its weight: call grad.redistribute() "
            "before it is measured"
        )
    grad = local(grad)
    return grad.to_dense() if grad.layout is torch.sparse_coo else grad
