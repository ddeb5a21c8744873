"""BatchNorm over the batches of all processes: the same values, gradients and statistics as over one joint batch.

torch's SyncBatchNorm refuses the CPU, so there is one of our own for it; on CUDA torch's is used. Parameters, buffers
and their names stay as they are, so a checkpoint fits either. Statistics of the two crops stay apart, since each call
is a batch of its own (arXiv 2104.02057, appendix).
"""

__all__ = ["SyncBatchNorm", "synchronise_norms"]

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from .gathering import world


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with every BatchNorm replaced by one over all processes; in place, but for a model that is one.

    >>> head = synchronise_norms(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), torch.device("cpu"))
    >>> type(head[1]).__name__, list(head.state_dict())[2]
    ('SyncBatchNorm', '1.weight')
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if isinstance(model, _BatchNorm) and not isinstance(model, SyncBatchNorm):
        return SyncBatchNorm(model)
    for name, child in model.named_children():
        setattr(model, name, synchronise_norms(child, device))
    return model


class SyncBatchNorm(_BatchNorm):
    """The BatchNorm `norm` with statistics of all processes in training; in evaluation the running ones, as ever.

    It takes over the parameters and buffers of `norm` themselves. Computed in float32 at least.

    >>> SyncBatchNorm(nn.BatchNorm1d(2, affine=False))(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))[0, 0].item()
    -0.9999949932098389
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        for name, parameter in norm._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in norm._buffers.items():
            self.register_buffer(name, buffer)
        self.training = norm.training

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (the base class's name)
        if input.ndim < 2:
            raise ValueError(f"BatchNorm got {input.ndim} axes and needs [N, C, ...]: add the batch axis.")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """`[N, C, ...]`, normalised per channel C."""
        if world()[0] == 1 or not (self.training or self.running_mean is None):
            return super().forward(input)
        self._check_input_dim(input)
        normalised, mean, square, count = _Normalise.apply(input, self.weight, self.bias, self.eps)  # pyright: ignore
        if self.training and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = square / (count - 1)
            self.running_mean.mul_(1 - share).add_(mean.to(self.running_mean.dtype), alpha=share)
            self.running_var.mul_(1 - share).add_(unbiased.to(self.running_var.dtype), alpha=share)
        return normalised


class _Normalise(torch.autograd.Function):
    """One gathering of every process's mean, squared deviations and count forward, one sum of gradients backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        kind, channels = x.dtype, x.shape[1]
        x = x.to(torch.promote_types(kind, torch.float32))
        rest = [axis for axis in range(x.ndim) if axis != 1]
        own = x.mean(rest)
        deviation = (x - _spread(own, x)).square().sum(rest)
        rows = x.numel() // channels
        parts = [x.new_empty(2 * channels + 1) for _ in range(world()[0])]
        dist.all_gather(parts, torch.cat([own, deviation, x.new_full((1,), rows)]))
        # Merged as in Chan, Golub and LeVeque (1979): no difference of two large sums.
        means, deviations, counts = torch.stack(parts).split([channels, channels, 1], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        square = (deviations + counts * (means - mean).square()).sum(0)
        scale = (square / count + eps).rsqrt()
        unit = (x - _spread(mean, x)) * _spread(scale, x)
        ctx.save_for_backward(unit, weight, scale, count)
        ctx.kind = kind
        ctx.mark_non_differentiable(mean, square, count)
        result = unit if weight is None else unit * _spread(weight, x)
        result = result if bias is None else result + _spread(bias, x)
        return result.to(kind), mean, square, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, scale, count = ctx.saved_tensors
        grad = grads[0].to(unit.dtype)
        rest = [axis for axis in range(unit.ndim) if axis != 1]
        sums = torch.cat([grad.sum(rest), (grad * unit).sum(rest)])
        # Of the parameters each process has its own share, as of every other parameter's gradient.
        for_bias, for_weight = sums.clone().chunk(2)
        dist.all_reduce(sums)
        mean, along = (sums / count).chunk(2)
        factor = scale if weight is None else scale * weight
        grad = _spread(factor, unit) * (grad - _spread(mean, unit) - unit * _spread(along, unit))
        own = (None, None) if weight is None else (for_weight.to(weight.dtype), for_bias.to(weight.dtype))
        return grad.to(ctx.kind), *own, None


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """One value a channel, `[C]`, shaped to go with `[N, C, ...]`."""
    return values.view(1, -1, *[1] * (like.ndim - 2))
