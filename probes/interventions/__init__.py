"""What is done to a step whose gradient spikes, before its update: one intervention a file; the folder is the registry.

An intervention is a subclass of `foreshock.probes.interventions._acting.Intervention` with

- parameters of its own and those of the rule that says when a layer spikes (`_rule.Thresholds`);
- `reads_host`: whether the host has to read one value a step from the device to decide (on a CPU that is free);
- `_act(verdict)`, which changes gradients in place, or takes them away, and returns which of the watched norms it acted
  on; and `words(risen)`, which says what was done.

Taking a gradient away means `.grad = None`: every optimizer of torch then leaves the parameter and its own memory of it
(momentum, second moment, step count) as they are, and does not decay the weight.

Laws, which a test checks for every file of this folder:

- a run in which nothing spikes has the same weights, to the last bit, as a run without;
- what it acts on is told: a ratio for each layer and step, which becomes an event of kind `intervention` in a trace;
- the host reads what `reads_host` says and no more, but for a step on which it acts;
- `state_dict()` is tensors, numbers and containers, and a run that goes on from it does what the whole run does;
- with data parallelism every process decides alike, since it sees the same gradients.

To add one, add a file whose `__all__` begins with its class.
"""

from __future__ import annotations

__all__ = ["intervention_class", "intervention_names"]

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._acting import Intervention


def intervention_names() -> tuple[str, ...]:
    """The interventions in this folder, by file name.

    >>> intervention_names()
    ('clip', 'freeze_layer', 'skip_update')
    """
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))  # an underscore: parts that they share


def intervention_class(name: str) -> type[Intervention]:
    """The class of the file `name`, which needs torch.

    Raises ValueError for a name that no file has.

    >>> intervention_class("clip").__name__
    'Clip'
    """
    if name not in intervention_names():
        raise ValueError(f"unknown intervention {name!r}; the known ones are {', '.join(intervention_names())}")
    module = importlib.import_module(f".{name}", __name__)
    return getattr(module, module.__all__[0])
