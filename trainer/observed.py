"""The layers of a run: parameters that are trained, or could be, by the layer whose gradient a trace shows."""

__all__ = ["observed_layers"]

from torch import nn

from ..probes.layers import group_layers


def observed_layers(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Parameters by layer, in the order of the data flow, without the momentum encoder's, which have no gradient.

    >>> from .config import TrainConfig
    >>> from .methods import build_method
    >>> list(observed_layers(build_method(TrainConfig())))[:3]
    ['patch_embed', 'tokens', 'blocks.00']
    """
    named = {n: p for n, p in model.named_parameters() if not n.startswith("momentum_encoder.")}
    return {layer: [(n, named[n]) for n in names] for layer, names in group_layers(named).items()}
