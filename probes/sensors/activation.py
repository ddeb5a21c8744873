"""What every layer hands on: root mean square, largest absolute value and kurtosis of its output, no unit."""

from __future__ import annotations

__all__ = ["Activation"]

import math
import warnings
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...traces.schema import Series
from . import layer_parameters
from ._by_layer import Layers, wide
from ._modules import first_tensor, layer_modules, refuse_compiled
from ._sampling import Sampling


def _series(name: str, doc: str) -> Series:
    return Series(name, ("layer", "step"), doc=doc + "; NaN: not sampled, or no module of its own")


class Activation(Sampling):
    """`activation_rms`, `activation_max` and `activation_kurtosis`, f32[L] each, of every layer's output.

    Over all elements that a layer's module put out since the step before: all parts of an accumulated batch, both crops
    of an image. Kurtosis is E(x − μ)⁴ / σ⁴, 3 for a normal distribution; a few outlier channels, which cost the others
    their digits in low precision, make it large. The module is the innermost one that holds all of the layer's
    parameters: a block, the patch projection. Bare parameters (class token, positions) have none, and read NaN.

    - Forward hooks look at every `every`-th step (10), in training mode with gradients on, so evaluations in between
      don't count. Frozen layers are measured too.
    - With DDP and FSDP it is this process's share of the batch. A checkpointed block runs twice, and counts so.
    - `torch.compile`: a compiled model is refused; one compiled later has its hooks left out, and a warning says so.
    - Inf: an output that is not finite.

    `close()` removes the hooks. Raises ValueError for `every` below 1 and a compiled model.

    Cost: 7 passes over the layers' outputs every `every` steps, with two temporaries of one output. No host sync.

    >>> model = nn.Sequential()
    >>> model.patch_embed, model.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
    >>> model.patch_embed.weight.data = torch.eye(2)
    >>> sensor = Activation(model, every=1)
    >>> _ = model(torch.tensor([[3.0, -4.0]]))
    >>> sensor.observe()["activation_max"].tolist()[0]
    4.0
    """

    series: ClassVar[tuple[Series, ...]] = (
        _series("activation_rms", "root mean square of each layer's output"),
        _series("activation_max", "largest absolute value in each layer's output"),
        _series("activation_kurtosis", "fourth standardised moment of each layer's output, 3 for a normal one"),
    )
    cost: ClassVar[str] = "7 passes over the layers' outputs every 10 steps"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(self, model: nn.Module, layers: Layers | None = None, *, every: int = 10) -> None:
        super().__init__(every)
        refuse_compiled(model, "activation", "outputs")
        layers = layer_parameters(model) if layers is None else layers
        self.layers = tuple(layers)
        self._seen: list[list[Tensor]] = [[] for _ in self.layers]
        self._handles: list[RemovableHandle] = []
        self._modules = layer_modules(model, layers)
        for index, module in enumerate(self._modules):
            if module is not None:
                self._handles.append(module.register_forward_hook(self._hook(index)))
        self._warned = False

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over the modules of `layers`."""
        return cls(model, layers)

    @torch.no_grad()
    def observe(self) -> dict[str, Tensor]:
        """The three series of the outputs since the last call."""
        seen, self._seen = self._seen, [[] for _ in self.layers]
        due = self.take_turn()
        seen = seen if due else self._seen  # the first step of a resumed run is looked at in any case
        if due and not any(seen) and not self._warned:
            self._warned = True
            warnings.warn(
                "foreshock: no layer's output was seen in this step, so activation_* stays empty: was the model "
                "compiled after watch(), or run in eval mode?",
                stacklevel=2,
            )
        device = next((parts[0].device for parts in seen if parts), torch.device("cpu"))
        missing = torch.full((3,), math.nan, device=device)
        table = torch.stack([_summary(parts).to(device) if parts else missing for parts in seen], 1)
        return {series.name: row for series, row in zip(self.series, table.float(), strict=True)}

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, index: int) -> Any:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or not (self.due and module.training and torch.is_grad_enabled()):
                return
            if module is not self._modules[index]:  # a copy of the model, such as a momentum encoder, copies the hooks
                return
            tensor = first_tensor(output)
            if tensor is not None and tensor.numel():
                self._seen[index].append(_moments(tensor.detach()))

        return look


@torch.no_grad()
def _moments(x: Tensor) -> Tensor:
    """n, mean, sums of the centred second, third and fourth powers, and max |x|: f64[6]."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = x.mean()
    centred = x - mean
    squares = centred * centred
    second, third, fourth = squares.mean(), (squares * centred).mean(), squares.square_().mean()
    n = x.numel()
    # Several parts are put together later, and then the differences of the means need every digit.
    values = wide(torch.stack([mean, second, third, fourth, x.abs().amax()]))
    return torch.cat([values.new_full((1,), n), values[:1], values[1:4] * n, values[4:]])


def _summary(parts: list[Tensor]) -> Tensor:
    """RMS, max |x| and kurtosis of all parts together, Inf where not finite: [3]."""
    table = torch.stack([part.to(parts[0].device) for part in parts])
    n, mean, second, third, fourth, largest = table.unbind(1)
    total = n.sum()
    centre = (n * mean).sum() / total
    d = mean - centre
    m2 = (second + n * d**2).sum() / total
    m4 = (fourth + 4 * d * third + 6 * d**2 * second + n * d**4).sum() / total
    kurtosis = torch.where(m2 == 0, m2, m4 / m2**2)  # a constant output has no shape
    values = torch.stack([(m2 + centre**2).sqrt(), largest.amax(), kurtosis])
    return values.nan_to_num(nan=math.inf, posinf=math.inf)
