"""Published MoCo v3 checkpoints in this trainer's terms; the tensors and their order are the same.

There the projection head hangs on the backbone as `head` (ViT) or `fc` (ResNet); here backbone and projector stand side
by side. Of a network's sizes, only the number of attention heads cannot be read from the shapes of its tensors.
"""

__all__ = ["ARCHS", "from_authors", "network_of"]

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from .config_backbone import ResNetConfig, VitConfig
from .vit import sincos_position

Value = TypeVar("Value")

ARCHS = {"vit-s": (384, 12), "vit-b": (768, 12), "vit-l": (1024, 16), "vit-h": (1280, 16)}
"""Width and attention heads of the paper's ViTs (Table 2); the heads are those of published files of this width."""
# Blocks of each stage, to the name of a residual network.
STAGES: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}


def from_authors(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """The `state_dict` of a published checkpoint (or anything else by parameter name) under the names used here.

    Load the result with `MoCoV3.load_state_dict`. Raises ValueError for a name that is not MoCo v3's.

    >>> from_authors({"module.base_encoder.head.0.weight": 1, "predictor.3.weight": 2})
    {'encoder.projector.0.weight': 1, 'predictor.3.weight': 2}
    """
    return {_rename(name): value for name, value in state_dict.items()}


def _rename(name: str) -> str:
    part, _, rest = name.removeprefix("module.").partition(".")
    if part == "predictor":
        return f"{part}.{rest}"
    if part not in ("base_encoder", "momentum_encoder"):
        raise ValueError(
            f"{name!r} is not a name of MoCo v3: base_encoder., momentum_encoder. or predictor. is expected."
        )
    encoder = "encoder" if part == "base_encoder" else part
    head, _, layer = rest.partition(".")
    if head in ("head", "fc"):
        return f"{encoder}.projector.{layer}"
    return f"{encoder}.backbone.{rest}"


def network_of(
    tensors: Mapping[str, Tensor], arch: str | None = None, heads: int | None = None
) -> VitConfig | ResNetConfig:
    """The network whose `state_dict` is `tensors` (names as in `encoder.backbone`), its sizes read from the shapes.

    `arch` is one of `ARCHS` or the name of a ResNet, and must agree with the shapes; `heads` is the number of attention
    heads of a ViT whose width is none of theirs. A position table that is not the paper's is taken as a learned one.
    Raises ValueError if the tensors are no ViT and no ResNet, or not the one that was named.

    >>> from .vit import vit
    >>> network_of(vit(VitConfig()).state_dict(), heads=4).depth
    8
    """
    if "layer1.0.conv1.weight" in tensors:
        return _resnet(tensors, arch, heads)
    missing = [
        name for name in ("cls_token", "pos_embed", "norm.weight", "blocks.0.mlp.fc1.weight") if name not in tensors
    ]
    if missing:
        raise ValueError(f"the backbone has no {missing[0]}: a ViT as published, or a ResNet, is expected.")
    dim = tensors["cls_token"].shape[-1]
    heads = _heads(dim, arch, heads)
    conv = "patch_embed.proj.weight" not in tensors
    kernels = [t for name, t in tensors.items() if name.startswith("patch_embed.proj.") and t.ndim == 4]
    patch = 2 ** (len(kernels) - 1) if conv else kernels[0].shape[-1]
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    if side**2 + 1 != tensors["pos_embed"].shape[1]:
        raise ValueError(
            f"a position table of {tensors['pos_embed'].shape[1]} rows is no square of patches and a class token."
        )
    return VitConfig(
        image_size=side * patch,
        in_chans=kernels[0].shape[1],
        patch_size=patch,
        dim=dim,
        depth=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        heads=heads,
        mlp_ratio=tensors["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        stem="conv" if conv else "patch",
        position="sincos" if _is_sincos(tensors["pos_embed"], side) else "learned",
    )


def _is_sincos(table: Tensor, side: int) -> bool:
    dim = table.shape[-1]
    return dim % 4 == 0 and torch.allclose(table.float(), sincos_position(side, side, dim), rtol=0, atol=1e-5)


def _heads(dim: int, arch: str | None, heads: int | None) -> int:
    if arch is not None and arch not in ARCHS:
        raise ValueError(f"arch {arch!r}, but the file holds a ViT of width {dim}: choose one of {', '.join(ARCHS)}.")
    if arch is not None and ARCHS[arch][0] != dim:
        raise ValueError(f"arch {arch!r} is {ARCHS[arch][0]} wide, but the file's ViT is {dim} wide: leave arch out.")
    known = ARCHS[arch][1] if arch else dict(ARCHS.values()).get(dim)
    if heads is None and known is None:
        raise ValueError(
            f"a ViT of width {dim} is none of the paper's, and shapes do not tell its attention heads: give --heads."
        )
    return heads or known or 0


def _resnet(tensors: Mapping[str, Tensor], arch: str | None, heads: int | None) -> ResNetConfig:
    if heads is not None:
        raise ValueError(f"heads {heads} would have no effect on a ResNet, which is what the file holds: leave it out.")
    stages = tuple(len({name.split(".")[1] for name in tensors if name.startswith(f"layer{i}.")}) for i in range(1, 5))
    name = STAGES.get(stages)
    if stages == (3, 4, 6, 3) and "layer1.0.conv3.weight" not in tensors:
        name = "resnet34"
    if name is None or (arch is not None and arch != name):
        raise ValueError(
            f"the file holds a ResNet with stages of {stages} blocks ({name or 'an unknown one'}), not {arch}."
        )
    return ResNetConfig(name=name, in_chans=tensors["conv1.weight"].shape[1])  # pyright: ignore[reportArgumentType]
