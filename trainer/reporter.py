"""What happens every few steps and at the end: a printed line, a verdict on the run's health, a checkpoint."""

__all__ = ["Reporter"]

from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..traces.errors import TraceError
from .attribution import first_nonfinite
from .batches import batches
from .health import Health, Verdict
from .methods import Output
from .progress import Progress
from .result import Result, Status
from .run import Run

if TYPE_CHECKING:
    from .tracing import Tracing


class Reporter:
    """Prints, judges and saves for one run; everything here waits for the device."""

    def __init__(self, run: Run, health: Health, progress: Progress) -> None:
        self.run, self.health, self.progress = run, health, progress
        self.total = run.schedules.total_steps
        self.next_step = self.shown = run.start
        self.loss = nan
        self.bad_since, self.left_out, self.overflows = -1, 0, 0
        self.lost, self.trouble = False, ""
        self.checkpoint: Path | None = None
        self.unsaved = ""
        if run.tracing and run.tracing.alerting:
            run.tracing.alerting.say = progress.say
        for note in run.notes:
            progress.say(note)

    def due(self, step: int) -> bool:
        """Whether `step` is one to report: the first, every `log_every`th, every `checkpoint_every`th, the last."""
        return step == self.run.start or self._shows(step) or self._saves(step) or step + 1 == self.total

    def report(self, step: int, output: Output, interrupted: int) -> Status | None:
        """Look at the run after `step`; a status ends it."""
        self.next_step = step + 1
        lost = self._examine(step)
        status: Status | None = None
        if lost:
            status = "nonfinite"
        elif step + 1 == self.total:
            status = "finished"
        elif interrupted:
            status = "interrupted"
        if status or step == self.run.start or self._shows(step):
            self._show(step, output)
        if status in ("finished", "interrupted") or (self._saves(step) and not status):
            self._save()
        return status

    def finish(self, status: Status, signal: int) -> Result:
        """Close the trace, and say what the run came to."""
        run, tracing, knn, features, spikes, untold = self.run, self.run.tracing, {}, {}, None, ""
        seconds = self.progress.seconds
        if tracing:
            try:
                self._close(tracing, status)
                knn, features, spikes = tracing.results()
            except TraceError as error:
                # The training itself is done and saved; its report must not be lost with the last rows.
                self.unsaved = str(error)
            if tracing.alerting and tracing.alerting.lost:
                untold = f"alerts were lost, {tracing.alerting.lost} in all; first {tracing.alerting.trouble}"
        return Result(
            config=run.config,
            status=status,
            step=self.next_step,
            start=run.start,
            seconds=seconds,
            loss=self.loss,
            tracing_seconds=tracing.seconds if tracing else 0.0,
            overflows=self.overflows,
            bad_since=self.bad_since,
            trouble=self.trouble,
            left_out=self.left_out if self.run.config.nonfinite == "skip" else 0,
            knn=knn,
            features=features,
            spikes=spikes,
            untold=untold,
            interventions=run.intervention.count if run.intervention else None,
            checkpoint=self.checkpoint,
            unsaved=self.unsaved,
            signal=signal,
        )

    def _close(self, tracing: "Tracing", status: Status) -> None:
        last = self.next_step - 1
        if status == "nonfinite":
            tracing.close("failed", self.trouble)
        elif status == "interrupted":
            tracing.event(last, "interrupted", f"interrupted after step {last}")
            tracing.close("failed", f"interrupted after step {last}", goes_on=self.checkpoint is not None)
        else:
            tracing.close("finished")

    def _shows(self, step: int) -> bool:
        return (step + 1) % self.run.config.log_every == 0

    def _saves(self, step: int) -> bool:
        return self.run.checkpoints is not None and (step + 1) % self.run.config.checkpoint_every == 0

    def _examine(self, step: int) -> bool:
        """Note what the counters say, in the trace too; whether the run is to end."""
        verdict, policy = self.health.read(step), self.run.config.nonfinite
        if verdict.overflows > self.overflows:
            text = f"{verdict.overflows - self.overflows} steps were skipped, since their gradients overflowed"
            self._event(step, "overflow", text)
        self.overflows = verdict.overflows
        # An overflow of a scaler is no trouble as long as the loss is finite.
        overflow = self.health.scaled and verdict.loss_finite
        if verdict.since >= 0 and not overflow and (policy == "skip" or self.bad_since < 0):
            self._tell(verdict)
        self.left_out = verdict.steps
        self.lost = self.lost or (verdict.lost and policy != "skip")
        return (verdict.lost and policy == "stop") or (verdict.stuck and policy == "skip")

    def _tell(self, verdict: Verdict) -> None:
        """Put into words, and into the trace, what is not finite since when and where it began."""
        since = verdict.since
        self.bad_since = since if self.bad_since < 0 else self.bad_since
        what = "a gradient" if verdict.loss_finite else "the loss"
        where = self._place(verdict)
        if self.run.config.nonfinite == "skip":
            count = verdict.steps - self.left_out
            updates = "1 update was" if count == 1 else f"{count} updates were"
            self.trouble = f"{updates} left out from step {since} on, since {what} was not finite{where}"
            self.progress.say(self.trouble)
        else:
            self.trouble = f"{what} is not finite since step {since}{where}"
        self._event(since, "nonfinite", self.trouble)

    def _place(self, verdict: Verdict) -> str:
        """The layer in which it began, as the end of a sentence."""
        run, layer = self.run, verdict.layer
        if not verdict.loss_finite:
            # Its step can be made again, unless the update that followed has spoilt all weights.
            layer = None if run.config.nonfinite == "record" else self._first_layer(verdict.since)
        return f", first in {layer}" if layer else ""

    def _first_layer(self, step: int) -> str | None:
        run = self.run
        for batch in batches(run.data, run.config, run.device, step, step + 1, run.processes):
            with run.autocast():
                return first_nonfinite(run.model, batch.x1, batch.x2)
        return None

    def _event(self, step: int, kind: str, text: str) -> None:
        if self.run.tracing:
            self.run.tracing.event(step, kind, text)

    def _show(self, step: int, output: Output) -> None:
        values = {"loss": output.loss.detach().float()}
        if "contrastive_accuracy" in output.logs:
            values["top-1"] = output.logs["contrastive_accuracy"].float()
        for name, short in (("positive_similarity", "pos"), ("negative_similarity", "neg")):
            if name in output.logs:
                values[short] = output.logs[name].float()
        knn = self.run.tracing.knn if self.run.tracing else None
        if knn is not None and knn.latest is not None:
            values["kNN"] = knn.latest.float()
        shown = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
        self.loss = shown["loss"]
        # A NaN here is "not measured yet", whereas a loss of NaN has to be seen.
        shown = {name: value for name, value in shown.items() if name != "kNN" or value == value}
        shown["lr"] = self.run.schedules.lr(step)
        self.progress.show(step, shown, step + 1 - self.shown)
        self.shown = step + 1

    def _save(self) -> None:
        """Save a checkpoint, unless it would put weights that are not finite in the place of good ones."""
        run, step = self.run, self.next_step
        if run.checkpoints is None or self.lost:
            return
        if run.tracing:
            run.tracing.commit()
        state = run.state(step)
        if not run.processes.main:
            return
        try:
            self.checkpoint = run.checkpoints.save(step, state)
            self.unsaved = ""
        except OSError as error:
            self.unsaved = f"the checkpoint at step {step} could not be written ({error}); earlier ones are unharmed"
            self.progress.say(self.unsaved)
            self._event(step - 1, "checkpoint", self.unsaved)
