"""Learning rate and momentum as functions of the time in epochs (a float: steps so far / steps per epoch).

Both are evaluated anew at every step, before it: the first step of a warm-up has learning rate 0.
Source: arXiv 2104.02057, Sec. 5 (learning rate) and appendix (momentum, for ResNet-50); the cosine of the momentum
for ViT is the published code's.
"""

__all__ = ["Schedules", "lr_at", "momentum_at"]

from dataclasses import dataclass
from math import cos, pi

from .config import TrainConfig


def lr_at(epoch: float, *, peak: float, epochs: float, warmup_epochs: float = 0.0, schedule: str = "cosine") -> float:
    """Learning rate at the time `epoch` of a run of `epochs`: linear from 0 to `peak`, then half a cosine to 0.

    With schedule "constant" it stays at the peak after the warm-up.

    >>> lr_at(20, peak=2.4e-3, epochs=300, warmup_epochs=40)
    0.0012
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    if schedule == "constant":
        return peak
    return peak * _half_cosine((epoch - warmup_epochs) / (epochs - warmup_epochs))


def momentum_at(epoch: float, *, base: float, epochs: float, schedule: str = "constant") -> float:
    """Momentum of the momentum encoder at the time `epoch`: `base`, or a half cosine from `base` to 1.

    >>> momentum_at(150, base=0.99, epochs=300, schedule="cosine")
    0.995
    """
    return base if schedule == "constant" else 1.0 - (1.0 - base) * _half_cosine(epoch / epochs)


@dataclass(frozen=True)
class Schedules:
    """The schedules of one run by step, for a data set that gives `steps_per_epoch` steps.

    >>> schedules = Schedules(TrainConfig(steps=1500), steps_per_epoch=234)
    >>> schedules.total_steps, schedules.lr(0), schedules.lr(75), schedules.momentum(0)
    (1500, 0.0, 0.004, 0.99)
    """

    config: TrainConfig
    steps_per_epoch: int

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"steps_per_epoch {self.steps_per_epoch} must be at least 1: use a batch no larger than the data."
            )
        self.config.warmup_epochs(self.steps_per_epoch)  # a warm-up in the other unit may be too long

    @property
    def total_steps(self) -> int:
        """Length of the run in steps."""
        return self.config.total_steps(self.steps_per_epoch)

    @property
    def warmup_steps(self) -> int:
        """Length of the warm-up in steps, rounded."""
        return round(self.config.warmup_epochs(self.steps_per_epoch) * self.steps_per_epoch)

    @property
    def epochs(self) -> float:
        """Length of the run in epochs."""
        config = self.config
        return self.total_steps / self.steps_per_epoch if config.epochs is None else config.epochs

    def lr(self, step: int) -> float:
        """Learning rate of step number `step` (0 is the first)."""
        return lr_at(
            step / self.steps_per_epoch,
            peak=self.config.lr,
            epochs=self.epochs,
            warmup_epochs=self.config.warmup_epochs(self.steps_per_epoch),
            schedule=self.config.optim.schedule,
        )

    def momentum(self, step: int) -> float:
        """Momentum of the momentum encoder at step number `step` (0 is the first)."""
        method = self.config.method
        epoch = step / self.steps_per_epoch
        return momentum_at(epoch, base=method.momentum, epochs=self.epochs, schedule=method.momentum_schedule)


def _half_cosine(share: float) -> float:
    """From 1 at share 0 to 0 at share 1."""
    return 0.5 * (1.0 + cos(pi * share))
