"""The backbone of a run, with the treatment of its patch projection (arXiv 2104.02057, Sec. 4.2)."""

__all__ = ["build_backbone", "parameter_groups"]

from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from .config import MethodConfig, ResNetConfig, VitConfig
from .resnet import resnet
from .token_norm import TokenBatchNorm
from .vit import vit


def build_backbone(config: VitConfig | ResNetConfig, method: MethodConfig) -> nn.Module:
    """The network that `config` describes, its patch projection treated as `method` says.

    The treatments "slow" and "clip" act on the learning rate and the gradient, not here.
    Raises ValueError for a treatment of a patch projection that the network lacks.

    >>> model = build_backbone(VitConfig(), MethodConfig(patch_projection="frozen"))
    >>> sum(p.numel() for p in model.patch_embed.parameters() if p.requires_grad)
    0
    """
    if method.patch_projection != "learned" and not config.patches:
        raise ValueError(
            f"patch_projection {method.patch_projection!r} needs a patch projection, which this backbone lacks: "
            "use 'learned'."
        )
    if isinstance(config, ResNetConfig):
        return resnet(config)
    model = vit(config)
    _treat_(model, method.patch_projection)
    return model


def parameter_groups(method: MethodConfig) -> dict[str, dict[str, float]]:
    """Options of the optimizer by the start of a parameter's name; see `optim.build_optimizer`.

    >>> parameter_groups(MethodConfig(patch_projection="slow"))
    {'encoder.backbone.patch_embed.': {'lr_scale': 0.2}}
    """
    if method.patch_projection != "slow":
        return {}
    return {"encoder.backbone.patch_embed.": {"lr_scale": method.patch_lr_scale}}


def _treat_(model: VisionTransformer, treatment: str) -> None:
    patch_embed = model.patch_embed
    if treatment == "frozen":
        # Weight and bias leave the optimizer for good: a zeroed gradient would still let weight decay shrink them.
        patch_embed.requires_grad_(False)
    elif treatment == "batch_norm":
        patch_embed.norm = TokenBatchNorm(model.embed_dim)
    elif treatment == "weight_norm":
        weight_norm(patch_embed.proj)  # a length and a direction for every output channel
