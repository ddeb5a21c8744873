"""MoCo v3 (arXiv 2104.02057): contrast of queries with momentum-encoded keys.

The query encoder has backbone, projection and prediction head, the momentum encoder backbone and projection head
only. The loss is in units of 2 x temperature x nats, summed over both directions: chance is 4 T ln(N) for N keys.
"""

__all__ = ["TRAITS", "MoCoV3", "build", "info_nce"]

from math import exp, log, log1p

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import build_backbone
from ..config import HeadConfig, MethodConfig, ResNetConfig, VitConfig
from ..encoder import MomentumPair
from ..gathering import gather, world
from ..heads import predictor, projector
from ..retrieval import retrieval
from . import Chance, Output, Traits, settled


def _chance(method: MethodConfig, batch_size: int) -> Chance:
    ideal = 2 * log1p((batch_size - 1) * exp(-1 / method.temperature))
    if not method.loss_scale:
        return Chance(2 * log(batch_size), f"2 x ln {batch_size}", ideal)
    scale = 2 * method.temperature
    return Chance(2 * scale * log(batch_size), f"4 x {method.temperature:g} x ln {batch_size}", scale * ideal)


TRAITS = Traits(
    reads=frozenset({"temperature", "momentum", "momentum_schedule", "loss_scale"}),
    head_norm="all",
    predictor=True,
    chance=_chance,
)


def build(backbone: VitConfig | ResNetConfig, heads: HeadConfig, method: MethodConfig) -> "MoCoV3":
    """MoCo v3 of the given sizes, with its patch projection treated as `method` says.

    >>> model = build(VitConfig(), HeadConfig(64, 16), MethodConfig(patch_projection="frozen"))
    >>> sum(p.numel() for p in model.encoder.backbone.patch_embed.parameters() if p.requires_grad)
    0
    """
    heads = settled(heads, method, TRAITS)
    norm = heads.batch_norm or "all"
    last = norm if heads.predictor_last_bn else "hidden"
    return MoCoV3(
        build_backbone(backbone, method),
        projector(backbone.dim, heads.hidden, heads.out, layers=heads.projector_layers, norm=norm),
        predictor(heads.out, heads.hidden, heads.out, norm=last) if heads.predictor else nn.Identity(),
        temperature=method.temperature,
        loss_scale=method.loss_scale,
    )


class MoCoV3(MomentumPair):
    """Two encoders, a predictor and the symmetrised contrastive loss (Alg. 1 of the paper).

    Args:
        backbone: images `[N, C, H, W]` to features `[N, D]`.
        projector: features `[N, D]` to embeddings `[N, E]`.
        predictor: embeddings `[N, E]` to queries `[N, E]`.
        temperature: divides the cosine similarities.
        loss_scale: multiply the loss by 2 x temperature.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        *,
        temperature: float = 0.2,
        loss_scale: bool = True,
    ) -> None:
        super().__init__(backbone, projector, predictor)
        self.temperature, self.loss_scale = temperature, loss_scale

    def forward(self, x1: Tensor, x2: Tensor, momentum: float) -> Output:
        """Update the momentum encoder, then contrast both views `[N, C, H, W]` in both directions.

        With momentum 0 the keys come from the encoder's newest weights, without a gradient.

        Logs: `contrastive_accuracy` (0 to 1: how often the own key is the nearest of all),
        `positive_similarity` and `negative_similarity` (mean cosines with the own key and with the others').
        Raises ValueError if the views differ in shape.
        """
        q1, q2, k1, k2, features = self.encode(x1, x2, momentum)
        loss1, logs1 = info_nce(q1, k2, self.temperature, loss_scale=self.loss_scale)
        loss2, logs2 = info_nce(q2, k1, self.temperature, loss_scale=self.loss_scale)
        logs = {name: (logs1[name] + logs2[name]) / 2 for name in logs1}
        return Output(loss1 + loss2, logs, features.detach())


def info_nce(q: Tensor, k: Tensor, temperature: float, *, loss_scale: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """The contrastive loss of queries `[N, E]` with keys `[N, E]`, times 2 x temperature, and what it looked like.

    Row i of `k` belongs to row i of `q`; the keys of all processes are the candidates. Computed in float32 at least,
    whatever autocast says: bfloat16 logits are off by 2e-3 when training is nearly converged. Without `loss_scale` it
    is in nats.

    >>> loss, logs = info_nce(torch.eye(4), torch.eye(4), temperature=0.2)
    >>> round(loss.item(), 4), logs["contrastive_accuracy"].item(), logs["positive_similarity"].item()
    (0.008, 1.0, 1.0)
    """
    precision = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q = F.normalize(q.to(precision), dim=1)
        k = gather(F.normalize(k.detach().to(precision), dim=1))
        similarity = q @ k.T
        labels = torch.arange(len(q), device=q.device) + world()[1] * len(q)
        loss = F.cross_entropy(similarity / temperature, labels)
        if loss_scale:
            loss = loss * (2 * temperature)
    return loss, retrieval(similarity.detach(), labels)
