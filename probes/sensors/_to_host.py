"""A copy from the device to the host that nobody waits for: it says when it has arrived."""

from __future__ import annotations

__all__ = ["OnTheWay", "start_copy"]

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OnTheWay:
    """A host copy under way: `arrived` never waits, `values` does."""

    host: Tensor
    event: torch.cuda.Event | None = None
    """Recorded after the copy; None: it is complete."""

    def arrived(self) -> bool:
        """Whether the copy is complete."""
        return self.event is None or self.event.query()

    def values(self) -> Tensor:
        """The copy, waited for if need be."""
        if self.event is not None:
            self.event.synchronize()
        return self.host


def start_copy(tensor: Tensor) -> OnTheWay:
    """Begin to copy `tensor` to the host; on CUDA into pinned memory.

    >>> start_copy(torch.ones(2)).values().tolist()
    [1.0, 1.0]
    """
    if tensor.device.type != "cuda":
        return OnTheWay(tensor.cpu())
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    return OnTheWay(host, event)
