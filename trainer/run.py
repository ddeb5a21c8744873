"""Everything that a training run consists of, built from its configuration, saved and restored as one state."""

__all__ = ["Run", "prepare"]

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..probes.interventions._acting import Intervention
from ..traces.places import place_of
from .batches import steps_per_epoch
from .checkpoint import CheckpointError, Checkpoints, differences
from .config import TrainConfig
from .config_saved import config_to_save
from .data import ImageSet, load_dataset
from .distributed import Processes, join, pick_device
from .fitting import check_fitting, fit
from .folder import ImageFolder
from .intervening import build_intervention
from .methods import build_method
from .observed import Gradients, observed_layers
from .optim import build_optimizer
from .parallel import Forward, check_parallel, parallelise
from .schedules import Schedules
from .whole import load_optimizer, whole

if TYPE_CHECKING:
    from .tracing import Tracing

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Run:
    """A run that is ready to go on with step number `start`."""

    config: TrainConfig
    processes: Processes
    device: torch.device
    data: ImageSet | ImageFolder
    schedules: Schedules
    model: nn.Module
    forward: Forward
    """What the loop calls: the model, or the model over all processes."""
    gradients: Gradients
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    checkpoints: Checkpoints | None
    intervention: Intervention | None = None
    tracing: "Tracing | None" = None
    start: int = 0
    notes: list[str] = field(default_factory=list)
    """What the user should know before it starts, as sentences."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        dtype = AUTOCAST.get(self.config.amp)
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()

    def state(self, step: int) -> dict[str, Any]:
        """The whole state before `step`: tensors, numbers and containers, the same for any number of processes.

        All processes call this at once; rank 0 gets the whole, the others may get a part.
        Order of the images and augmentation need none: they follow from the seed and the step.
        """
        return {
            "step": step,
            "config": config_to_save(self.config),
            "images": len(self.data),
            "processes": self.processes.count,
            "model": whole(self.model.state_dict(), keep=self.processes.main),
            "optimizer": whole(self.optimizer.state_dict(), keep=self.processes.main),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "intervention": self.intervention.state_dict() if self.intervention else None,
            "tracing": self.tracing.state_dict() if self.tracing else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; the model has its weights already, and the tracing gets its queue once it is built."""
        load_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.intervention and state.get("intervention"):
            self.intervention.load_state_dict(state["intervention"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.start = state["step"]


def prepare(config: TrainConfig) -> Run:
    """Build the run that `config` describes, from its newest checkpoint if it says resume.

    In a process that torchrun started this meets the others. Raises ValueError (DataError, CheckpointError, TraceError
    and DistributedError are some) with one sentence on what is wrong, in all processes alike.
    """
    device = pick_device(config.device)
    processes = join(device, config.scale.timeout)
    with processes.together():
        own = processes.share(config.batch_size, "batch_size")
        check_fitting(config.scale, config.network, config.method.patch_projection, own)
    data = processes.by_turns(lambda: load_dataset(config.data, config.network.in_chans))
    with processes.together():
        torch.manual_seed(config.seed)
        schedules = Schedules(config, steps_per_epoch(len(data), config.batch_size))
        model = build_method(config).to(device, torch.float64 if config.amp == "float64" else torch.float32)
        check_parallel(model, config, processes)
        checkpoints = _checkpoints(config, processes)
        saved = _newest(checkpoints, config, len(data), processes) if checkpoints and config.resume else None
        if saved:
            model.load_state_dict(saved.state["model"])
        fit(model, config.scale, device)
    if saved:
        _check_same_file(saved, processes)
    forward = parallelise(model, config, device, processes)
    run = Run(
        config=config,
        processes=processes,
        device=device,
        data=data,
        schedules=schedules,
        model=model,
        forward=forward,
        gradients=Gradients(observed_layers(model), by_parameter=config.probe.flight_recorder),
        optimizer=build_optimizer(model, config.optim, config.lr),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp == "fp16"),
        checkpoints=checkpoints,
        notes=saved.notes if saved else [],
    )
    with processes.together():
        run.intervention = build_intervention(config, observed_layers(model), run.optimizer)
    if saved:
        run.restore(saved.state)
    if config.trace is not None and run.start < schedules.total_steps:
        with processes.together():
            _trace(run, saved.state if saved else None)
    if checkpoints and config.overwrite and processes.main:
        checkpoints.clear()
    return run


@dataclass(frozen=True)
class _Saved:
    state: dict[str, Any]
    path: Path
    notes: list[str]


def _checkpoints(config: TrainConfig, processes: Processes) -> Checkpoints | None:
    """The folder of the checkpoints; CheckpointError if a fresh run would lose some."""
    if config.checkpoint_dir is None:
        return None
    checkpoints = Checkpoints(Path(config.checkpoint_dir), config.checkpoint_keep)
    if processes.main and checkpoints.paths() and not config.resume and not config.overwrite:
        raise CheckpointError(
            f"{config.checkpoint_dir} has checkpoints already: --resume continues from them, --overwrite "
            "starts afresh, another --checkpoint-dir keeps them."
        )
    return checkpoints


def _newest(checkpoints: Checkpoints, config: TrainConfig, images: int, processes: Processes) -> _Saved:
    """The newest checkpoint; CheckpointError names what makes it another run's."""
    state, path, damaged = checkpoints.load()
    changed = differences(state["config"], config_to_save(config))
    if state["images"] != images:
        changed.append(f"the data had {state['images']} images and have {images}")
    if not config.scale.sync_batch_norm and state["processes"] != processes.count:
        changed.append(f"each of {state['processes']} processes had BatchNorm of its own, and now of {processes.count}")
    if changed:
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(changed)}. Give the same settings, or start afresh."
        )
    notes = [f"{text} Going back to the one before." for text in damaged]
    return _Saved(state, path, [*notes, f"resuming at step {state['step']} from {path}"])


def _check_same_file(saved: _Saved, processes: Processes) -> None:
    newest = processes.from_main(saved.path.name)
    with processes.together():
        if newest != saved.path.name:
            raise CheckpointError(
                f"the newest checkpoint is {saved.path} here and {newest} for process 0: all processes must read the "
                "same checkpoint_dir, so put it on a file system that all machines share."
            )


def _trace(run: Run, state: Mapping[str, Any] | None) -> None:
    from .tracing import Tracing

    there = run.config.trace is not None and place_of(run.config.trace).get("zarr.json") is not None
    resume_at = run.start if state is not None and there else None
    control = None
    if run.config.probe.staleness_control:
        from .staleness import StalenessControl

        control = StalenessControl(
            run.config,
            run.data,
            run.model.encoder,  # pyright: ignore[reportArgumentType]
            run.autocast,
            run.device,
            run.processes,
        )
    run.tracing = Tracing(
        run.config,
        run.gradients,
        run.model,
        run.optimizer,
        run.data,
        run.schedules,
        run.device,
        run.processes,
        resume_at,
        control,
        run.intervention,
    )
    if state is not None:
        if state["tracing"]:
            run.tracing.load_state_dict(state["tracing"])
        else:
            run.notes.append("the checkpoint has no kNN queue, since it was saved without --trace: it fills anew")
        run.tracing.event(run.start, "resumed", f"resumed at step {run.start}")
    if run.tracing.knn is None and run.data.labels is None and run.config.probe.knn_every:
        run.notes.append("the images have no classes (sub-folders), so there is no kNN accuracy")
