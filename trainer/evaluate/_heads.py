"""Linear classifiers on cached features, one for each learning rate, trained side by side by one matrix product.

Features are f32[P, N, D]: P passes of random augmentation over N images. Every head sees the same batches in the same
order from the same start, so the heads differ in nothing but their learning rate. The update is SGD's with momentum and
no weight decay; the loss is the mean cross-entropy of the batch, in nats, of each head by itself.
"""

__all__ = ["Heads", "Recipe", "train_heads"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..batches import generator

HeadName = Literal["linear", "batch_norm"]
EPSILON, NORM_MOMENTUM = 1e-5, 0.1
"""Of the BatchNorm: torch's defaults."""


@dataclass(frozen=True)
class Recipe:
    """How the heads are trained."""

    lrs: tuple[float, ...]
    """Peak learning rates, one a head."""
    epochs: int = 90
    batch_size: int = 1024
    momentum: float = 0.9
    head: HeadName = "linear"
    """The paper's linear layer alone, or one after a BatchNorm without scale and shift."""
    seed: int = 0

    def lr(self, epoch: int) -> Tensor:
        """f64[L]: a half cosine over the epochs, constant in each, as in the published code.

        >>> Recipe(lrs=(2.0,), epochs=4).lr(2).tolist()
        [1.0]
        """
        return torch.tensor(self.lrs, dtype=torch.float64) * (0.5 * (1 + math.cos(math.pi * epoch / self.epochs)))


class Heads:
    """L linear layers D -> C and the normalisation that they share.

    >>> heads = Heads(2, 4, 3, torch.device("cpu"))
    >>> heads.classes(torch.randn(5, 4)).shape  # of 5 images, by 2 heads
    torch.Size([2, 5])
    """

    def __init__(
        self,
        heads: int,
        dim: int,
        classes: int,
        device: torch.device,
        *,
        head: HeadName = "linear",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        start = 0.01 * torch.randn(dim, 1, classes, generator=generator(seed, 5))
        self.shape = (heads, classes)
        # One matrix for all: a product of features with it holds the logits of every head.
        self.weight = start.repeat(1, heads, 1).flatten(1).to(device, dtype)
        self.bias = torch.zeros(heads * classes, device=device, dtype=dtype)
        self._velocity = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        self.normed = head == "batch_norm"
        self.mean, self.var = (torch.full((dim,), float(i), device=device, dtype=dtype) for i in (0, 1))

    def step(self, features: Tensor, labels: Tensor, lrs: Tensor, momentum: float) -> None:
        """One update of every head with features f32[n, D], labels i64[n] and learning rates [L]."""
        x = self._normalise_batch(features) if self.normed else features
        n = len(x)
        # The gradient of the cross-entropy by the logits is softmax - one-hot, over the images of the batch.
        slope = self._logits(x).softmax(-1)
        slope.scatter_add_(
            2, labels.view(n, 1, 1).expand(n, self.shape[0], 1), slope.new_full((n, self.shape[0], 1), -1)
        )
        slope = slope.div_(n).flatten(1)
        rate = lrs.to(slope).repeat_interleave(self.shape[1])
        for value, gradient, velocity in zip(
            (self.weight, self.bias), (x.T @ slope, slope.sum(0)), self._velocity, strict=True
        ):
            velocity.mul_(momentum).add_(gradient)
            value.sub_(rate * velocity)

    def classes(self, features: Tensor) -> Tensor:
        """The class i64[L, N] of features f32[N, D] by each head; -1 where a head has diverged."""
        found = []
        for x in features.split(4096):
            x = (x - self.mean) * (self.var + EPSILON).rsqrt() if self.normed else x
            logits = self._logits(x)
            found.append(logits.argmax(-1).where(logits.isfinite().all(-1), -1))
        return torch.cat(found).T

    def _logits(self, x: Tensor) -> Tensor:
        return (x @ self.weight + self.bias).view(len(x), *self.shape)

    def _normalise_batch(self, features: Tensor) -> Tensor:
        mean, var = features.mean(0), features.var(0, correction=0)
        n = len(features)
        self.mean.lerp_(mean, NORM_MOMENTUM)
        # As torch's, the running variance is the unbiased one.
        self.var.lerp_(var * (n / max(n - 1, 1)), NORM_MOMENTUM)
        return (features - mean) * (var + EPSILON).rsqrt()


@torch.no_grad()
def train_heads(
    passes: Tensor,
    labels: Tensor,
    classes: int,
    recipe: Recipe,
    *,
    rows: Tensor | None = None,
    after_epoch: Callable[[int, Heads], None] | None = None,
) -> Heads:
    """Train a head for every learning rate of `recipe` on the features `passes[e % P]` in epoch e.

    Args:
        passes: f32[P, N, D], on the device that does the work.
        labels: i64[N], on the same device.
        classes: number of classes.
        recipe: how.
        rows: i64[n], the images to train on; None for all.
        after_epoch: is called with the number of epochs done, from 1, and the heads as they are then.

    >>> x = torch.eye(4).repeat(1, 8, 1)
    >>> heads = train_heads(x, torch.arange(4).repeat(8), 4, Recipe(lrs=(0.0, 1.0), epochs=5, batch_size=8))
    >>> [(found == torch.arange(4)).float().mean().item() for found in heads.classes(torch.eye(4))]
    [0.0, 1.0]
    """
    rows = torch.arange(len(labels)) if rows is None else rows.cpu()
    heads = Heads(
        len(recipe.lrs),
        passes.shape[-1],
        classes,
        passes.device,
        head=recipe.head,
        seed=recipe.seed,
        dtype=passes.dtype,
    )
    for epoch in range(recipe.epochs):
        order = rows[torch.randperm(len(rows), generator=generator(recipe.seed, 6, epoch))].to(passes.device)
        features, lrs = passes[epoch % len(passes)], recipe.lr(epoch)
        for batch in order.split(recipe.batch_size):
            heads.step(features[batch], labels[batch], lrs, recipe.momentum)
        if after_epoch:
            after_epoch(epoch + 1, heads)
    return heads
