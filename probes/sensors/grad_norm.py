"""The L2 norm of every layer's gradient, in the unit of the gradient itself (loss per weight)."""

from __future__ import annotations

__all__ = ["GradNorm"]

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import GRAD_NORM, SCALARS, Series
from ..flight import BY_PARAMETER
from . import layer_parameters
from ._piece import LOW_PRECISION
from ._shards import Shards, local, over_shards, shards_of

MAX_PLANS = 64  # sets of present gradients that are remembered (layers that are skipped at random make many)
Kind = tuple[torch.device, torch.dtype, Shards]


class GradNorm:
    """`grad_norm: f32[L]`, the L2 norm over all gradients of a layer, and `grad_norm_total: f32[]` over all layers.

    `layers` is `{layer: [(name, parameter), ...]}`, or a model, which is grouped by `layer_parameters`. This is the
    quantity of Fig. 4 of Chen, Xie and He (arXiv 2104.02057), for every layer at every step.

    - A layer of which no parameter has a gradient (frozen, or unused in this step) is NaN: not measured. What is
      measured is decided at each step, so freezing in mid-run needs nothing. A stale `.grad` of a frozen parameter
      does not count.
    - A gradient that holds Inf **or NaN** gives `inf`: a diverged layer never looks like an unmeasured one.
    - A parameter shared by two layers counts once, in the first.
    - float16 and bfloat16 gradients are converted to float32 before they are squared: the square of 300 is already
      more than float16 holds. The squares of the tensors' norms are summed in float64, so a sum beyond 1.8e19² does not
      overflow either. float64 gradients stay float64 all the way, and give a float64 result.
    - On a CPU torch sums one float32 tensor's squares in order: with 1e8 elements in *one* tensor its norm is 2 % off
      (1e7: 3e-6).

    - Sharded gradients (DTensor, as of FSDP2): every process measures its shards and the squares are summed over those
      that hold the others, one exchange a step in which all of them have to take part. So every process has the norm of
      the whole gradient.

    With `by_parameter` there is also `grad_norm_by_parameter: f32[P]`, the same norms before they are put together, for
    the flight recorder; `parameters` says which they are, and the layer of each.

    `loss_scale` (a number or a tensor) divides the result, for gradients that are still multiplied by a GradScaler.

    Raises ValueError for an empty mapping, and for a DTensor whose parts have yet to be summed up (Partial).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> GradNorm({"head": list(model.named_parameters())}).observe()["grad_norm"]
    tensor([5.])
    """

    series: ClassVar[tuple[Series, ...]] = (GRAD_NORM, SCALARS["grad_norm_total"])
    cost: ClassVar[str] = "one pass over the gradients a step"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = False

    def __init__(
        self, layers: Mapping[str, Sequence[tuple[str, nn.Parameter]]] | nn.Module, *, by_parameter: bool = False
    ) -> None:
        grouped = layer_parameters(layers) if isinstance(layers, nn.Module) else layers
        self.layers = tuple(grouped)
        self.loss_scale: Tensor | float | None = None
        self.last: dict[str, Tensor] = {}  # what `observe()` returned last, without the details
        self.details = (BY_PARAMETER,) if by_parameter else ()
        self.parameters: dict[str, str] = {}  # name -> layer, in the order of the details
        owner = {}
        for index, (layer, parameters) in enumerate(grouped.items()):
            for name, parameter in parameters:
                if parameter not in owner:  # tied weights: the first layer that has it
                    owner[parameter] = index
                    self.parameters[name if name not in self.parameters else f"{layer}/{name}"] = layer
        if not owner:
            raise ValueError("got layers without a parameter; give {layer: [(name, parameter), ...]} or a model")
        self._parameters, self._owner = list(owner), list(owner.values())
        self._plan = _Plan((), self._owner, len(self.layers))
        self._plans: dict[tuple[Kind | None, ...], _Plan] = {}

    @classmethod
    def attach(
        cls, model: nn.Module, optimizer: Optimizer, layers: Mapping[str, Sequence[tuple[str, nn.Parameter]]]
    ) -> Self:
        """A sensor over `layers`."""
        return cls(layers)

    @property
    def measured(self) -> int:
        """How many parameters had a gradient at the last `observe()`; a host number, free to ask."""
        return sum(len(group) for _, group, _ in self._plan.groups)

    @torch.no_grad()
    def observe(self) -> dict[str, Tensor]:
        """`{"grad_norm": f32[L], "grad_norm_total": f32[]}` of the gradients as they are now."""
        grads = [p.grad if p.requires_grad else None for p in self._parameters]
        kinds = tuple(None if g is None else (g.device, g.dtype, shards_of(g)) for g in grads)
        if kinds not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[kinds] = _Plan(kinds, self._owner, len(self.layers))
        plan = self._plan = self._plans[kinds]
        squares = plan.start  # 0 where a layer is measured, NaN where not
        each = squares.new_full((len(grads),), math.nan) if self.details else squares
        found = [_squares([cast(Tensor, grads[i]) for i in members], squares) for _, members, _ in plan.groups]
        over_shards((values, shards, "sum") for values, (shards, _, _) in zip(found, plan.groups, strict=True))
        for values, (_, members, owners) in zip(found, plan.groups, strict=True):
            squares = squares.index_add(0, owners, values)
            if self.details:
                each = each.index_copy(0, plan.places(members), values.sqrt())
        total = squares.nansum() if plan.groups else squares.new_full((), math.nan)
        result = torch.cat([squares, total[None]]).sqrt()
        if self.loss_scale is not None:
            result = result / self.loss_scale
        result = result.to(plan.dtype)
        self.last = {"grad_norm": result[:-1], "grad_norm_total": result[-1]}
        if not self.details:
            return self.last
        return self.last | {BY_PARAMETER: (each if self.loss_scale is None else each / self.loss_scale).float()}


class _Plan:
    """Which gradients there are, by device, dtype and sharding; kept for later steps, since its indices are copied."""

    def __init__(self, kinds: tuple[Kind | None, ...], owner: Sequence[int], n_layers: int) -> None:
        present = [kind for kind in kinds if kind is not None]
        home = present[0][0] if present else torch.device("cpu")
        wide = torch.float32 if home.type == "mps" else torch.float64  # MPS has no float64
        self.dtype = torch.float64 if any(dtype == torch.float64 for _, dtype, _ in present) else torch.float32
        self.groups: list[tuple[Shards, list[int], Tensor]] = []
        for kind in dict.fromkeys(present):
            members = [i for i, k in enumerate(kinds) if k == kind]
            self.groups.append((kind[2], members, torch.tensor([owner[i] for i in members], device=home)))
        measured = {owner[i] for i, kind in enumerate(kinds) if kind is not None}
        start = [0.0 if layer in measured else math.nan for layer in range(n_layers)]
        self.start = torch.tensor(start, dtype=wide, device=home)
        self._places: dict[int, Tensor] = {}

    def places(self, members: list[int]) -> Tensor:
        """The parameters' numbers on the device; copied there once, since each is in one group."""
        if members[0] not in self._places:
            self._places[members[0]] = torch.tensor(members, device=self.start.device)
        return self._places[members[0]]


def _squares(grads: list[Tensor], like: Tensor) -> Tensor:
    """The squared norm of each gradient's part that lies here, on the device and in the dtype of `like`: [n]."""
    # A sparse embedding gradient repeats rows: they must be added up before they are squared.
    parts = [local(g).coalesce().values() if g.layout is torch.sparse_coo else local(g) for g in grads]
    wider = torch.float32 if parts[0].dtype in LOW_PRECISION else None
    # The one-pass kernel behind clip_grad_norm_; it has no public name.
    norms = torch.stack(torch._foreach_norm(parts, 2, wider))  # pyright: ignore[reportPrivateImportUsage]
    return norms.to(like.device, like.dtype).nan_to_num(nan=math.inf, posinf=math.inf).square()
