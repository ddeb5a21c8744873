"""Residual networks as backbones: timm's, without a classifier; `[N, C, H, W]` to features `[N, D]`."""

__all__ = ["resnet"]

from typing import Any

from timm.models import resnet as timm_resnet
from torch import nn

from .config import ResNetConfig


def resnet(config: ResNetConfig) -> nn.Module:
    """A residual network with random weights; the last BatchNorm of every block starts at zero.

    >>> round(sum(p.numel() for p in resnet(ResNetConfig()).parameters()) / 1e6, 1)
    23.5
    """
    options: dict[str, Any] = {"num_classes": 0, "in_chans": config.in_chans, "zero_init_last": True}
    return getattr(timm_resnet, config.name)(pretrained=False, **options)
