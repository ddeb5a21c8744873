"""Everything that a training run consists of, built from its configuration, saved and restored as one state."""

__all__ = ["Run", "pick_device", "prepare"]

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .batches import steps_per_epoch
from .checkpoint import CheckpointError, Checkpoints, differences
from .config import TrainConfig
from .data import ImageSet, load_dataset
from .folder import ImageFolder
from .methods import build_method
from .optim import build_optimizer
from .schedules import Schedules

if TYPE_CHECKING:
    from .tracing import Tracing


@dataclass
class Run:
    """A run that is ready to go on with step number `start`."""

    config: TrainConfig
    device: torch.device
    data: ImageSet | ImageFolder
    schedules: Schedules
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    checkpoints: Checkpoints | None
    tracing: "Tracing | None" = None
    start: int = 0
    notes: list[str] = field(default_factory=list)
    """What the user should know before it starts, as sentences."""

    def state(self, step: int) -> dict[str, Any]:
        """The whole state before `step`: tensors, numbers and containers.

        Order of the images and augmentation need none: they follow from the seed and the step.
        """
        return {
            "step": step,
            "config": asdict(self.config),
            "images": len(self.data),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "tracing": self.tracing.state_dict() if self.tracing else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; the queue of the tracing is restored once it is built."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        self.start = state["step"]


def prepare(config: TrainConfig) -> Run:
    """Build the run that `config` describes, from its newest checkpoint if it says resume.

    Raises ValueError (DataError, CheckpointError and TraceError are some) with one sentence on what is wrong.
    """
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    data = load_dataset(config.data, config.network.in_chans)
    schedules = Schedules(config, steps_per_epoch(len(data), config.batch_size))
    model = build_method(config).to(device)
    run = Run(
        config=config,
        device=device,
        data=data,
        schedules=schedules,
        model=model,
        optimizer=build_optimizer(model, config.optim, config.lr),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp == "fp16"),
        checkpoints=Checkpoints(Path(config.checkpoint_dir), config.checkpoint_keep) if config.checkpoint_dir else None,
    )
    state = _resumed(run) if config.resume else None
    if run.checkpoints and run.checkpoints.paths() and not config.resume and not config.overwrite:
        raise CheckpointError(
            f"{config.checkpoint_dir} has checkpoints already: --resume continues from them, --overwrite "
            "starts afresh, another --checkpoint-dir keeps them."
        )
    if config.trace is not None and run.start < schedules.total_steps:
        _trace(run, state)
    if run.checkpoints and config.overwrite:
        run.checkpoints.clear()
    return run


def _resumed(run: Run) -> dict[str, Any]:
    """Restore the newest checkpoint; CheckpointError names what makes it another run's."""
    assert run.checkpoints is not None
    state, path, damaged = run.checkpoints.load()
    changed = differences(state["config"], asdict(run.config))
    if state["images"] != len(run.data):
        changed.append(f"the data had {state['images']} images and have {len(run.data)}")
    if changed:
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(changed)}. Give the same settings, or start afresh."
        )
    run.restore(state)
    run.notes += [f"{text} Going back to the one before." for text in damaged]
    run.notes.append(f"resuming at step {run.start} from {path}")
    return state


def _trace(run: Run, state: Mapping[str, Any] | None) -> None:
    from .tracing import Tracing

    there = (Path(run.config.trace or "") / "zarr.json").exists()
    resume_at = run.start if state is not None and there else None
    run.tracing = Tracing(run.config, run.model, run.data, run.schedules, run.device, resume_at)
    if state is not None:
        if state["tracing"]:
            run.tracing.load_state_dict(state["tracing"])
        else:
            run.notes.append("the checkpoint has no kNN queue, since it was saved without --trace: it fills anew")
        run.tracing.event(run.start, "resumed", f"resumed at step {run.start}")
    if run.tracing.knn is None and run.data.labels is None and run.config.probe.knn_every:
        run.notes.append("the images have no classes (sub-folders), so there is no kNN accuracy")


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a CUDA or Apple GPU if there is one, else the CPU.

    Raises ValueError for one that is not there.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"device {name!r} cannot be used ({reason}): choose auto, cpu, cuda or mps.") from error
    return device
