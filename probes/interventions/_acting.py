"""What all interventions share: the norms they watch, when they act, and how a trace is told of it (ratios)."""

from __future__ import annotations

__all__ = ["ACTED", "TOTAL", "Intervention", "Tells"]

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._rule import SpikeRule, Thresholds, Verdict

Layers = Mapping[str, Sequence[tuple[str, nn.Parameter]]]
TOTAL = "total"
ACTED = Series("intervention", ("layer", "step"), doc="norm over baseline where there was an intervention, else NaN")


class Intervention(ABC):
    """Watches the gradient norms of some layers, and acts on the gradients of a step at which one spikes.

    `layer`: the layer, or several, that are watched; "total" is the norm over all layers; None is the first layer of
    the model, whose spikes come before the others' (arXiv 2104.02057, Sec. 4.2). `thresholds` are those of
    `_rule.Thresholds`: by default a norm of twice the baseline at a robust z of 6, after 64 steps of baseline. To
    choose others, look at what `find_spikes(trace, layer=..., detector="robust_z", z=3)` finds in a run without an
    intervention: its `z` and `ratio` are the rule's, but for what of the run each leaves out of the baseline.

    Made by the user, it is attached once to a model's layers and its optimizer; then `act` is called at every step,
    with all gradients in place (accumulated, averaged over processes, unscaled), before clipping and the update.
    """

    reads_host: ClassVar[bool]
    of_total: ClassVar[bool] = True  # whether it can act on "total"

    def __init__(self, layer: str | Sequence[str] | None = None, **thresholds: float) -> None:
        known = Thresholds.__dataclass_fields__
        for name in thresholds:
            if name not in known:
                raise ValueError(
                    f"unknown threshold {name!r} of an intervention; allowed are {', '.join(sorted(known))}"
                )
        self.thresholds = Thresholds(**thresholds)  # pyright: ignore[reportArgumentType]
        self._wanted = (layer,) if isinstance(layer, str) else layer
        if self._wanted is not None and len(set(self._wanted)) != max(1, len(self._wanted)):
            raise ValueError(f"layer is {layer!r}; name at least one layer, and each once")
        self.watched: tuple[str, ...] = ()
        self.skipped = False
        """Whether the last step's whole update was left out."""

    def attach(self, layers: Layers, optimizer: Optimizer) -> Self:
        """Watch these `layers`, `{layer: [(name, parameter), ...]}`, whose parameters `optimizer` updates.

        Raises ValueError for a layer that is not there, is frozen, or is not in the optimizer, and when it is attached
        already.
        """
        if self.watched:
            raise ValueError(f"this {type(self).__name__} is attached already: make one for each run")
        watched = tuple(self._wanted) if self._wanted is not None else (next(iter(layers)),)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name in watched:
            self._check(name, layers, held)
        self._optimizer = optimizer
        self._all = [p for named in layers.values() for _, p in named]
        self._parameters = [self._all if n == TOTAL else [p for _, p in layers[n]] for n in watched]
        names = list(layers)
        self._rows = torch.tensor([names.index(n) if n != TOTAL else len(names) for n in watched])
        self.rule = SpikeRule(len(watched), self.thresholds)
        self._count = torch.zeros((), dtype=torch.int64)
        self.watched = watched
        return self

    @torch.no_grad()
    def act(self, norms: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Judge this step and act: norms `f[L]` of all layers and `f[]` over all, as `GradNorm` has them.

        Returns the ratio of each watched norm that was acted on `f[K]`, NaN for the others; and the norms of all
        layers afterwards `f[L]`, NaN for one whose gradient was taken away.
        """
        assert self.watched, "attach() comes first"
        if self._rows.device != norms.device:
            self._rows, self._count = self._rows.to(norms.device), self._count.to(norms.device)
        verdict = self.rule.judge(torch.cat([norms, total.reshape(1)])[self._rows])
        acted, after = self._act(verdict, norms)
        self._count = self._count + acted.any()
        return torch.where(acted, verdict.ratio, torch.nan), after

    @property
    def count(self) -> int:
        """The number of steps at which it has acted; to read it waits for the device."""
        return int(self._count.item())

    @abstractmethod
    def _act(self, verdict: Verdict, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Act on the gradients; which watched norms that concerned `bool[K]`, and all layers' norms afterwards."""

    @abstractmethod
    def words(self, risen: str) -> str:
        """What was done, after "patch_embed rose 5.2-fold"."""

    def _without(self, norms: Tensor, rows: Sequence[int]) -> Tensor:
        """Norms `f[L]` without those of the watched layers `rows`."""
        gone = torch.zeros(len(norms), dtype=torch.bool)
        for row in rows:
            gone[slice(None) if self.watched[row] == TOTAL else int(self._rows[row])] = True
        return norms.masked_fill(gone.to(norms.device), torch.nan)

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on: tensors, numbers and containers."""
        return {
            "rule": self.rule.state_dict(),
            "watched": list(self.watched),
            "count": self.count,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; ValueError if it was of other layers or thresholds."""
        if list(state["watched"]) != list(self.watched):
            raise ValueError(
                f"the saved state watched {state['watched']}, this one {list(self.watched)}: name the same"
            )
        self.rule.load_state_dict(state["rule"])
        self._count = torch.tensor(state["count"], device=self._count.device)
        self.skipped = state["skipped"]

    def _check(self, name: str, layers: Layers, held: set[int]) -> None:
        what = type(self).__name__
        if name == TOTAL and not self.of_total:
            raise ValueError(f"{what} of 'total' would stop the whole model: name layers, or take skip_update")
        if name != TOTAL and name not in layers:
            raise ValueError(
                f"{what} names the layer {name!r}, which is not there; there are {', '.join(layers)}, total"
            )
        parameters = [p for n, named in layers.items() if name in (n, TOTAL) for _, p in named]
        if not any(p.requires_grad for p in parameters):
            raise ValueError(f"{what} of the layer {name!r} would have no effect, since it is frozen: name another")
        if not any(id(p) in held for p in parameters):
            raise ValueError(
                f"{what} of the layer {name!r} would have no effect: the optimizer has none of its weights"
            )


class Tells:
    """A `TraceWriter` that makes an event of each row in which an intervention acted, as blocks are handed over.

    It stands in the writer's place, like `foreshock.probes.alerts.Alerts`, and takes the ratios out of the rows.
    """

    def __init__(self, writer: Any, intervention: Intervention) -> None:
        self.writer, self.intervention = writer, intervention

    def extend(self, steps: np.ndarray, values: Mapping[str, Any]) -> None:
        """Hand rows on, and tell what was done in them."""
        rest = {name: array for name, array in values.items() if name != ACTED.name}
        self.writer.extend(steps, rest)
        if ACTED.name in values:
            ratios = values[ACTED.name]
            for i in np.flatnonzero(~np.isnan(ratios).all(axis=0)):
                self.writer.event(int(steps[i]), "intervention", self._words(ratios[:, i]))

    def _words(self, ratios: np.ndarray) -> str:
        names, acted = self.intervention.watched, np.flatnonzero(~np.isnan(ratios))
        risen = ", ".join(
            f"{names[k]} rose {ratios[k]:.1f}-fold" if np.isfinite(ratios[k]) else f"{names[k]} was not finite"
            for k in acted
        )
        return self.intervention.words(risen)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)  # event, flush, close, layers and whatever else a writer has
