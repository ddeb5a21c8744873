"""How well a query finds its own key among a batch's: accuracy (0 to 1) and mean cosines, for every method's logs."""

__all__ = ["retrieval", "retrieval_of"]

import torch
import torch.nn.functional as F
from torch import Tensor

from .gathering import gather, world


def retrieval(similarity: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`contrastive_accuracy`, `positive_similarity`, `negative_similarity` of cosines `[queries, keys]`.

    `labels: i64[queries]` is the column of each query's own key; nothing waits for the device.

    >>> logs = retrieval(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
    >>> {name: round(value.item(), 2) for name, value in logs.items()}
    {'contrastive_accuracy': 0.5, 'positive_similarity': 0.55, 'negative_similarity': 0.45}
    """
    queries, keys = similarity.shape
    positive = similarity.gather(1, labels[:, None]).sum()
    return {
        "contrastive_accuracy": (similarity.argmax(1) == labels).to(similarity.dtype).mean(),
        "positive_similarity": positive / queries,
        "negative_similarity": (similarity.sum() - positive) / (queries * (keys - 1)),
    }


@torch.no_grad()
def retrieval_of(q: Tensor, k: Tensor) -> dict[str, Tensor]:
    """The same for queries and keys `[N, E]`, row by row a pair; the keys of all processes are the candidates.

    For a method whose loss compares no images with one another this is a look from outside, not its task.

    >>> retrieval_of(torch.eye(3), torch.eye(3))["contrastive_accuracy"].item()
    1.0
    """
    q, k = F.normalize(q, dim=1), gather(F.normalize(k, dim=1))
    return retrieval(q @ k.T, torch.arange(len(q), device=q.device) + world()[1] * len(q))
