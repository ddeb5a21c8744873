"""Weighted kNN: the nearest training images vote for the class of each test image, for several k and T in one pass.

Source: Wu et al., arXiv 1805.01978, which the paper follows (arXiv 2104.02057, appendix): cosine similarity, and a
neighbour's weight is exp(similarity / T). Both are features of the same single crop, without augmentation.
"""

__all__ = ["Settings", "classify", "evaluate"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config_checks import positive
from ._features import extract
from ._measured import Measured, accuracy
from ._source import Source, open_source

QUERIES, BANK = 256, 65_536
"""Rows of the two sides whose similarities are held at once: 64 MiB."""


@dataclass(frozen=True, kw_only=True)
class Settings(Source):
    """Weighted kNN on frozen features: training images vote on test images."""

    k: tuple[int, ...] = (200,)
    """Numbers of neighbours that vote."""
    temperature: tuple[float, ...] = (0.07,)
    """Temperatures of the vote: a neighbour's weight is exp(cosine similarity / T)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "k", "temperature")
        if not self.k or not self.temperature:
            raise ValueError("k and temperature need at least one number each.")


def evaluate(settings: Settings) -> Measured:
    """Accuracy for every k and T of the settings, the first of each for the headline; ValueError says what is wrong."""
    subject = open_source(settings)
    if max(settings.k) > len(subject.train):
        raise ValueError(
            f"k {max(settings.k)} is more than the {len(subject.train)} training images: choose a smaller one."
        )
    dim = subject.model.network.dim
    bank, queries = (
        extract(subject.model.backbone, subject.reader(part).plain(), len(part), dim)
        for part in (subject.train, subject.test)
    )
    labels, truth = (part.labels.to(subject.device) for part in (subject.train, subject.test))
    found = classify(queries, bank, labels, len(subject.test.classes), settings.k, settings.temperature)
    rows = [
        {"k": k, "T": t, **accuracy(int((classes == truth).sum()), len(truth))} for (k, t), classes in found.items()
    ]
    protocol = {
        **subject.protocol,
        "classifier": "weighted kNN, training images vote on test images",
        "metric": "cosine",
        "weight": "exp(similarity / T)",
    }
    return Measured("knn", protocol, rows, rows[0], subject.model.notes)


@torch.no_grad()
def classify(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    classes: int,
    ks: Sequence[int] = (200,),
    temperatures: Sequence[float] = (0.07,),
) -> dict[tuple[int, float], Tensor]:
    """The class i64[N] of every query by each k and T; memory does not grow with the number of rows.

    Args:
        queries: f32[N, D], of any length but 0.
        bank: f32[M, D].
        labels: i64[M], the bank's classes.
        classes: number of classes.
        ks: neighbours that vote, each at most M.
        temperatures: T of the weight exp(cosine / T).

    >>> corners = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> classify(torch.tensor([[0.2, 0.9]]), corners, torch.tensor([0, 0, 1]), 2, [1, 3], [0.07])
    {(1, 0.07): tensor([1]), (3, 0.07): tensor([1])}
    """
    bank = F.normalize(bank, dim=1)
    parts: dict[tuple[int, float], list[Tensor]] = {(k, t): [] for k in ks for t in temperatures}
    for chunk in F.normalize(queries, dim=1).split(QUERIES):
        cosine, index = _nearest(chunk, bank, max(ks))
        for t in temperatures:
            # Less the largest, which changes no vote's order and can't overflow at a small temperature.
            weights = ((cosine - cosine[:, :1]) / t).exp()
            for k, votes in _votes(weights, labels[index], classes, ks):
                parts[k, t].append(votes.argmax(1))
    return {key: torch.cat(found) for key, found in parts.items()}


def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest cosines f32[n, k], falling, and their rows in the bank."""
    best, index = (
        queries.new_empty(len(queries), 0),
        torch.empty(len(queries), 0, dtype=torch.int64, device=bank.device),
    )
    for start in range(0, len(bank), BANK):
        cosine = queries @ bank[start : start + BANK].T
        found, rows = cosine.topk(min(k, cosine.shape[1]), dim=1)
        best, index = torch.cat([best, found], 1), torch.cat([index, rows + start], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        index = index.gather(1, order)
    return best, index


def _votes(weights: Tensor, labels: Tensor, classes: int, ks: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """For each k, rising, the sum f32[n, classes] of the first k weights by class."""
    votes = weights.new_zeros(len(weights), classes)
    done = 0
    for k in sorted(set(ks)):
        votes.scatter_add_(1, labels[:, done:k], weights[:, done:k])
        done = k
        yield k, votes
