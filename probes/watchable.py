"""What can be watched: a model that trains, whole or in shards, together with the optimizer that is its own."""

from __future__ import annotations

__all__ = ["check_watchable", "has_closure", "is_sharded"]

from collections.abc import Mapping, Sequence
from typing import Any


def check_watchable(model: Any, optimizer: Any) -> None:
    """Raise ValueError for a watch that would see nothing, or parts that it can't put together."""
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError(f"{type(model).__name__} has no trainable parameters: set requires_grad before watch()")
    if not hasattr(optimizer, "register_step_pre_hook"):
        raise ValueError(f"optimizer is a {type(optimizer).__name__}; give the torch.optim.Optimizer inside it")
    if not any(id(p) in trainable for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            f"the optimizer holds none of the {len(trainable)} trainable parameters of {type(model).__name__}: give "
            "the model and the optimizer that belong together"
        )
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise ValueError(
            "the model is wrapped in FullyShardedDataParallel, whose parts of a gradient can't be told from whole "
            "ones: shard it with torch.distributed.fsdp.fully_shard"
        )


def is_sharded(model: Any) -> bool:
    """Whether parameters are split over processes (DTensor, as FSDP2's `fully_shard` makes them).

    Then a norm takes an exchange between all of them.
    """
    return any(
        placement.is_shard() for parameter in model.parameters() for placement in getattr(parameter, "placements", ())
    )


def has_closure(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether `optimizer.step` was called with a closure; torch hands its hooks the optimizer itself among `args`.

    >>> has_closure([print], {}), has_closure([], {})
    (True, False)
    """
    return any(callable(value) and not hasattr(value, "param_groups") for value in (*args, kwargs.get("closure")))
