"""Rows from all processes, in the order of their ranks; a process alone has its own."""

__all__ = ["gather", "gather_views", "gather_with_gradient", "sum_over_processes", "world"]

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """Number of processes and this one's rank.

    >>> world()
    (1, 0)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 1, 0
    return dist.get_world_size(), dist.get_rank()


def gather(rows: Tensor) -> Tensor:
    """The rows `[N, E]` of all processes, `[N * processes, E]`, without a gradient to any of them.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    processes, _ = world()
    if processes == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(processes)]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def gather_views(rows: Tensor) -> Tensor:
    """Rows `[2n, ...]`, both views, of every process as one process would have them: all first views, then all second.

    >>> gather_views(torch.arange(4.0)).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    processes, _ = world()
    return gather(rows).unflatten(0, (processes, 2, -1)).transpose(0, 1).flatten(0, 2)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """The same with a gradient: each process's rows get the sum of the gradients from all processes' losses.

    So the mean of the processes' parameter gradients (what DDP makes) is the gradient of their mean loss.

    >>> rows = torch.ones(2, 3, requires_grad=True)
    >>> gather_with_gradient(rows).sum().backward()
    >>> rows.grad.sum().item()
    6.0
    """
    return rows if world()[0] == 1 else _Gather.apply(rows)  # pyright: ignore[reportReturnType]


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, without a gradient.

    >>> sum_over_processes(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    values = values.detach()
    if world()[0] > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = world()[1] * ctx.rows
        return grad[start : start + ctx.rows]
