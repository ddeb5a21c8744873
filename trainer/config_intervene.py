"""Settings of what is done to a step whose gradient spikes, as a frozen dataclass; without a rule nothing is."""

__all__ = ["InterveneConfig"]

from dataclasses import dataclass

from ..probes.interventions import intervention_names
from .config_checks import positive, without_effect


@dataclass(frozen=True)
class InterveneConfig:
    """An intervention of `foreshock.probes.interventions`, decided before the update of the step that spikes."""

    rule: str = "none"
    """None; skip_update: leave out the update, with the momentum encoder's; freeze_layer: let the layer rest for some
    steps; clip: scale its gradient back to the baseline. (The first two wait for a GPU at every step.)"""
    layer: str | None = None
    """The layer that is watched, as the trace names it, or total (not with freeze_layer); None is the first layer."""
    ratio: float = 2.0
    """Smallest gradient norm that is a spike, in units of the median of the 256 steps before."""
    z: float = 6.0
    """Smallest robust z-score of a spike, on the logarithm. `foreshock spikes RUN --detector robust_z --z 3` lists
    those of an earlier run: take one between its noise and what is to be acted on."""
    steps: int = 20
    """freeze_layer only: number of steps that the layer rests."""
    factor: float = 1.0
    """clip only: what the norm is scaled to, in units of the baseline; at most `ratio`."""

    def __post_init__(self) -> None:
        if self.rule == "none":
            without_effect(self, "with rule 'none'", "layer", "ratio", "z", "steps", "factor")
        elif self.rule not in intervention_names():
            raise ValueError(f"rule {self.rule!r} must be one of none, {', '.join(intervention_names())}.")
        positive(self, "ratio", "z", "steps", "factor")
        if self.rule != "freeze_layer":
            without_effect(self, f"with rule {self.rule!r}", "steps")
        if self.rule != "clip":
            without_effect(self, f"with rule {self.rule!r}", "factor")
