"""The model of a run spread over its processes; whatever the way, its parameters keep their plain names."""

__all__ = ["averaged", "parallelise"]

from collections.abc import Callable
from inspect import signature

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DistributedDataParallel

from .config import TrainConfig
from .config_checks import without_effect
from .distributed import Processes
from .gathering import sum_over_processes, world
from .methods import Output
from .sync_norm import synchronise_norms

Forward = Callable[..., Output]


def parallelise(model: nn.Module, config: TrainConfig, device: torch.device, processes: Processes) -> Forward:
    """What the loop calls in the place of `model`, which is changed in place: gradients are means over the processes.

    Raises ValueError for a setting that would have no effect on this model or number of processes.

    >>> model = nn.Linear(3, 2)
    >>> parallelise(model, TrainConfig(), torch.device("cpu"), Processes()) is model
    True
    """
    scale = config.scale
    if processes.count == 1:
        without_effect(scale, "with one process", "parallel", "sync_batch_norm", "timeout")
        return model
    if scale.sync_batch_norm:
        synchronise_norms(model, device)
    elif not any(isinstance(module, _BatchNorm) for module in model.modules()):
        without_effect(scale, "on a model without BatchNorm", "sync_batch_norm")
    return _replicated(model)


def averaged(output: Output) -> Output:
    """The same with loss and logs as means over all processes, without a gradient; the features are still its own.

    >>> averaged(Output(torch.tensor(2.0), {}, torch.zeros(2, 3))).loss.item()
    2.0
    """
    if world()[0] == 1:
        return output
    values = [output.loss.detach(), *output.logs.values()]
    precision = torch.promote_types(output.loss.dtype, torch.float32)
    loss, *logs = (sum_over_processes(torch.stack([v.to(precision) for v in values])) / world()[0]).unbind()
    return output._replace(loss=loss, logs=dict(zip(output.logs, logs, strict=True)))


def _replicated(model: nn.Module) -> Forward:
    # Buffers are alike in all processes, or with BatchNorm each has its own: none are sent from one to the others.
    known = signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **{option: False})  # pyright: ignore
