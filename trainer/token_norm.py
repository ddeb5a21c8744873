"""BatchNorm for tokens `[N, L, D]`: every channel over all tokens of all images of the batch."""

__all__ = ["TokenBatchNorm"]

from torch import Tensor, nn


class TokenBatchNorm(nn.Module):
    """`BatchNorm1d` over the last axis of any tensor, which torch's own would take for the length.

    The norm is a child, not a base class, so that conversion to SyncBatchNorm finds it and keeps the reshaping.

    >>> import torch
    >>> round(TokenBatchNorm(4)(torch.randn(3, 5, 4)).square().mean().item(), 3)
    1.0
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Same shape."""
        return self.bn(tokens.flatten(0, -2)).view_as(tokens)
