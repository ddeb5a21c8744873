"""The training loop, to be read from top to bottom; a step is one update of the optimizer."""

__all__ = ["train"]

import math
import time
from contextlib import nullcontext

from rich.console import Console
from torch import Tensor

from ..probes.interventions._acting import ACTED
from .batches import batches
from .clipping import build_clipping
from .config import TrainConfig
from .distributed import StopVote
from .guard import Guard
from .health import Health
from .interrupts import Interrupts
from .methods import chance as chance_of
from .observed import observed_layers
from .optim import set_lr
from .parallel import averaged
from .progress import Progress
from .reporter import Reporter
from .result import Result, Status
from .run import Run, prepare


def train(run: TrainConfig | Run, console: Console | None = None) -> Result:
    """Train as the configuration (or a run prepared from it) says, to its end or until it is stopped.

    Step 0 is the first update; with a warm-up its learning rate is 0, as in the published code. Ctrl-C lets the step
    finish and saves a checkpoint. Several processes (torchrun) each call this, and do what one alone would do with the
    whole batch. Raises ValueError for settings and data that cannot work.

    >>> from .config_optim import OptimConfig
    >>> config = TrainConfig(steps=2, batch_size=8, device="cpu", optim=OptimConfig())
    >>> train(config, Console(quiet=True)).status
    'finished'
    """
    run = prepare(run) if isinstance(run, TrainConfig) else run
    config, device, processes, total = run.config, run.device, run.processes, run.schedules.total_steps
    model, optimizer, scaler, tracing = run.model, run.optimizer, run.scaler, run.tracing
    chance, clip, intervene = chance_of(config), build_clipping(config, observed_layers(model)), run.intervention
    health = Health(device, run.gradients.layers, scaled=scaler.is_enabled(), hold=config.nonfinite == "stop")
    guard = Guard(model, optimizer, scaler, protect=config.nonfinite != "record", skips=intervene is not None)
    status: Status | None = "finished"
    vote, stop = StopVote(processes), 0
    console = console if processes.main else Console(quiet=True)
    with Interrupts() as interrupts, Progress(run.start, total, console) as progress, tracing or nullcontext():
        reporter = Reporter(run, health, progress)
        before = math.nan
        model.train()
        for step, batch in enumerate(batches(run.data, config, device, run.start, total, processes), run.start):
            lr, momentum = run.schedules.lr(step), run.schedules.momentum(step)
            if intervene and intervene.skipped:
                momentum = 1.0  # no update, so nothing that the momentum encoder could follow
            set_lr(optimizer, lr, step)
            with run.autocast():
                output = run.forward(batch.x1, batch.x2, momentum)
            optimizer.zero_grad()
            scaler.scale(output.loss).backward()
            scaler.unscale_(optimizer)
            output = averaged(output)
            norms = run.gradients.measure()
            health.observe(step, output.loss, norms)
            if tracing:
                # This instant and no other: the gradients are whole and in their own unit, and the optimizer has
                # not acted on them.
                now = time.perf_counter()
                scalars: dict[str, Tensor | float] = {
                    "loss": output.loss.detach(),
                    "chance_loss": chance.loss if chance else math.nan,
                    "ideal_loss": chance.ideal if chance else math.nan,
                    "lr": lr,
                    "momentum": momentum,
                    "images_per_second": config.batch_size / (now - before),
                }
                if scaler.is_enabled():
                    scalars["overflow"] = health.overflow
                scalars["nonfinite"] = health.bad
                tracing.observe(step, output, batch.labels, scalars | output.logs)
                before = now
            if intervene:
                acted, norms = intervene.act(norms, run.gradients.last["grad_norm_total"])
                if tracing:
                    tracing.note({ACTED.name: acted})
            if clip:
                clipped = clip(norms)
                if tracing:
                    tracing.note(clipped)
            guard.step(health.leave_out, skipped=intervene is not None and intervene.skipped)
            progress.advance()
            stop = vote.cast(interrupts.asked)
            if stop or reporter.due(step):
                # Only here does the host wait for the device.
                status = reporter.report(step, output, stop)
                if status:
                    break
        vote.finish()
        return reporter.finish(status or "finished", stop)
