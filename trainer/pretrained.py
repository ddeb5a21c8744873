"""A trained backbone taken out of a checkpoint: of a run of this trainer, or a published one of MoCo v3.

Images go in as `f32[N, C, H, W]`, normalised as during training; features `f32[N, D]` come out. Files are read with
torch's weights_only, so that one from elsewhere runs no code.
"""

__all__ = ["Pretrained", "load_pretrained", "resized"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers import resample_abs_pos_embed  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from .authors import from_authors, network_of
from .backbone import build_backbone
from .checkpoint import CheckpointError, Checkpoints, read_checkpoint
from .config import DataConfig, MethodConfig, ResNetConfig, TrainConfig, VitConfig
from .config_saved import config_from
from .named_data import Tones, tones

Which = Literal["encoder", "momentum_encoder"]


@dataclass(frozen=True)
class Pretrained:
    """A backbone in evaluation mode, without gradients, and where it is from."""

    backbone: nn.Module
    network: VitConfig | ResNetConfig
    method: MethodConfig
    encoder: Which
    path: Path
    """The file."""
    step: int | None
    """Updates of the optimizer so far; None for a published file, which counts epochs."""
    data: DataConfig | None
    """What it was trained on; None for a published file: ImageNet."""
    config: TrainConfig | None = None
    """The whole configuration of its run; None for a published file."""
    epoch: int | None = None
    """Epochs that a published file says it was trained for."""
    untrained: bool = False
    """Whether the weights are random ones in the checkpoint's place: the control."""
    notes: tuple[str, ...] = ()
    """What the user should know, as sentences."""

    @property
    def tones(self) -> Tones:
        """Mean and standard deviation per channel by which its training images were normalised."""
        return tones(self.data.dataset if self.data else "imagenet", self.network.in_chans)

    @property
    def origin(self) -> dict[str, Any]:
        """Where a number measured on it comes from, for tables and JSON."""
        if self.untrained:
            return {"checkpoint": str(self.path), "encoder": "untrained network of the same shape"}
        age = {"step": self.step} if self.data else {"epoch": self.epoch}
        pretraining = self.data.dataset if self.data else "imagenet"
        origin = {"checkpoint": str(self.path), "method": self.method.name, "pretrained_on": pretraining}
        return {**origin, "encoder": self.encoder, **age}


def load_pretrained(
    path: str | Path,
    encoder: Which = "encoder",
    *,
    arch: str | None = None,
    heads: int | None = None,
    untrained: bool = False,
    seed: int = 0,
) -> Pretrained:
    """The backbone of the checkpoint at `path`: a file step-*.pt, a folder of them (the newest), or a published file.

    `momentum_encoder` is the one before the last update, as in the published code. `arch` and `heads` are those of
    `authors.network_of`. With `untrained` the weights are drawn anew from `seed`.
    Raises CheckpointError with one sentence for a file that is missing, torn, or something else.
    """
    state, file, notes = _read(Path(path).expanduser())
    try:
        if "config" in state and "model" in state:
            loaded = _own(state, file, encoder, arch, heads)
        else:
            loaded = _published(state, file, encoder, arch, heads)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file} cannot be used: {' '.join(str(error).split())}") from error
    if untrained:
        torch.manual_seed(seed)
        loaded = replace(loaded, backbone=_frozen(build_backbone(loaded.network, loaded.method)), untrained=True)
    return replace(loaded, notes=(*notes, *loaded.notes))


def resized(pretrained: Pretrained, image_size: int | tuple[int, int]) -> Pretrained:
    """The same backbone for images of another size: its position table is computed anew, or interpolated if learned.

    Raises ValueError for a size that is not a multiple of the patch size.

    >>> from .vit import vit
    >>> small = Pretrained(vit(VitConfig()), VitConfig(), MethodConfig(), "encoder", Path("x.pt"), 0, DataConfig())
    >>> resized(small, 56).backbone.pos_embed.shape
    torch.Size([1, 65, 32])
    """
    network = replace(pretrained.network, image_size=image_size)
    if network.size == pretrained.network.size:
        return pretrained
    backbone = build_backbone(network, pretrained.method)
    weights = dict(pretrained.backbone.state_dict())
    if isinstance(network, VitConfig) and network.position != "none":
        assert isinstance(pretrained.network, VitConfig)
        weights["pos_embed"] = (
            backbone.state_dict()["pos_embed"]
            if network.position == "sincos"
            else resample_abs_pos_embed(
                weights["pos_embed"],
                new_size=list(network.grid),
                old_size=list(pretrained.network.grid),
                num_prefix_tokens=1 if network.pooling == "class_token" else 0,
            )
        )
    backbone.load_state_dict(weights)
    return replace(pretrained, backbone=_frozen(backbone), network=network)


def _read(path: Path) -> tuple[dict[str, Any], Path, list[str]]:
    """The newest state that can be read, its file, and a sentence on each newer file that can't."""
    if path.is_file():
        return read_checkpoint(path), path, []
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: give a file step-*.pt, a folder of them, or a published file.")
    paths = Checkpoints(path).paths()
    damaged: list[str] = []
    for file in paths:
        try:
            return read_checkpoint(file), file, [f"{text} An older one is used." for text in damaged]
        except CheckpointError as error:
            damaged.append(str(error))
    raise CheckpointError(damaged[0] if damaged else f"no checkpoint step-*.pt in {path}: give the folder of a run.")


def _own(state: Mapping[str, Any], file: Path, encoder: Which, arch: str | None, heads: int | None) -> Pretrained:
    if arch is not None or heads is not None:
        raise ValueError("arch and heads are for published files; this one holds its configuration: leave them out.")
    config = config_from(state["config"])
    network, method = config.network, config.method
    backbone = build_backbone(network, method)
    backbone.load_state_dict(_part(state["model"], encoder, method.name))
    return Pretrained(_frozen(backbone), network, method, encoder, file, state["step"], config.data, config)


def _published(state: Mapping[str, Any], file: Path, encoder: Which, arch: str | None, heads: int | None) -> Pretrained:
    tensors = state.get("state_dict", state)
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError("neither a checkpoint of this trainer nor a published one of MoCo v3.")
    weights = _part(from_authors(tensors), encoder, "mocov3")
    network = network_of(weights, arch, heads)
    method = MethodConfig()
    backbone = build_backbone(network, method)
    backbone.load_state_dict(weights)
    notes = ()
    if isinstance(network, VitConfig) and network.position != "sincos":
        notes = ("the file's position table is not the paper's sines and cosines: it is used as it stands",)
    epoch = state.get("epoch")
    return Pretrained(_frozen(backbone), network, method, encoder, file, None, None, epoch=epoch, notes=notes)


def _part(tensors: Mapping[str, Tensor], encoder: Which, method: str) -> dict[str, Tensor]:
    prefix = f"{encoder}.backbone."
    part = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    if not part:
        raise ValueError(f"it holds no {encoder} (method {method!r}): choose the other encoder.")
    return part


def _frozen(backbone: nn.Module) -> nn.Module:
    return backbone.eval().requires_grad_(False)
