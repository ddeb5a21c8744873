"""What is read from a model at every step: one sensor a file, values as tensors on the model's own device.

A sensor is a class with two things:

- `series`: the `Series` that it measures, each with its dimensions and unit. A layer series `("layer", "step")`
  comes back as `f32[L]`, one value a layer; a scalar series `("step",)` as a tensor without dimensions.
- `observe()`: a dict with exactly those names. It is called once a step, after the last `backward()` and before
  clipping.

And four laws, which a test checks for every file of this folder:

- **no host synchronisation**: nothing that waits for the device (`.item()`, `bool(tensor)`, `nonzero`, `.cpu()`);
- **nothing is touched**: no random number is drawn, no gradient or weight changes, no graph is kept;
- **NaN means not measured** (a frozen layer, a step without an evaluation), never 0 and never a diverged value;
- **what is declared is returned**: the keys of `observe()` are the names in `series`.

The folder is the registry: to add a sensor, add a file whose `__all__` begins with its class. The class has an
`example(model, optimizer)`, which builds a small one that is ready to observe, for documentation and for that test.
"""

from __future__ import annotations

__all__ = ["Sensor", "layer_parameters", "sensor_class", "sensor_names", "series_of"]

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ..layers import group_layers


class Sensor(Protocol):
    """Something that measures once a step and leaves the values on the device."""

    series: ClassVar[tuple[Series, ...]]

    def observe(self) -> dict[str, Tensor]:
        """This step's values by name: `[L]` for a layer series, no dimensions for a scalar."""
        ...

    @classmethod
    def example(cls, model: nn.Module, optimizer: Optimizer) -> Self:
        """A small sensor over `model`, ready to observe."""
        ...


def sensor_names() -> tuple[str, ...]:
    """The sensors in this folder, by file name.

    >>> sensor_names()
    ('feature_knn', 'grad_norm')
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


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
