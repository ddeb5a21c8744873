"""`watch` as a callback of Hugging Face's `Trainer`: a row for every optimizer step, before the clip."""

from __future__ import annotations

__all__ = ["ForeshockCallback"]

import warnings
from os import PathLike
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..watch import Watch
from ._before_clip import BeforeClip
from ._start import start


class ForeshockCallback(TrainerCallback):
    """Records every layer's gradient norm, the loss, the learning rate and times of a Hugging Face run.

        trainer = Trainer(...)
        trainer.add_callback(ForeshockCallback("runs/mine", trainer, sensors=["update_rms"]))

    With the `trainer` it looks just before the clip, which Trainer does by default (`max_grad_norm=1.0`). The events of
    Trainer come after it: **without the `trainer` the gradients are clipped ones**, and a warning says so. `loss` is
    that of the whole accumulated batch, from the model's output. `options` are those of `watch`; `self.watch` is the
    `Watch` while the run goes. `train(resume_from_checkpoint=...)` goes on in the trace.

    Trainer has no event for an exception: the rows before it are written when Python ends, and the run then reads as
    stalled.
    """

    def __init__(self, path: str | PathLike[str], trainer: Trainer | None = None, **options: Any) -> None:
        self.path, self.trainer, self.options = path, trainer, options
        self.watch: Watch | None = None
        self._clips: BeforeClip | None = None
        self._loss: Any = None
        self._parts, self._shares = 0, False
        self._handle: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        enabled = {"enabled": state.is_world_process_zero} | self.options
        self.watch = start(model, optimizer, self.path, state.global_step, **enabled)
        self._handle = model.register_forward_hook(self._see_loss, with_kwargs=True)
        if self.trainer is not None:
            self._clips = BeforeClip(self.trainer.accelerator, self.watch.observe)
        elif args.max_grad_norm:
            warnings.warn(
                f"foreshock: Trainer clips to max_grad_norm={args.max_grad_norm} before callbacks see the gradients, "
                "so the recorded norms are the clipped ones: give the trainer, ForeshockCallback(path, trainer)",
                stacklevel=2,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the row of this optimizer step."""
        if self.watch is not None:
            loss, parts = self._loss, 1 if self._shares else max(1, self._parts)
            self.watch.step(loss=None if loss is None else loss / parts)
        self._loss, self._parts = None, 0

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the trace."""
        if self._clips is not None:
            self._clips.remove()
        if self._handle is not None:
            self._handle.remove()
        if self.watch is not None:
            self.watch.close()

    def _see_loss(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        loss = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
        if loss is None or not module.training:
            return
        # With the batch's number of items a part's loss is its share of the whole; else each is a mean of its own.
        self._shares = kwargs.get("num_items_in_batch") is not None
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        self._parts += 1
