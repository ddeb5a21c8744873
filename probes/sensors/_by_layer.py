"""One number a tensor, put together to one a layer: sums and maxima on the device, NaN for a layer without any."""

from __future__ import annotations

__all__ = ["LOW_PRECISION", "ByLayer", "Layers", "floats", "gradients", "sums", "wide"]

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from . import layer_parameters

Layers = Mapping[str, Sequence[tuple[str, nn.Parameter]]]
LOW_PRECISION = (torch.float16, torch.bfloat16)
MAX_PLANS = 64  # sets of present tensors that are remembered
CPU_BYTES, DEVICE_BYTES = 2**19, 2**26  # a piece of work: what stays in a core's cache, and what fills a GPU


class ByLayer:
    """The parameters of a run with the layer of each, for sensors that look at one tensor after another.

    `layers` is `{layer: [(name, parameter), ...]}`, or a model, which is grouped by `layer_parameters`. A parameter of
    two layers belongs to the first. Raises ValueError for layers without a parameter.

    >>> model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    >>> by_layer = ByLayer(model)
    >>> sizes = by_layer.reduce([0, 1], lambda i: torch.tensor([by_layer.parameters[k].numel() for k in i]))
    >>> sizes.tolist()
    [3.0, nan]
    """

    def __init__(self, layers: Layers | nn.Module) -> None:
        grouped = layer_parameters(layers) if isinstance(layers, nn.Module) else layers
        self.layers = tuple(grouped)
        owner: dict[nn.Parameter, int] = {}
        for index, parameters in enumerate(grouped.values()):
            for _, parameter in parameters:
                owner.setdefault(parameter, index)
        if not owner:
            raise ValueError("got layers without a parameter; give {layer: [(name, parameter), ...]} or a model")
        self.parameters, self.owner = list(owner), list(owner.values())
        self._plans: dict[tuple[int, ...], _Plan] = {}

    def with_gradient(self) -> list[int]:
        """Which parameters have a gradient now; a stale one of a frozen parameter does not count."""
        return [i for i, p in enumerate(self.parameters) if p.requires_grad and p.grad is not None]

    def trainable(self) -> list[int]:
        """Which parameters are not frozen now."""
        return [i for i, p in enumerate(self.parameters) if p.requires_grad]

    def reduce(
        self, members: Sequence[int], measure: Callable[[list[int]], Tensor], how: Literal["sum", "max"] = "sum"
    ) -> Tensor:
        """Reduce `measure` of the parameters `members` over each layer: f64[L] (on MPS f32), Inf where one is NaN.

        `measure` gets some of `members`, of one device and dtype, and returns a number for each `[n]`.

        Raises ValueError for sharded parameters (DTensor), whose local part is not the parameter.
        """
        plan = self._plan(members)
        total = plan.start
        for part, owners in plan.parts:
            values = measure(part).to(total.device, total.dtype, non_blocking=True)
            values = values.nan_to_num(nan=math.inf, posinf=math.inf)
            total = (
                total.index_add(0, owners, values) if how == "sum" else total.scatter_reduce(0, owners, values, "amax")
            )
        return total

    def sizes(self, members: Sequence[int]) -> Tensor:
        """The number of weights of each layer among the parameters `members`: f64[L], NaN for none."""
        return self._plan(members).sizes

    def _plan(self, members: Sequence[int]) -> _Plan:
        key = tuple(members)
        if key not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = _Plan(self, members)
        return self._plans[key]


class _Plan:
    """Pieces of the work: which parameters at a time, and their layers; kept, since the indices are copied over."""

    def __init__(self, by_layer: ByLayer, members: Sequence[int]) -> None:
        parameters, owner = by_layer.parameters, by_layer.owner
        _refuse_sharded([parameters[i] for i in members])
        home = parameters[members[0]].device if members else torch.device("cpu")
        dtype = wide(torch.empty(0, device=home)).dtype
        kinds = dict.fromkeys((parameters[i].device, parameters[i].dtype) for i in members)
        self.parts: list[tuple[list[int], Tensor]] = []
        for kind in kinds:
            same = [i for i in members if (parameters[i].device, parameters[i].dtype) == kind]
            room = CPU_BYTES if kind[0].type == "cpu" else DEVICE_BYTES
            for part in _pieces(same, [4 * parameters[i].numel() for i in same], room):
                self.parts.append((part, torch.tensor([owner[i] for i in part], device=home)))
        start, sizes = ([math.nan] * len(by_layer.layers) for _ in range(2))
        for i in members:
            start[owner[i]] = 0.0
            sizes[owner[i]] = parameters[i].numel() + (0 if math.isnan(sizes[owner[i]]) else sizes[owner[i]])
        self.start, self.sizes = (torch.tensor(x, dtype=dtype, device=home) for x in (start, sizes))


def floats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, those in float16 and bfloat16 as float32.

    >>> floats([torch.ones(1, dtype=torch.bfloat16)])[0].dtype
    torch.float32
    """
    return [t.float() if t.dtype in LOW_PRECISION else t.detach() for t in tensors]


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
    return torch.stack(torch._foreach_norm(list(tensors), 1))  # pyright: ignore[reportPrivateImportUsage]


def gradients(parameters: Sequence[nn.Parameter], loss_scale: Tensor | float | None = None) -> list[Tensor]:
    """The gradients in float32 or wider, without the factor of a GradScaler; sparse ones as dense.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> weight.grad = torch.tensor([4.0, 8.0])
    >>> gradients([weight], loss_scale=4.0)[0].tolist()
    [1.0, 2.0]
    """
    grads = floats([_dense(p.grad) for p in parameters if p.grad is not None])
    return grads if loss_scale is None else [g / loss_scale for g in grads]


def _pieces(members: Sequence[int], sizes: Sequence[int], room: int) -> list[list[int]]:
    pieces: list[list[int]] = []
    used = room + 1
    for member, size in zip(members, sizes, strict=True):
        if used + size > room:
            pieces.append([])
            used = 0
        pieces[-1].append(member)
        used += size
    return pieces


def _dense(grad: Tensor) -> Tensor:
    return grad.to_dense() if grad.layout is torch.sparse_coo else grad


def _refuse_sharded(parameters: Sequence[Tensor]) -> None:
    if any(hasattr(parameter, "to_local") for parameter in parameters):
        raise ValueError(
            "got sharded parameters (DTensor), of which this process holds a part; allowed are whole ones (one process "
            "or DDP): of a sharded model record grad_norm only"
        )
