"""SwAV with two crops (arXiv 2006.09882): predict the cluster of one crop from the other crop.

One encoder, no prediction head, no BatchNorm in the head (arXiv 2104.02057, appendix). Clusters are prototypes on the
unit sphere; Sinkhorn's iterations spread a batch evenly over them. The loss is a cross-entropy in nats, the mean of
both directions; a prediction that favours no prototype has ln(prototypes). Training that is not stable ends in NaN
here (Sec. 4.2): nothing catches it, so that the trace shows it.
"""

__all__ = ["TRAITS", "SwAV", "build", "sinkhorn", "swav_loss"]

from math import log

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import build_backbone
from ..config import HeadConfig, MethodConfig, ResNetConfig, VitConfig
from ..encoder import Encoder, both
from ..gathering import sum_over_processes, world
from ..heads import projector
from ..retrieval import retrieval_of
from . import Chance, Output, Traits, settled

SETTINGS = {"prototypes", "sinkhorn_epsilon", "sinkhorn_iterations", "prototype_frozen_steps"}
TRAITS = Traits(
    reads=frozenset({"temperature"} | SETTINGS),
    head_norm="none",
    predictor=False,
    chance=lambda method, batch_size: Chance(log(method.prototypes), f"ln {method.prototypes}", 0.0),
)


def build(backbone: VitConfig | ResNetConfig, heads: HeadConfig, method: MethodConfig) -> "SwAV":
    """SwAV of the given sizes.

    >>> model = build(VitConfig(), HeadConfig(64, 16), MethodConfig("swav", prototypes=30))
    >>> model.prototypes.weight.shape
    torch.Size([30, 16])
    """
    heads = settled(heads, method, TRAITS)
    norm = heads.batch_norm or "none"
    return SwAV(
        build_backbone(backbone, method),
        projector(backbone.dim, heads.hidden, heads.out, layers=heads.projector_layers, norm=norm),
        nn.Linear(heads.out, method.prototypes, bias=False),
        method,
    )


class SwAV(nn.Module):
    """One encoder, prototypes, and the swapped prediction of their assignments.

    The prototypes are put back on the unit sphere before every step; for the first `prototype_frozen_steps` their
    learning rate is 0 (`groups`).

    Args:
        backbone: images `[N, C, H, W]` to features `[N, D]`.
        projector: features `[N, D]` to embeddings `[N, E]`.
        prototypes: embeddings `[N, E]` to scores `[N, K]`, without bias.
        method: temperature, and the settings of Sinkhorn's iterations.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, prototypes: nn.Linear, method: MethodConfig) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)
        self.prototypes = prototypes
        self.temperature = method.temperature
        self.epsilon, self.iterations = method.sinkhorn_epsilon, method.sinkhorn_iterations
        self.groups = {"prototypes.": {"frozen_steps": method.prototype_frozen_steps}}
        with torch.no_grad():
            prototypes.weight.copy_(F.normalize(prototypes.weight, dim=1))

    def forward(self, x1: Tensor, x2: Tensor, momentum: float = 0.0) -> Output:
        """Predict the clusters of both views `[N, C, H, W]` from each other; `momentum` plays no part.

        Logs: `assignment_agreement` (0 to 1: how often both crops are nearest to the same prototype) and
        `prototypes_used` (number that the predictions spread over, exp of their mean's entropy); as a look from
        outside, `contrastive_accuracy` (how often the other crop is the nearest of all images'),
        `positive_similarity` and `negative_similarity`. Raises ValueError if the views differ in shape.
        """
        z1, z2, features = self.encoder(both(x1, x2))
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        precision = torch.promote_types(z1.dtype, torch.float32)
        with torch.autocast(z1.device.type, enabled=False):
            z1, z2 = (F.normalize(z.to(precision), dim=1) for z in (z1, z2))
            weight = self.prototypes.weight.to(precision)
            loss, logs = swav_loss(z1 @ weight.T, z2 @ weight.T, self.temperature, self.epsilon, self.iterations)
            logs |= retrieval_of(z1.detach(), z2.detach())
        return Output(loss, logs, features.detach())


def swav_loss(
    scores1: Tensor, scores2: Tensor, temperature: float, epsilon: float = 0.05, iterations: int = 3
) -> tuple[Tensor, dict[str, Tensor]]:
    """Swapped prediction of two views' scores `[N, K]` (cosines with the prototypes), and what it looked like.

    >>> loss, logs = swav_loss(torch.eye(4), torch.eye(4), temperature=0.1)
    >>> round(loss.item(), 4), logs["assignment_agreement"].item(), round(logs["prototypes_used"].item(), 2)
    (0.0001, 1.0, 4.0)
    """
    p1, p2 = (F.log_softmax(scores / temperature, dim=1) for scores in (scores1, scores2))
    codes1, codes2 = (sinkhorn(scores, epsilon, iterations) for scores in (scores1, scores2))
    loss = -((codes1 * p2).sum(1).mean() + (codes2 * p1).sum(1).mean()) / 2
    with torch.no_grad():
        mean = sum_over_processes((p1.exp().mean(0) + p2.exp().mean(0)) / 2) / world()[0]
        logs = {
            "assignment_agreement": (scores1.argmax(1) == scores2.argmax(1)).to(scores1.dtype).mean(),
            "prototypes_used": torch.special.entr(mean).sum().exp(),
        }
    return loss, logs


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes `[N, K]` of scores `[N, K]`: rows sum to 1, and columns, over all processes, nearly to N / K.

    >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.8]]), epsilon=0.05, iterations=10).sum(0).round(decimals=3).tolist()
    [1.0, 1.0]
    """
    largest = scores.max()
    if world()[0] > 1:
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    # A common factor falls out in the first division, so the largest score can be made 0 and exp never overflows.
    codes = ((scores - largest) / epsilon).exp()
    for _ in range(iterations):
        codes = codes / sum_over_processes(codes.sum(0))
        codes = codes / codes.sum(1, keepdim=True)
    return codes
