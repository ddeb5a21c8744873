"""BYOL (arXiv 2006.07733): predict the momentum encoder's view of the other crop, without negatives.

The loss is the squared distance of the two unit vectors, 2 - 2 cos (0 to 4), summed over both directions. No guess
has a loss of its own here, so there is no chance line; two unrelated vectors of many dimensions have 4, a collapsed
encoder has 0. Heads have BatchNorm in their hidden layers only (arXiv 2104.02057, appendix).
"""

__all__ = ["BYOL", "TRAITS", "build", "byol_loss"]

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import build_backbone
from ..config import HeadConfig, MethodConfig, ResNetConfig, VitConfig
from ..encoder import MomentumPair
from ..heads import predictor, projector
from ..retrieval import retrieval_of
from . import Output, Traits, settled

TRAITS = Traits(
    reads=frozenset({"momentum", "momentum_schedule"}),
    head_norm="hidden",
    predictor=True,
    chance=lambda method, batch_size: None,
)


def build(backbone: VitConfig | ResNetConfig, heads: HeadConfig, method: MethodConfig) -> "BYOL":
    """BYOL of the given sizes.

    >>> model = build(VitConfig(), HeadConfig(64, 16), MethodConfig("byol"))
    >>> [type(layer).__name__ for layer in model.predictor]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    heads = settled(heads, method, TRAITS)
    norm = heads.batch_norm or "hidden"
    last = norm if heads.predictor_last_bn else "hidden"
    return BYOL(
        build_backbone(backbone, method),
        projector(backbone.dim, heads.hidden, heads.out, layers=heads.projector_layers, norm=norm),
        predictor(heads.out, heads.hidden, heads.out, norm=last) if heads.predictor else nn.Identity(),
    )


class BYOL(MomentumPair):
    """Two encoders, a predictor and the symmetrised regression of one view on the other.

    Args:
        backbone: images `[N, C, H, W]` to features `[N, D]`.
        projector: features `[N, D]` to embeddings `[N, E]`.
        predictor: embeddings `[N, E]` to predictions `[N, E]`.
    """

    def forward(self, x1: Tensor, x2: Tensor, momentum: float) -> Output:
        """Update the momentum encoder, then predict both views `[N, C, H, W]` from each other.

        Logs, which the loss has no part in: `contrastive_accuracy` (0 to 1: how often the own image's target is the
        nearest of all), `positive_similarity` and `negative_similarity` (mean cosines with the own target and with the
        others'; both near 1 means collapse). Raises ValueError if the views differ in shape.
        """
        q1, q2, k1, k2, features = self.encode(x1, x2, momentum)
        loss1, logs1 = byol_loss(q1, k2)
        loss2, logs2 = byol_loss(q2, k1)
        logs = {name: (logs1[name] + logs2[name]) / 2 for name in logs1}
        return Output(loss1 + loss2, logs, features.detach())


def byol_loss(q: Tensor, k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared distance of predictions and targets `[N, E]` as unit vectors, and what it looked like.

    Row i of `k` belongs to row i of `q`; no gradient goes into `k`. Computed in float32 at least.

    >>> loss, logs = byol_loss(torch.eye(4), torch.eye(4).roll(1, 0))
    >>> loss.item(), logs["contrastive_accuracy"].item()
    (2.0, 0.0)
    """
    precision = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.to(precision), k.detach().to(precision)
        loss = 2 - 2 * (F.normalize(q, dim=1) * F.normalize(k, dim=1)).sum(1).mean()
        return loss, retrieval_of(q, k)
