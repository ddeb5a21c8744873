"""What is read from a model at every step: one sensor a file, values as tensors on the model's own device.

A sensor is a class with

- `series`: the `Series` that it measures, each with its dimensions and unit. A layer series `("layer", "step")`
  comes back as `f32[L]`, one value a layer; a scalar series `("step",)` as a tensor without dimensions.
- `observe()`: a dict with exactly those names. It is called once a step, after the last `backward()` and before
  clipping. What is known only after the optimizer's step comes from a second method, `after_step()`, and is NaN in
  `observe()`.
- `cost` (a phrase: what it does in a step), `syncs` (whether it makes the host wait for the device) and `of_frozen`
  (whether a frozen layer has a value: its weights and outputs do, its gradient does not).
- `attach(model, optimizer, layers)`, which builds one at its defaults, so that its name is enough for `watch`. One that
  needs more than that, such as the number of classes, has `example(model, optimizer)` instead, for the law tests.

It may have `details`, the names of values that go to the flight recorder and are no series; `feed(...)`, for what the
loop hands over (features); `loss_scale`, which `watch` sets when the gradients are still multiplied; `observed`, the
number of steps so far, which a resumed run sets; and `close()`, which removes hooks.

And laws, which a test checks for every file of this folder:

- **no host synchronisation**: nothing that waits for the device (`.item()`, `bool(tensor)`, `nonzero`, `.cpu()`);
- **nothing is touched**: no random number is drawn, no gradient or weight changes, no graph is kept, and a run with the
  sensor has the same weights, to the last bit, as a run without;
- **NaN means not measured** (a frozen layer, a step without a sample), never 0 and never a diverged value: that is Inf;
- **what is declared is returned**: the keys of `observe()` are the names in `series`;
- **the whole batch**: accumulated parts give what the batch at once gives; a weight that two layers share counts once;
- **the whole model**: of one in shards (FSDP2) every process has the values of the whole, or, where a sensor looks at
  what flows through the model, those of this process's share of the batch, and its docstring says so.

A sensor that goes through the parameters or gradients is a `TensorSensor` (`_by_layer.py`): it has `look()` in place of
`observe()` and says what it wants to know of each tensor. All of a step then read a tensor once, while it is in the
cache, and of a model in shards exchange their sums in one go. `look()` and `after_step()` of all sensors have to be
called in all processes.

The folder is the registry: to add a sensor, add a file whose `__all__` begins with its class.
"""

from __future__ import annotations

__all__ = ["Sensor", "attach", "layer_parameters", "sensor_class", "sensor_names", "series_of"]

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ..layers import group_layers


class Sensor(Protocol):
    """Something that measures once a step and leaves the values on the device."""

    series: ClassVar[tuple[Series, ...]]
    cost: ClassVar[str]
    syncs: ClassVar[bool]
    of_frozen: ClassVar[bool]

    def observe(self) -> dict[str, Tensor]:
        """This step's values by name: `[L]` for a layer series, no dimensions for a scalar."""
        ...


def attach(
    names: Iterable[str],
    model: nn.Module,
    optimizer: Optimizer,
    layers: Mapping[str, Sequence[tuple[str, nn.Parameter]]],
) -> dict[str, Any]:
    """Build the sensors `names` at their defaults over `layers`, `{layer: [(name, parameter), ...]}`.

    Raises ValueError for an unknown name, and for a sensor that needs more than a model (feature_knn).

    >>> import torch
    >>> model = nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(model.parameters())
    >>> list(attach(["grad_max", "weight_norm"], model, optimizer, layer_parameters(model)))
    ['grad_max', 'weight_norm']
    """
    classes = {name: sensor_class(name) for name in names}
    for name, cls in classes.items():
        if not hasattr(cls, "attach"):
            raise ValueError(
                f"the sensor {name!r} needs more than a model: build a {cls.__name__} and give it in place of its name"
            )
    return {name: cls.attach(model, optimizer, layers) for name, cls in classes.items()}


def sensor_names() -> tuple[str, ...]:
    """The sensors in this folder, by file name.

    >>> [name for name in sensor_names() if name.startswith("grad_")]
    ['grad_cosine', 'grad_max', 'grad_norm', 'grad_to_variance']
    """
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))  # an underscore: parts that sensors share


def sensor_class(name: str) -> type[Any]:
    """The sensor class of the file `name`.

    Raises ValueError for a name that no file has.

    >>> sensor_class("grad_norm").__name__
    'GradNorm'
    """
    if name not in sensor_names():
        raise ValueError(f"unknown sensor {name!r}; the known ones are {', '.join(sensor_names())}")
    module = importlib.import_module(f".{name}", __name__)
    return getattr(module, module.__all__[0])


def layer_parameters(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The parameters of `model` by layer, in forward order: `{layer: [(name, parameter), ...]}`.

    Frozen parameters are among them, since they may be unfrozen later. A tied weight is listed once, under the first of
    its names. Raises ValueError for a model without parameters.

    >>> len(layer_parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))))
    2
    """
    parameters = dict(model.named_parameters())  # tied ones once
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters: give a model with weights to observe")
    return {layer: [(n, parameters[n]) for n in names] for layer, names in group_layers(parameters).items()}


def series_of(sensors: Iterable[Sensor]) -> tuple[Series, ...]:
    """Every series of `sensors`, layer series and scalars: what their `TraceWriter` is to be told.

    >>> [series.name for series in series_of([sensor_class("grad_norm")(nn.Linear(1, 1))])]
    ['grad_norm', 'grad_norm_total']
    """
    return tuple(series for sensor in sensors for series in sensor.series)
