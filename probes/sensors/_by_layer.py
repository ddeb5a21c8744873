"""What several sensors ask of a run's parameters, worked out together and put together to one number a layer."""

from __future__ import annotations

__all__ = ["ByLayer", "Layers", "Look", "TensorSensor", "observe_together"]

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import Sensor, layer_parameters
from ._piece import Piece, wide
from ._shards import Shards, local, over_shards, shards_of

Layers = Mapping[str, Sequence[tuple[str, nn.Parameter]]]
MAX_PLANS = 64  # sets of present tensors that are remembered
CPU_BYTES, DEVICE_BYTES = 2**20, 2**26  # a piece of work: what stays in a core's cache, and what fills a GPU


class TensorSensor:
    """A sensor that looks at one tensor after another: it says in `look()` what it wants to know of each.

    All that look in one step go through the tensors together, piece by piece, and of a sharded model exchange what they
    found at once.
    """

    def look(self) -> Look:
        """What is to be measured in this step, and what the sensor makes of it."""
        raise TypeError(f"{type(self).__name__} has no look()")

    def observe(self) -> dict[str, Tensor]:
        """This step's values by name."""
        return carry_out([self.look()])[0]


@dataclass(frozen=True)
class Look:
    """Reductions by layer, and what becomes of their results, f64[L] each (on MPS f32)."""

    reductions: Sequence[Reduction]
    then: Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Reduction:
    """`measure` of each parameter `[n]` of a piece, added up over a layer, or its maximum."""

    plan: _Plan
    measure: Callable[[Piece], Tensor]
    how: Literal["sum", "max"]


def observe_together(sensors: Collection[Sensor]) -> dict[str, Tensor]:
    """What all of `sensors` see in this step; those that look at the same tensors do it in one go.

    >>> from foreshock.probes.sensors import attach
    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[3.0, -4.0]])
    >>> optimizer = torch.optim.SGD(model.parameters())
    >>> sensors = attach(["grad_max", "throughput"], model, optimizer, layer_parameters(model))
    >>> observe_together(sensors.values())["grad_max"]
    tensor([4.])
    """
    looks = {i: sensor.look() for i, sensor in enumerate(sensors) if isinstance(sensor, TensorSensor)}
    found = dict(zip(looks, carry_out(list(looks.values())), strict=True))
    values: dict[str, Tensor] = {}
    for i, sensor in enumerate(sensors):
        values |= found[i] if i in found else sensor.observe()
    return values


@torch.no_grad()
def carry_out(looks: Sequence[Look]) -> list[dict[str, Tensor]]:
    """The values of each look."""
    reductions = [reduction for look in looks for reduction in look.reductions]
    found = _measure(reductions)
    over_shards(
        (values[part], shards, reduction.how)
        for reduction, values in zip(reductions, found, strict=True)
        for part, shards in reduction.plan.shards
    )
    answers = iter([r.plan.by_layer(values, r.how) for r, values in zip(reductions, found, strict=True)])
    return [look.then(*(next(answers) for _ in look.reductions)) for look in looks]


def _measure(reductions: Sequence[Reduction]) -> list[Tensor]:
    """What each measures of its tensors, in its plan's order: f64[n], Inf for NaN."""
    found: list[list[Tensor]] = [[] for _ in reductions]
    alike: dict[Any, list[int]] = {}
    for i, reduction in enumerate(reductions):
        alike.setdefault(reduction.plan.key, []).append(i)
    for same in alike.values():
        plan = reductions[same[0]].plan
        for members in plan.pieces:
            piece = Piece(members, [plan.parameters[i] for i in members])
            for i in same:
                found[i].append(reductions[i].measure(piece))
    return [reduction.plan.joined(parts) for reduction, parts in zip(reductions, found, strict=True)]


class ByLayer:
    """The parameters of a run with the layer of each, for sensors that look at one tensor after another.

    `layers` is `{layer: [(name, parameter), ...]}`, or a model, which is grouped by `layer_parameters`. A parameter of
    two layers belongs to the first. Raises ValueError for layers without a parameter.

    >>> model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    >>> by_layer = ByLayer(model)
    >>> sizes = by_layer.sum([0, 1], lambda piece: torch.tensor([p.numel() for p in piece.parameters]))
    >>> carry_out([Look([sizes], lambda sizes: {"sizes": sizes})])[0]["sizes"].tolist()
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
        self.key = tuple(map(id, self.parameters))
        self.unknown = torch.full((len(self.layers),), math.nan)
        """f32[L], what is not measured; for all steps, so not to be written to."""
        self._plans: dict[tuple[int, ...], _Plan] = {}

    def with_gradient(self) -> list[int]:
        """Which parameters have a gradient now; a stale one of a frozen parameter does not count."""
        return [i for i, p in enumerate(self.parameters) if p.requires_grad and p.grad is not None]

    def trainable(self) -> list[int]:
        """Which parameters are not frozen now."""
        return [i for i, p in enumerate(self.parameters) if p.requires_grad]

    def sum(self, members: Sequence[int], measure: Callable[[Piece], Tensor]) -> Reduction:
        """To be added up over each layer: `measure` of the parameters `members`, NaN for a layer without, Inf for NaN.

        `measure` gets some of `members` and returns a number for each `[n]`; of sharded ones (DTensor) it sees this
        process's part, and the sum is that of all parts.
        """
        return Reduction(self._plan(members), measure, "sum")

    def max(self, members: Sequence[int], measure: Callable[[Piece], Tensor]) -> Reduction:
        """The same, with the largest value of each layer in place of the sum."""
        return Reduction(self._plan(members), measure, "max")

    def sizes(self, members: Sequence[int]) -> Tensor:
        """The number of weights of each layer among the parameters `members`: f64[L], NaN for none."""
        return self._plan(members).sizes

    def _plan(self, members: Sequence[int]) -> _Plan:
        key = tuple(members)
        if key not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = _Plan(self, key)
        return self._plans[key]


class _Plan:
    """Which parameters are looked at together, and their layers; kept, since the indices are copied over."""

    def __init__(self, by_layer: ByLayer, members: tuple[int, ...]) -> None:
        self.key = by_layer.key, members
        self.parameters, owner = by_layer.parameters, by_layer.owner
        home = self.parameters[members[0]].device if members else torch.device("cpu")
        dtype = wide(torch.empty(0, device=home)).dtype
        kinds: dict[tuple[torch.device, torch.dtype, Shards], list[int]] = {}
        for i in members:
            p = self.parameters[i]
            kinds.setdefault((p.device, p.dtype, shards_of(p)), []).append(i)
        self.pieces: list[list[int]] = []
        self.shards: list[tuple[slice, Shards]] = []
        """Which of the values are to be put together over which processes."""
        order: list[int] = []
        for (device, _, shards), same in kinds.items():
            self.shards.append((slice(len(order), len(order) + len(same)), shards))
            order += same
            room = CPU_BYTES if device.type == "cpu" else DEVICE_BYTES
            self.pieces += _pieces(same, [4 * local(self.parameters[i]).numel() for i in same], room)
        self._owners = torch.tensor([owner[i] for i in order], dtype=torch.int64, device=home)
        start, sizes = ([math.nan] * len(by_layer.layers) for _ in range(2))
        for i in members:
            start[owner[i]] = 0.0
            sizes[owner[i]] = self.parameters[i].numel() + (0 if math.isnan(sizes[owner[i]]) else sizes[owner[i]])
        self._start, self.sizes = (torch.tensor(x, dtype=dtype, device=home) for x in (start, sizes))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The values of all pieces: f64[n], Inf where one is NaN."""
        if not parts:
            return self._start.new_zeros(0)
        device, dtype = self._start.device, self._start.dtype
        values = torch.cat([part.to(device, non_blocking=True) for part in parts]).to(dtype)
        return values.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)

    def by_layer(self, values: Tensor, how: Literal["sum", "max"]) -> Tensor:
        """The sum or the maximum over each layer: f64[L], NaN for one without values."""
        if how == "sum":
            return self._start.index_add(0, self._owners, values)
        return self._start.scatter_reduce(0, self._owners, values, "amax")


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
