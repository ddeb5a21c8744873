"""`watch` as a callback of Lightning's `Trainer`: a row for every optimizer step, before the clip."""

from __future__ import annotations

__all__ = ["ForeshockCallback"]

from os import PathLike
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..watch import Watch
from ._start import start


class ForeshockCallback(Callback):
    """Records every layer's gradient norm, the loss, the learning rate and times of a Lightning run.

        trainer = Trainer(callbacks=[ForeshockCallback("runs/mine", sensors=["update_rms"])], gradient_clip_val=1.0)

    It looks in `on_before_optimizer_step`: gradients accumulated, averaged over processes, unscaled, **not yet
    clipped**. `loss` is that of the whole accumulated batch. `options` are those of `watch`; `self.watch` is the
    `Watch` while the run goes. `fit(..., ckpt_path=...)` goes on in the trace. An exception is kept as the run's end.

    Raises ValueError in `fit` for a module with several optimizers: call `watch` and its `step` in the module's
    `training_step` then.
    """

    def __init__(self, path: str | PathLike[str], **options: Any) -> None:
        super().__init__()
        self.path, self.options = path, options
        self.watch: Watch | None = None
        self._looked = False
        self._loss: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"{type(pl_module).__name__} has {len(trainer.optimizers)} optimizers, and ForeshockCallback follows "
                "one: call foreshock.probes.watch in its training_step"
            )
        enabled = {"enabled": trainer.is_global_zero} | self.options
        self.watch = start(pl_module, trainer.optimizers[0], self.path, trainer.global_step, **enabled)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Look at the gradients."""
        if self.watch is not None:
            self.watch.observe()
            self._looked = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close the row, if the batch ended with an optimizer step."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:  # a part's is divided by the number of parts
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        if self.watch is not None and self._looked:
            self.watch.step(loss=self._loss)
            self._looked, self._loss = False, None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the trace."""
        if self.watch is not None:
            self.watch.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the trace with the error that ended the run."""
        if self.watch is not None:
            self.watch.__exit__(type(exception), exception, exception.__traceback__)
