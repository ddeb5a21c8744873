"""MoCo v3 with a vision transformer (arXiv 2104.02057): contrast of queries with momentum-encoded keys.

The query encoder has backbone, projection and prediction head, the momentum encoder backbone and projection head
only. The loss is in units of 2 x temperature x nats, summed over both directions: chance is 4 T ln(N) for N keys.
"""

__all__ = ["MoCoV3", "build", "info_nce"]

from copy import deepcopy

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HeadConfig, MethodConfig, VitConfig
from ..heads import predictor, projector
from ..vit import vit
from . import Output


def build(vit_config: VitConfig, heads: HeadConfig, method: MethodConfig) -> "MoCoV3":
    """MoCo v3 of the given sizes, with a learned or a frozen patch projection.

    >>> model = build(VitConfig(), HeadConfig(64, 16), MethodConfig(patch_projection="frozen"))
    >>> sum(p.numel() for p in model.encoder.backbone.patch_embed.parameters() if p.requires_grad)
    0
    """
    backbone = vit(vit_config)
    if method.patch_projection == "frozen":
        # Weight and bias leave the optimizer for good: a zeroed gradient would still let weight decay shrink them.
        backbone.patch_embed.requires_grad_(False)
    return MoCoV3(
        backbone,
        projector(vit_config.dim, heads.hidden, heads.out),
        predictor(heads.out, heads.hidden, heads.out),
        temperature=method.temperature,
    )


class MoCoV3(nn.Module):
    """Two encoders, a predictor and the symmetrised contrastive loss (Alg. 1 of the paper).

    Args:
        backbone: images `[N, C, H, W]` to features `[N, D]`, without BatchNorm (both views share one pass).
        projector: features `[N, D]` to embeddings `[N, E]`.
        predictor: embeddings `[N, E]` to queries `[N, E]`.
        temperature: divides the cosine similarities.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module, *, temperature: float = 0.2
    ) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)
        self.predictor = predictor
        self.momentum_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.temperature = temperature

    def forward(self, x1: Tensor, x2: Tensor, momentum: float) -> Output:
        """Update the momentum encoder, then contrast both views `[N, C, H, W]` in both directions.

        Logs: `contrastive_accuracy` (0 to 1: how often the own key is the nearest of all),
        `positive_similarity` and `negative_similarity` (mean cosines with the own key and with the others').
        Raises ValueError if the views differ in shape.
        """
        if x1.shape != x2.shape:
            raise ValueError(f"the views have shapes {tuple(x1.shape)} and {tuple(x2.shape)}: crop both to one size.")
        self.update_momentum_encoder(momentum)
        views = torch.cat([x1, x2])
        with torch.no_grad():
            k1, k2, _ = self.momentum_encoder(views)
        z1, z2, features = self.encoder(views)
        q1, q2 = self.predictor(z1), self.predictor(z2)
        loss1, logs1 = info_nce(q1, k2, self.temperature)
        loss2, logs2 = info_nce(q2, k1, self.temperature)
        logs = {name: (logs1[name] + logs2[name]) / 2 for name in logs1}
        return Output(loss1 + loss2, logs, features.detach())

    @torch.no_grad()
    def update_momentum_encoder(self, momentum: float) -> None:
        """Move the momentum encoder's parameters towards the encoder's; BatchNorm statistics stay its own.

        An interpolation leaves equal tensors equal to the last bit; the sum m p + (1 - m) q would let them drift.
        """
        targets: list[Tensor] = list(self.momentum_encoder.parameters())
        sources: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]


class Encoder(nn.Module):
    """A backbone with its projection head."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views `[2N, C, H, W]` to the embeddings `[N, E]` of either half and the features `[2N, D]` of both.

        The backbone normalises every image by itself, so it takes both halves in one pass; the head's BatchNorm does
        not, so it takes them one after the other (paper, appendix: two separate batches).
        """
        features = self.backbone(views)
        first, second = features.chunk(2)
        return self.projector(first), self.projector(second), features


def info_nce(q: Tensor, k: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The contrastive loss of queries `[N, E]` with keys `[N, E]`, times 2 x temperature, and what it looked like.

    Row i of `k` belongs to row i of `q`; the keys of all processes are the candidates. Computed in float32 at least,
    whatever autocast says: bfloat16 logits are off by 2e-3 when training is nearly converged.

    >>> loss, logs = info_nce(torch.eye(4), torch.eye(4), temperature=0.2)
    >>> round(loss.item(), 4), logs["contrastive_accuracy"].item(), logs["positive_similarity"].item()
    (0.008, 1.0, 1.0)
    """
    precision = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q = F.normalize(q.to(precision), dim=1)
        k, rank = _gather(F.normalize(k.detach().to(precision), dim=1))
        similarity = q @ k.T
        labels = torch.arange(len(q), device=q.device) + rank * len(q)
        loss = F.cross_entropy(similarity / temperature, labels) * (2 * temperature)
    return loss, _logs(similarity.detach(), labels)


def _gather(keys: Tensor) -> tuple[Tensor, int]:
    """The keys of all processes in the order of their ranks, and this process's rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return keys, 0
    parts = [torch.empty_like(keys) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, keys.contiguous())
    return torch.cat(parts), dist.get_rank()


def _logs(similarity: Tensor, labels: Tensor) -> dict[str, Tensor]:
    queries, keys = similarity.shape
    positive = similarity.gather(1, labels[:, None]).sum()
    return {
        "contrastive_accuracy": (similarity.argmax(1) == labels).to(similarity.dtype).mean(),
        "positive_similarity": positive / queries,
        "negative_similarity": (similarity.sum() - positive) / (queries * (keys - 1)),
    }
