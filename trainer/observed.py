"""The layers of a run: parameters that are trained, or could be, and the norms of their gradients at this step."""

__all__ = ["Gradients", "observed_layers"]

from torch import Tensor, nn

from ..probes.layers import group_layers
from ..probes.sensors.grad_norm import GradNorm


class Gradients(GradNorm):
    """The sensor of gradient norms, measured once a step for all who need them: trace, clipping, health.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = model.weight.detach() * 0
    >>> gradients = Gradients(model)
    >>> gradients.measure(), gradients.observe()["grad_norm"]
    (tensor([0.]), tensor([0.]))
    """

    _values: dict[str, Tensor]

    def measure(self) -> Tensor:
        """The norm of every layer, `f32[L]`, of the gradients as they are now."""
        self._values = super().observe()
        return self._values["grad_norm"]

    def observe(self) -> dict[str, Tensor]:
        """What was measured last."""
        return self._values


def observed_layers(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Parameters by layer, in the order of the data flow, without the momentum encoder's, which have no gradient.

    >>> from .config import TrainConfig
    >>> from .methods import build_method
    >>> list(observed_layers(build_method(TrainConfig())))[:3]
    ['patch_embed', 'tokens', 'blocks.00']
    """
    named = {n: p for n, p in model.named_parameters() if not n.startswith("momentum_encoder.")}
    return {layer: [(n, named[n]) for n in names] for layer, names in group_layers(named).items()}
