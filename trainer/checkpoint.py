"""Checkpoints: the whole state of a run in one file a step, written so that a crash never costs the last good one.

A file is written beside its final name, forced to the disk and renamed: it is there completely or not at all, and the
newest `keep` stay. Reading allows tensors, numbers and containers only (torch's weights_only), so a file from elsewhere
runs no code; its checksums are compared, since torch itself reads flipped bits without a word.
"""

__all__ = ["CheckpointError", "Checkpoints", "differences", "read_checkpoint"]

import contextlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .config import TrainConfig

# These say where and how a run is done, not what it computes; they may change when it is resumed.
MAY_DIFFER = frozenset(
    {
        "alert.file",
        "alert.line",
        "alert.webhook",
        "device",
        "probe.flight_recorder",
        "probe.staleness_control",
        "probe.sensors",
        "trace",
        "overwrite",
        "checkpoint_dir",
        "checkpoint_every",
        "checkpoint_keep",
        "resume",
        "nonfinite",
        "log_every",
        "data.data_root",
        "data.download",
        "data.workers",
        "scale.accumulate",
        "scale.channels_last",
        "scale.checkpoint_activations",
        "scale.compile",
        "scale.parallel",
        "scale.timeout",
    }
)
# The length of the run shapes a cosine; it may change only if nothing follows one.
LENGTH = frozenset({"steps", "epochs"})


class CheckpointError(ValueError):
    """A checkpoint cannot be used: the message names it and the remedy."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in `folder`, of which the newest `keep` are kept."""

    folder: Path
    keep: int = 2

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write `state`, which belongs before step number `step`; OSError leaves the earlier ones as they are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.pt"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except RuntimeError as error:
            # What torch's zip writer makes of a full disk.
            raise OSError(str(error).splitlines()[0]) from error
        finally:
            partial.unlink(missing_ok=True)
        _sync(self.folder)
        for old in self.paths()[self.keep :]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """The files, newest step first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def clear(self) -> None:
        """Remove all checkpoints, and what a killed process left half written."""
        for path in [*self.paths(), *self.folder.glob("step-*.partial")]:
            path.unlink()

    def load(self) -> tuple[dict[str, Any], Path, list[str]]:
        """The newest state that can be read, its file, and a sentence on each newer file that can't.

        Raises CheckpointError if there is none.
        """
        damaged = []
        for path in self.paths():
            try:
                return read_checkpoint(path), path, damaged
            except CheckpointError as error:
                damaged.append(str(error))
        reason = damaged[0] if damaged else f"no checkpoint in {self.folder}."
        raise CheckpointError(f"nothing to resume from: {reason} Leave out --resume to start afresh.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one file: tensors, numbers and containers only; CheckpointError if it is damaged or isn't one."""
    try:
        with zipfile.ZipFile(path) as archive:
            flipped = archive.testzip()
        if flipped:
            raise CheckpointError(f"{path} is damaged (checksum of {flipped}).")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(f"{path} is damaged ({reason}).") from error


def _sync(folder: Path) -> None:
    """Force the rename itself to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Fields in which two configurations (`config_to_save`) make different runs, as sentences.

    Where a run writes, what it prints and the device may differ; so may its length, if no schedule depends on it. A
    field that an older version did not save was at its default.

    >>> old = {"seed": 0, "device": "cpu", "optim": {"base_lr": 0.1}}
    >>> differences(old, {"seed": 1, "device": "cuda", "optim": {"base_lr": 0.1}})
    ['seed was 0 and is 1']
    """
    defaults, new = _flat(asdict(TrainConfig())), _flat(now)
    old = {name: defaults[name] for name in new if name in defaults} | _flat(saved)
    free = MAY_DIFFER
    if new.get("optim.schedule") == "constant" and new.get("method.momentum_schedule") == "constant":
        free = free | LENGTH
    names = [name for name in [*old, *(n for n in new if n not in old)] if name not in free]
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in names if old.get(name) != new.get(name)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value
    return flat
