"""Tensors that are split over processes (DTensor, as of FSDP2): this process's part, and what all parts come to."""

from __future__ import annotations

__all__ = ["Shards", "local", "over_shards", "shards_of"]

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

Shards = tuple[Any, tuple[int, ...]] | None
"""The mesh of processes, and its axes over which a tensor is split; None for a tensor that is whole here."""


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; any other tensor itself.

    >>> whole = torch.ones(2)
    >>> local(whole) is whole
    True
    """
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


def shards_of(tensor: Tensor) -> Shards:
    """Over which processes a tensor is split. Raises ValueError for one whose parts have yet to be summed up.

    >>> print(shards_of(torch.ones(2)))
    None
    """
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return None
    if any(placement.is_partial() for placement in placements):
        raise ValueError(
            "got a gradient whose parts have yet to be summed up over the processes (a Partial DTensor): call "
            "grad.redistribute() or full_tensor() before it is measured"
        )
    axes = tuple(axis for axis, placement in enumerate(placements) if placement.is_shard())
    return (tensor.device_mesh, axes) if axes else None  # pyright: ignore[reportAttributeAccessIssue]


def over_shards(parts: Iterable[tuple[Tensor, Shards, Literal["sum", "max"]]]) -> None:
    """Sum up, or take the maximum of, each `[n]` over the processes that hold the other parts, in place.

    All that are of one kind go in one exchange, in which every process has to take part.

    >>> over_shards([(torch.ones(2), None, "sum")])  # whole: nothing to do
    """
    together: dict[tuple[Any, str], list[Tensor]] = {}
    for values, shards, how in parts:
        if shards is not None:
            together.setdefault((shards, how), []).append(values)
    for ((mesh, axes), how), tensors in together.items():
        joined = torch.cat(tensors)
        for axis in axes:
            dist.all_reduce(joined, dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM, mesh.get_group(axis))
        for values, whole in zip(tensors, joined.split([len(values) for values in tensors]), strict=True):
            values.copy_(whole)
