"""The multi-layer heads of MoCo v3: BatchNorm after every layer, ReLU between them; `[N, in] -> [N, out]`.

Source: arXiv 2104.02057, Sec. 5. Every call is one BatchNorm batch, so the two crops of an image, which the paper
normalises apart (appendix), go through a head in two calls.
"""

__all__ = ["predictor", "projector"]

from itertools import pairwise

from torch import nn


def projector(in_dim: int, hidden: int = 4096, out: int = 256) -> nn.Sequential:
    """The 3-layer projection head.

    >>> sum(p.numel() for p in projector(384).parameters())
    19415040
    """
    return _mlp(in_dim, hidden, hidden, out)


def predictor(in_dim: int = 256, hidden: int = 4096, out: int = 256) -> nn.Sequential:
    """The 2-layer prediction head.

    >>> sum(p.numel() for p in predictor().parameters())
    2105344
    """
    return _mlp(in_dim, hidden, out)


def _mlp(*widths: int) -> nn.Sequential:
    """Linear layers keep PyTorch's initial weights; the last BatchNorm has no scale and no shift."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        # No bias: the BatchNorm that follows subtracts it.
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-2], nn.BatchNorm1d(widths[-1], affine=False))
