"""A trained backbone as a plain timm model: one safetensors file, or a folder in the Hugging Face hub's layout.

The features of the exported model are those of the backbone, to float32's rounding. What follows the patch projection
in training (BatchNorm) or makes it up (WeightNorm) is folded into its weights, which is exact in evaluation.
"""

__all__ = ["TimmModel", "build_timm", "save_folder", "save_weights", "to_timm"]

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import ResNetConfig, VitConfig
from .model_card import model_card
from .pretrained import Pretrained
from .token_norm import TokenBatchNorm

# Width to the timm model that a ViT is named after; its other sizes are given as arguments.
NAMES = {192: "vit_tiny_patch16_224", 384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}
NAMES |= {1024: "vit_large_patch16_224", 1280: "vit_huge_patch14_224"}
# Their images are seen whole, not by a crop of the centre.
SMALL = ("fashion-mnist", "cifar-10", "cifar-100")


@dataclass(frozen=True)
class TimmModel:
    """What timm needs to build the model, and its weights."""

    architecture: str
    """Name for `timm.create_model`."""
    model_args: Mapping[str, Any]
    """Its arguments; they include the attention heads, of which timm's ViT-S has 6 and MoCo v3's 12."""
    pretrained_cfg: Mapping[str, Any]
    """How images are prepared."""
    tensors: Mapping[str, Tensor]
    """The `state_dict`, float32 on the CPU."""

    def call(self, weights: str) -> str:
        """The line of Python that builds the model with the weights in the file `weights`.

        >>> TimmModel("resnet50", {"num_classes": 0}, {}, {}).call("r50.safetensors")
        "timm.create_model('resnet50', num_classes=0, checkpoint_path='r50.safetensors')"
        """
        arguments = {**self.model_args, "checkpoint_path": weights}
        return f"timm.create_model({self.architecture!r}, {', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def to_timm(pretrained: Pretrained) -> TimmModel:
    """The timm model with the features of `pretrained`.

    Raises ValueError for a backbone that no plain timm model can hold.

    >>> from .vit import vit
    >>> from .config import DataConfig, MethodConfig
    >>> own = Pretrained(vit(VitConfig()), VitConfig(), MethodConfig(), "encoder", Path("x.pt"), 0, DataConfig())
    >>> model = to_timm(own)
    >>> model.architecture, model.model_args["num_heads"], model.tensors["cls_token"].shape
    ('vit_tiny_patch16_224', 4, torch.Size([1, 1, 32]))
    """
    network = pretrained.network
    if isinstance(network, ResNetConfig):
        architecture: str = network.name
        arguments: dict[str, Any] = {"in_chans": network.in_chans, "num_classes": 0}
    else:
        architecture = NAMES[min(NAMES, key=lambda width: abs(width - network.dim))]
        arguments = _vit_arguments(network)
    mean, std = pretrained.tones
    preparation = {
        "input_size": [network.in_chans, *network.size],
        "fixed_input_size": isinstance(network, VitConfig),
        "interpolation": "bilinear",
        "crop_pct": 1.0 if pretrained.data and pretrained.data.dataset in SMALL else 0.875,
        "crop_mode": "center",
        "mean": list(mean),
        "std": list(std),
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "conv1" if isinstance(network, ResNetConfig) else "patch_embed.proj",
        "classifier": "fc" if isinstance(network, ResNetConfig) else "head",
    }
    return TimmModel(architecture, arguments, preparation, _plain_tensors(pretrained.backbone, network))


def build_timm(model: TimmModel) -> nn.Module:
    """The model as timm builds it, in evaluation mode, its weights loaded strictly."""
    built = timm.create_model(model.architecture, pretrained=False, **model.model_args)
    built.load_state_dict(dict(model.tensors), strict=True)
    return built.eval()


def save_weights(pretrained: Pretrained, path: Path, *, overwrite: bool = False) -> TimmModel:
    """Write one safetensors file, whose header says how timm builds the model; raises ValueError if it is there."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already: --overwrite replaces it.")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {path.parent} to write into: make it, or choose another.")
    model = _checked(pretrained)
    _write(model, pretrained, path)
    return model


def save_folder(
    pretrained: Pretrained, folder: Path, measured: Sequence[Mapping[str, Any]] = (), *, overwrite: bool = False
) -> TimmModel:
    """Write `config.json`, `model.safetensors` and `README.md`, as `timm.create_model("local-dir:…")` reads them.

    `measured` are evaluations of this checkpoint (`Measured.as_json()`), for the model card.
    Raises ValueError for a folder with files in it, and for measurements of something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} has files in it: --overwrite replaces those of the same names.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder.")
    model = _checked(pretrained)
    card = model_card(pretrained, model.architecture, measured)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": model.architecture,
        "num_classes": 0,
        "num_features": pretrained.network.dim,
        "global_pool": model.model_args.get("global_pool", "avg"),
        "model_args": dict(model.model_args),
        "pretrained_cfg": dict(model.pretrained_cfg),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    _write(model, pretrained, folder / "model.safetensors")
    return model


def _vit_arguments(network: VitConfig) -> dict[str, Any]:
    class_token = network.pooling == "class_token"
    return {
        "img_size": list(network.size),
        "patch_size": network.patch_size,
        "in_chans": network.in_chans,
        "embed_dim": network.dim,
        "depth": network.depth,
        "num_heads": network.heads,
        "mlp_ratio": network.mlp_ratio,
        "class_token": class_token,
        "global_pool": "token" if class_token else "avg",
        "pos_embed": "none" if network.position == "none" else "learn",
        "final_norm": network.pooling != "mean_pool",
        "fc_norm": False,
        "num_classes": 0,
    }


def _plain_tensors(backbone: nn.Module, network: VitConfig | ResNetConfig) -> dict[str, Tensor]:
    state = {name: t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    if isinstance(network, ResNetConfig):
        return tensors
    if network.mlp_norm == "batch":
        raise ValueError("a ViT-BN is no plain timm ViT, which has a LayerNorm in every block: it cannot be exported.")
    if network.stem == "conv":
        raise ValueError("a ViT with a convolutional stem is no plain timm ViT: it cannot be exported.")
    assert isinstance(backbone, VisionTransformer)
    projection = backbone.patch_embed.proj
    # Read from the module, so that a WeightNorm's length and direction are one matrix already.
    weight, bias = projection.weight.detach().double(), projection.bias.detach().double()  # pyright: ignore
    norm = backbone.patch_embed.norm
    if isinstance(norm, TokenBatchNorm):
        bn = norm.bn
        assert bn.running_var is not None
        assert bn.running_mean is not None
        scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        weight, bias = weight * scale.view(-1, 1, 1, 1), (bias - bn.running_mean) * scale + bn.bias
    tensors = {name: t for name, t in tensors.items() if not name.startswith("patch_embed.")}
    return tensors | {
        "patch_embed.proj.weight": weight.detach().float().cpu().contiguous(),
        "patch_embed.proj.bias": bias.detach().float().cpu().contiguous(),
    }


@torch.no_grad()
def _checked(pretrained: Pretrained) -> TimmModel:
    """The timm model, after its features were compared with the backbone's."""
    model = to_timm(pretrained)
    network = pretrained.network
    images = torch.randn(2, network.in_chans, *network.size, generator=torch.Generator().manual_seed(0))
    expected = pretrained.backbone.cpu()(images)
    found = build_timm(model)(images)
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * scale + 1e-6, "the exported model has other features"
    return model


def _write(model: TimmModel, pretrained: Pretrained, path: Path) -> None:
    header = {
        "format": "pt",
        "architecture": model.architecture,
        "model_args": json.dumps(model.model_args),
        "pretrained_cfg": json.dumps(model.pretrained_cfg),
        "origin": json.dumps(pretrained.origin),
    }
    if pretrained.config is not None:
        header["config"] = json.dumps(asdict(pretrained.config))
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(dict(model.tensors), partial, metadata=header)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
