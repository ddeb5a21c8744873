"""The intervention of a run, built from its configuration; norms are in loss per weight, as the gradient."""

__all__ = ["build_intervention"]

from inspect import signature

from torch.optim import Optimizer

from ..probes.interventions import intervention_class
from ..probes.interventions._acting import Intervention, Layers
from .config import TrainConfig


def build_intervention(config: TrainConfig, layers: Layers, optimizer: Optimizer) -> Intervention | None:
    """What acts on the gradients of a step that spikes; None for nothing.

    What is not finite is left to `config.nonfinite`, which comes after: an intervention sees finite spikes only.
    Raises ValueError for a layer that the model lacks or that is frozen, and for settings out of range.

    >>> build_intervention(TrainConfig(), {}, None) is None
    True
    """
    chosen = config.intervene
    if chosen.rule == "none":
        return None
    cls = intervention_class(chosen.rule)
    own = {name: getattr(chosen, name) for name in ("steps", "factor") if name in signature(cls).parameters}
    if "nonfinite" in signature(cls).parameters:
        own["nonfinite"] = False
    try:
        return cls(chosen.layer, ratio=chosen.ratio, z=chosen.z, **own).attach(layers, optimizer)
    except ValueError as error:
        raise ValueError(f"--intervene: {error}.") from error
