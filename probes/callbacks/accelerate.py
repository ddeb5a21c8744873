"""`watch` around a loop with Hugging Face's Accelerate: a row for every optimizer step, before the clip."""

from __future__ import annotations

__all__ = ["ForeshockCallback"]

from os import PathLike
from types import TracebackType
from typing import Any, Self

from accelerate import Accelerator

from ..watch import Watch
from ._before_clip import BeforeClip
from ._start import start


class ForeshockCallback:
    """Records every layer's gradient norm and what `watch` does; `model` and `optimizer` as `prepare` returned them.

        with ForeshockCallback(accelerator, model, optimizer, "runs/mine") as callback:
            for batch in loader:
                with accelerator.accumulate(model):
                    loss = model(batch)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    callback.step(loss=loss)
                    optimizer.zero_grad()

    It looks just before `accelerator.clip_grad_norm_` (or `clip_grad_value_`) at the end of an accumulated batch, and
    without a clip as the optimizer steps. `step` does nothing in the parts before the last. `options` are those of
    `watch`; `first_step` is the number of steps that a resumed run has taken.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        optimizer: Any,
        path: str | PathLike[str],
        *,
        first_step: int = 0,
        **options: Any,
    ) -> None:
        enabled = {"enabled": accelerator.is_main_process} | options
        self.accelerator = accelerator
        self.watch: Watch = start(accelerator.unwrap_model(model), optimizer, path, first_step, **enabled)
        self._clips = BeforeClip(accelerator, self.watch.observe)

    def step(self, loss: Any = None, **scalars: Any) -> None:
        """Close the row of this optimizer step with the loss and any scalars of yours."""
        if self.accelerator.sync_gradients:
            self.watch.step(loss=loss, **scalars)

    def close(self) -> None:
        """Finish the trace."""
        self._clips.remove()
        self.watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._clips.remove()
        self.watch.__exit__(kind, error, tb)
