"""Whether a run is still sound: losses and gradients that are not finite, the layer where that began, skipped steps.

All is kept in counters on the device, so that looking at every step makes none of them wait for the host.
"""

__all__ = ["Health", "Verdict"]

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A scaler that starts too high makes a few bad steps, each skipped and followed by half the scale.
SCALER_PATIENCE = 20
# So many updates left out one after the other, and nothing moves any more.
SKIP_PATIENCE = 100


class Verdict(NamedTuple):
    """What the counters say."""

    lost: bool
    """Whether there is something that is not finite, and has been for longer than a gradient scaler needs."""
    stuck: bool
    """Whether so many steps in a row were not finite that leaving out their updates is no way on."""
    since: int
    """The first such step since the last reading, with a scaler that of the losses in a row; -1 for none."""
    loss_finite: bool
    """Whether the loss of that step was finite, so that only gradients were not."""
    layer: str | None
    """The layer in which the backward pass of that step had it first, that is the one nearest to the loss."""
    steps: int
    """Number of such steps so far."""
    overflows: int
    """Number of steps so far that the gradient scaler skipped."""


class Health:
    """Counters on `device` for a run with these `layers`; `scaled` says that a gradient scaler skips overflows, and
    `hold` that no update is wanted after the first bad step.

    `bad` is a bool tensor: whether the step just observed is not finite; `overflow` the same as a number, of a scaler.

    >>> health = Health(torch.device("cpu"), ["patch_embed", "head"], scaled=False)
    >>> for step, loss in enumerate([4.4, float("inf"), 4.3]):
    ...     health.observe(step, torch.tensor(loss), torch.tensor([0.1, loss]))
    >>> health.read(2)
    Verdict(lost=True, stuck=False, since=1, loss_finite=False, layer='head', steps=1, overflows=0)
    """

    def __init__(self, device: torch.device, layers: Sequence[str], *, scaled: bool, hold: bool = False) -> None:
        self.layers, self.scaled, self.hold = tuple(layers), scaled, hold
        self.bad = torch.zeros((), dtype=torch.bool, device=device)
        self.overflow = torch.zeros((), device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        # Of the first bad step since the last reading: its number, whether its loss was finite, its layer.
        self._first = torch.full((3,), -1, dtype=torch.int64, device=device)
        self._places = torch.arange(len(self.layers), device=device)
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def observe(self, step: int, loss: Tensor, norms: Tensor) -> None:
        """Look at `step`, after backward and unscaling: its loss, and the gradient norm of every layer, `f32[L]`.

        A layer whose gradient is not finite has the norm inf; NaN is one without a gradient (`GradNorm`).
        """
        finite, wrong = loss.detach().isfinite(), norms.isinf()
        self.bad = ~finite | wrong.any()
        nearest = torch.where(wrong, self._places, -1).max()
        now = torch.stack([torch.full_like(nearest, step), finite.to(nearest.dtype), nearest])
        self._first = torch.where(self.bad & (self._first[0] < 0), now, self._first)
        lost = ~finite if self.scaled else self.bad
        self._in_a_row = torch.where(lost, self._in_a_row + 1, 0)
        self.overflow = (self.bad & self.scaled).to(torch.float32)
        self._counts = self._counts + torch.stack([self.bad, self.bad & self.scaled]).to(torch.int64)

    @property
    def leave_out(self) -> Tensor:
        """Whether to leave out this step's update, a bool tensor: it is bad, or with `hold` an earlier one was."""
        return self._first[0] >= 0 if self.hold and not self.scaled else self.bad

    def read(self, step: int) -> Verdict:
        """What there is after `step`; begins to look for the first bad step anew. This waits for the device."""
        values = torch.cat([self._first, self._counts, self._in_a_row[None]]).tolist()
        since, finite, layer, steps, overflows, in_a_row = values
        self._first = torch.full_like(self._first, -1)
        lost = in_a_row > SCALER_PATIENCE if self.scaled else since >= 0
        if self.scaled and in_a_row:
            since, finite = step + 1 - in_a_row, 0
        where = self.layers[layer] if layer >= 0 else None
        return Verdict(lost, in_a_row > SKIP_PATIENCE, since, finite == 1, where, steps, overflows)
