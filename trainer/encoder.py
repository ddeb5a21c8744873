"""Backbone and projection head as one encoder, alone or beside its momentum encoder (arXiv 2104.02057, Alg. 1)."""

__all__ = ["Encoder", "MomentumPair", "both"]

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.utils.checkpoint import checkpoint

from .whole import local


class Encoder(nn.Module):
    """A backbone with its projection head.

    With `parts` above 1 the backbone takes the batch in so many parts, one after another, and keeps no activations:
    the backward pass computes those of one part at a time again. Heads and loss see the whole batch, so the gradients
    are those of the whole batch, negatives and BatchNorm of the heads included (the idea of arXiv 2101.06983).
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.parts = 1
        self.one_pass = not any(isinstance(module, _BatchNorm) for module in backbone.modules())

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views `[2N, C, H, W]` to the embeddings `[N, E]` of either half and the features `[2N, D]` of both.

        A backbone without BatchNorm takes both halves in one pass. BatchNorm, in whichever part, takes them one after
        the other (paper, appendix: two separate batches).
        """
        if self.one_pass and self.parts > 1:
            features = torch.cat([self._part(part) for part in views.chunk(self.parts)])
        elif self.one_pass:
            features = self.backbone(views)
        else:
            features = torch.cat([self.backbone(half) for half in views.chunk(2)])
        first, second = features.chunk(2)
        return self.projector(first), self.projector(second), features

    def _part(self, views: Tensor) -> Tensor:
        # There is no dropout, so no state of a random generator has to be kept.
        return checkpoint(self.backbone, views, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore


class MomentumPair(nn.Module):
    """An encoder with a predictor, and a momentum encoder that follows it."""

    def __init__(self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)
        self.predictor = predictor
        self.momentum_encoder = deepcopy(self.encoder).requires_grad_(False)

    def encode(self, x1: Tensor, x2: Tensor, momentum: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Update the momentum encoder; queries q1, q2 and keys k1, k2 `[N, E]` of two views, and features `[2N, D]`."""
        views = both(x1, x2)
        self.update_momentum_encoder(momentum)
        with torch.no_grad():
            k1, k2, _ = self.momentum_encoder(views)
        z1, z2, features = self.encoder(views)
        return self.predictor(z1), self.predictor(z2), k1, k2, features

    @torch.no_grad()
    def update_momentum_encoder(self, momentum: float) -> None:
        """Move the momentum encoder's parameters towards the encoder's; BatchNorm statistics stay its own.

        An interpolation leaves equal tensors equal to the last bit; the sum m p + (1 - m) q would let them drift.
        """
        targets = [local(p) for p in self.momentum_encoder.parameters()]
        sources = [local(p) for p in self.encoder.parameters()]
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]


def both(x1: Tensor, x2: Tensor) -> Tensor:
    """Two views `[N, C, H, W]` as one batch `[2N, C, H, W]`; ValueError if they differ in shape."""
    if x1.shape != x2.shape:
        raise ValueError(f"the views have shapes {tuple(x1.shape)} and {tuple(x2.shape)}: crop both to one size.")
    return torch.cat([x1, x2])
