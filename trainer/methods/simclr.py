"""SimCLR (arXiv 2002.05709): every crop finds the other crop of its image among all crops of the batch.

One encoder, with gradients into both crops, and no prediction head. The loss is the mean over the 2N crops, in units
of 2 x temperature x nats: chance is 2 T ln(2N - 1). (The original is in nats: `loss_scale` off.)
"""

__all__ = ["TRAITS", "SimCLR", "build", "nt_xent"]

from math import exp, log, log1p

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import build_backbone
from ..config import HeadConfig, MethodConfig, ResNetConfig, VitConfig
from ..encoder import Encoder, both
from ..gathering import gather_with_gradient, world
from ..heads import projector
from . import Chance, Output, Traits, settled


def _chance(method: MethodConfig, batch_size: int) -> Chance:
    others = 2 * batch_size - 1
    ideal = log1p((others - 1) * exp(-1 / method.temperature))
    if not method.loss_scale:
        return Chance(log(others), f"ln {others}", ideal)
    scale = 2 * method.temperature
    return Chance(scale * log(others), f"2 x {method.temperature:g} x ln {others}", scale * ideal)


TRAITS = Traits(
    reads=frozenset({"temperature", "loss_scale"}),
    head_norm="all",
    predictor=False,
    chance=_chance,
)


def build(backbone: VitConfig | ResNetConfig, heads: HeadConfig, method: MethodConfig) -> "SimCLR":
    """SimCLR of the given sizes.

    >>> model = build(VitConfig(), HeadConfig(64, 16), MethodConfig("simclr"))
    >>> len(model.encoder.projector)
    8
    """
    heads = settled(heads, method, TRAITS)
    norm = heads.batch_norm or "all"
    return SimCLR(
        build_backbone(backbone, method),
        projector(backbone.dim, heads.hidden, heads.out, layers=heads.projector_layers, norm=norm),
        temperature=method.temperature,
        loss_scale=method.loss_scale,
    )


class SimCLR(nn.Module):
    """One encoder and the NT-Xent loss over all crops of all processes.

    Args:
        backbone: images `[N, C, H, W]` to features `[N, D]`.
        projector: features `[N, D]` to embeddings `[N, E]`.
        temperature: divides the cosine similarities.
        loss_scale: multiply the loss by 2 x temperature.
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, *, temperature: float = 0.2, loss_scale: bool = True
    ) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)
        self.temperature, self.loss_scale = temperature, loss_scale

    def forward(self, x1: Tensor, x2: Tensor, momentum: float = 0.0) -> Output:
        """Contrast both views `[N, C, H, W]`; `momentum` plays no part.

        Logs: `contrastive_accuracy` (0 to 1: how often the other crop is the nearest of all 2N - 1),
        `positive_similarity` and `negative_similarity` (mean cosines with the other crop and with the others').
        Raises ValueError if the views differ in shape.
        """
        z1, z2, features = self.encoder(both(x1, x2))
        loss, logs = nt_xent(z1, z2, self.temperature, loss_scale=self.loss_scale)
        return Output(loss, logs, features.detach())


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, *, loss_scale: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """The normalised-temperature cross-entropy of two views' embeddings `[N, E]` each, and what it looked like.

    Row i of `z1` and row i of `z2` are the two crops of one image; all other crops of all processes are negatives,
    and the gradient goes into all. Computed in float32 at least, whatever autocast says.

    >>> loss, logs = nt_xent(torch.eye(4), torch.eye(4), temperature=0.2)
    >>> round(loss.item(), 4), logs["contrastive_accuracy"].item(), logs["negative_similarity"].item()
    (0.0159, 1.0, 0.0)
    """
    precision = torch.promote_types(z1.dtype, torch.float32)
    with torch.autocast(z1.device.type, enabled=False):
        z = F.normalize(torch.cat([z1, z2]).to(precision), dim=1)
        similarity = z @ gather_with_gradient(z).T
        crops = len(z)
        local = torch.arange(crops, device=z.device)
        own = local + world()[1] * crops
        labels = local.roll(crops // 2) + world()[1] * crops
        itself = torch.zeros_like(similarity, dtype=torch.bool).scatter(1, own[:, None], True)
        logits = (similarity / temperature).masked_fill(itself, -torch.inf)
        loss = F.cross_entropy(logits, labels)
        if loss_scale:
            loss = loss * (2 * temperature)
    return loss, _logs(similarity.detach(), itself, labels)


def _logs(similarity: Tensor, itself: Tensor, labels: Tensor) -> dict[str, Tensor]:
    crops, candidates = similarity.shape
    others = similarity.masked_fill(itself, 0.0)
    positive = similarity.gather(1, labels[:, None]).sum()
    nearest = similarity.masked_fill(itself, -2.0).argmax(1)
    return {
        "contrastive_accuracy": (nearest == labels).to(similarity.dtype).mean(),
        "positive_similarity": positive / crops,
        "negative_similarity": (others.sum() - positive) / (crops * (candidates - 2)),
    }
