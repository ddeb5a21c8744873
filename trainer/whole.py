"""States with whole tensors, whatever shards or memory layout a run has: what a checkpoint holds, and loading it."""

__all__ = ["load_optimizer", "local", "whole"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; any other tensor itself.

    >>> local(torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def whole(state: Any, *, keep: bool = True) -> Any:
    """`state` (tensors, numbers, containers) with every sharded tensor put together on the CPU, in the usual layout.

    All processes have to call this at once; those that do not `keep` the result get None in the place of such tensors.

    >>> whole({"weight": torch.ones(2), "step": 3})
    {'weight': tensor([1., 1.]), 'step': 3}
    """
    if isinstance(state, Mapping):
        return {name: whole(value, keep=keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)([whole(value, keep=keep) for value in state])
    if not isinstance(state, Tensor):
        return state
    if not hasattr(state, "full_tensor"):
        return state.contiguous()
    full = state.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    return full.cpu().contiguous() if keep else None


@torch.no_grad()
def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict` of a `whole` state, its tensors then sharded and laid out as their parameters.

    >>> weight = torch.nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last))
    >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    >>> groups = optimizer.state_dict()["param_groups"]
    >>> load_optimizer(optimizer, {"state": {0: {"momentum_buffer": torch.ones(2, 3, 4, 4)}}, "param_groups": groups})
    >>> optimizer.state[weight]["momentum_buffer"].is_contiguous(memory_format=torch.channels_last)
    True
    """
    optimizer.load_state_dict(dict(state))
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = _like(parameter, value)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = parameter.device_mesh, parameter.placements  # pyright: ignore[reportAttributeAccessIssue]
        # Every process has read the whole value, so that none has to be sent.
        return distribute_tensor(value, mesh, placements, src_data_rank=None)
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
