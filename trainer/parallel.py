"""The model of a run spread over its processes; whatever the way, its parameters keep their plain names."""

__all__ = ["averaged", "check_parallel", "parallelise"]

import warnings
from collections.abc import Callable
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DistributedDataParallel

from .config import TrainConfig
from .config_checks import without_effect
from .distributed import Processes
from .encoder import Encoder
from .gathering import sum_over_processes, world
from .methods import Output
from .sync_norm import synchronise_norms
from .whole import local

Forward = Callable[..., Output]


def parallelise(model: nn.Module, config: TrainConfig, device: torch.device, processes: Processes) -> Forward:
    """What the loop calls in the place of `model`, which is changed in place: gradients are means over the processes.

    >>> model = nn.Linear(3, 2)
    >>> parallelise(model, TrainConfig(), torch.device("cpu"), Processes()) is model
    True
    """
    if processes.count == 1:
        return model
    if config.scale.sync_batch_norm:
        synchronise_norms(model, device)
    return _sharded(model, device, processes) if config.scale.parallel == "fsdp" else _replicated(model)


def check_parallel(model: nn.Module, config: TrainConfig, processes: Processes) -> None:
    """Raise ValueError for a setting that cannot work on this model or number of processes, or would do nothing.

    >>> check_parallel(nn.Linear(3, 2), TrainConfig(), Processes())
    """
    if processes.count == 1:
        without_effect(config.scale, "with one process", "parallel", "sync_batch_norm", "timeout")
    elif not any(isinstance(module, _BatchNorm) for module in model.modules()):
        without_effect(config.scale, "on a model without BatchNorm", "sync_batch_norm")
    if config.scale.parallel == "fsdp":
        _check_shards(config)


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


def _check_shards(config: TrainConfig) -> None:
    refused = {
        f"optim.name {config.optim.name!r}": (
            config.optim.name != "adamw",
            "it needs norms of whole tensors, use adamw",
        ),
        "amp 'fp16'": (config.amp == "fp16", "its scaler needs whole gradients, use bf16"),
        "probe.staleness_control": (config.probe.staleness_control, "it encodes by the backbone alone, leave it off"),
        "scale.compile": (config.scale.compile, "blocks are put together while it runs, leave it off"),
    }
    for setting, (given, why) in refused.items():
        if given:
            raise ValueError(f"{setting} does not go with scale.parallel 'fsdp': {why}, or choose 'ddp'.")


def _sharded(model: nn.Module, device: torch.device, processes: Processes) -> Forward:
    """`model` with its encoders and heads split over the processes by torch's FSDP2, block by block, in place.

    What is in none of these, such as prototypes that a loss reads directly, stays whole in every process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # A backbone returns the class token, which is a view; nothing here changes it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (processes.count,))
    for unit in _units(model):
        # Put back after every forward pass, so that between two steps all weights are shards.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    for parameter in model.parameters():
        if parameter.requires_grad and local(parameter) is parameter:
            parameter.register_post_accumulate_grad_hook(_average)
    return model


def _units(model: nn.Module) -> list[nn.Module]:
    """The modules that are put together at once, inner ones first."""
    units: list[nn.Module] = []
    for encoder in (module for module in model.modules() if isinstance(module, Encoder)):
        backbone = encoder.backbone
        stages = [getattr(backbone, f"layer{i}") for i in range(1, 5) if hasattr(backbone, f"layer{i}")]
        units += [*getattr(backbone, "blocks", stages), backbone, encoder.projector]
    head = getattr(model, "predictor", None)
    return [*units, head] if head is not None and list(head.parameters()) else units


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad = sum_over_processes(parameter.grad) / world()[0]
