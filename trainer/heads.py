"""The multi-layer heads: `[N, in] -> [N, out]`, ReLU between the layers, BatchNorm after all, the hidden ones, or none.

Source: arXiv 2104.02057, Sec. 5 and appendix. Every call is one BatchNorm batch, so the two crops of an image, which
the paper normalises apart (appendix), go through a head in two calls.
"""

__all__ = ["predictor", "projector"]

from itertools import pairwise

from torch import nn


def projector(in_dim: int, hidden: int = 4096, out: int = 256, *, layers: int = 3, norm: str = "all") -> nn.Sequential:
    """The projection head, of 3 layers for ViT; `norm` is "all", "hidden" or "none".

    >>> sum(p.numel() for p in projector(384).parameters())
    19415040
    """
    return _mlp(in_dim, *[hidden] * (layers - 1), out, norm=norm)


def predictor(in_dim: int = 256, hidden: int = 4096, out: int = 256, *, norm: str = "all") -> nn.Sequential:
    """The 2-layer prediction head.

    >>> sum(p.numel() for p in predictor().parameters())
    2105344
    """
    return _mlp(in_dim, hidden, out, norm=norm)


def _mlp(*widths: int, norm: str) -> nn.Sequential:
    """Linear layers keep PyTorch's initial weights; a last BatchNorm has no scale and no shift."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        # No bias where a BatchNorm follows, which subtracts it.
        layers.append(nn.Linear(fan_in, fan_out, bias=norm == "none"))
        if norm != "none":
            layers.append(nn.BatchNorm1d(fan_out))
        layers.append(nn.ReLU(inplace=True))
    # BYOL's heads and the published ResNet-50's predictor end in a layer that has neither bias nor BatchNorm.
    layers.append(nn.Linear(widths[-2], widths[-1], bias=norm == "none"))
    if norm == "all":
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)
