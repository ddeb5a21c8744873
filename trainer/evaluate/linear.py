"""A linear probe: classifiers on frozen features, for every learning rate of a sweep in one pass over cached features.

Source: arXiv 2104.02057, Sec. 5: SGD without weight decay, 90 epochs, random resized crops and flips, single-crop top-1
accuracy. The features of a fixed number of augmented passes are computed once and kept, and the epochs go round them;
with as many passes as epochs every epoch has crops of its own, as in the paper. The learning rate is chosen on images
that are held out of the training set, never on the test images.
"""

__all__ = ["Settings", "evaluate"]

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..batches import generator
from ..config_checks import choice, fraction, not_negative, positive
from ._features import extract
from ._heads import HeadName, Heads, Recipe, train_heads
from ._measured import Measured, accuracy
from ._source import Source, Subject, open_source


@dataclass(frozen=True, kw_only=True)
class Settings(Source):
    """A linear probe with all its learning rates side by side."""

    lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    """Base learning rates of the sweep, for 256 images a step; the peak is base x batch size / 256."""
    epochs: int = 90
    """Passes over the training images."""
    batch_size: int = 1024
    """Images a step (the paper's is 4096, the published code's 1024)."""
    momentum: float = 0.9
    """Of SGD."""
    head: HeadName = "linear"
    """The paper's linear layer alone, or one after a BatchNorm without scale and shift."""
    passes: int = 10
    """Augmented passes whose features are kept; as many as epochs gives every epoch its own crops, as in the paper."""
    crop_min: float = 0.08
    """Smallest share of an image's area that a random crop shows."""
    held_out: float = 0.1
    """Share of the training images that choose the learning rate; the classifier that is reported sees all of them."""
    cache_gb: float = 8.0
    """Largest size of the kept features, in GB (1e9 bytes)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "lrs", "epochs", "batch_size", "passes", "crop_min", "held_out", "cache_gb")
        fraction(self, "momentum", "crop_min", "held_out")
        not_negative(self, "momentum")
        choice(self, "head", HeadName)
        if not self.lrs:
            raise ValueError("lrs needs at least one learning rate.")
        if self.passes > self.epochs:
            raise ValueError(f"passes {self.passes} are more than epochs {self.epochs}: the rest would have no effect.")


@dataclass(frozen=True)
class Cache:
    """Features, and what they are classified as."""

    passes: Tensor
    """f32[P, N, D] of the training images, augmented."""
    train: Tensor
    """f32[N, D] of the training images in the single crop of a test image."""
    test: Tensor
    """f32[M, D], likewise."""
    train_labels: Tensor
    test_labels: Tensor


def evaluate(settings: Settings) -> Measured:
    """Sweep, choose the learning rate on held-out training images, train anew on all, and test once.

    Raises ValueError for what cannot be used, and for kept features larger than `cache_gb`.
    """
    subject = open_source(settings)
    _check_sizes(settings, subject)
    cache = _fill(settings, subject)
    classes = len(subject.test.classes)
    recipe = Recipe(
        tuple(lr * settings.batch_size / 256 for lr in settings.lrs),
        settings.epochs,
        settings.batch_size,
        settings.momentum,
        settings.head,
        settings.seed,
    )
    order = torch.randperm(len(subject.train), generator=generator(settings.seed, 7))
    held = order[: round(settings.held_out * len(order))].to(subject.device)
    curves = _sweep(cache, classes, recipe, order[len(held) :], held)
    held_last = curves["held_out"][-1]
    best = int(held_last.argmax())
    refit = train_heads(cache.passes, cache.train_labels, classes, replace(recipe, lrs=(recipe.lrs[best],)))
    right = int((refit.classes(cache.test)[0] == cache.test_labels).sum())
    headline = {"base_lr": settings.lrs[best], **accuracy(right, len(cache.test_labels))}
    return Measured(
        "linear",
        _protocol(settings, subject, len(held)),
        [_row(settings.lrs[i], curves, i, i == best) for i in range(len(settings.lrs))],
        headline,
        [*subject.model.notes, *_notes(settings, best)],
    )


def _check_sizes(settings: Settings, subject: Subject) -> None:
    row = 4 * subject.model.network.dim * len(subject.train)
    if row * settings.passes > settings.cache_gb * 1e9:
        raise ValueError(
            f"{settings.passes} passes of features need {row * settings.passes / 1e9:.1f} GB, more than cache_gb "
            f"{settings.cache_gb:g}: keep at most {int(settings.cache_gb * 1e9 // row)} passes, or allow more."
        )
    held = round(settings.held_out * len(subject.train))
    if not 0 < held < len(subject.train):
        raise ValueError(
            f"held_out {settings.held_out:g} of {len(subject.train)} training images leaves none on one side: "
            "choose a share between, or use more images."
        )


def _fill(settings: Settings, subject: Subject) -> Cache:
    train, test = subject.reader(subject.train), subject.reader(subject.test)
    backbone, dim, n = subject.model.backbone, subject.model.network.dim, len(subject.train)
    passes = torch.empty(settings.passes, n, dim, device=subject.device)
    for i in range(settings.passes):
        passes[i] = extract(backbone, train.augmented(settings.seed, i, settings.crop_min), n, dim, f"pass {i + 1}")
    return Cache(
        passes,
        extract(backbone, train.plain(), n, dim),
        extract(backbone, test.plain(), len(subject.test), dim),
        subject.train.labels.to(subject.device),
        subject.test.labels.to(subject.device),
    )


def _sweep(cache: Cache, classes: int, recipe: Recipe, fit: Tensor, held: Tensor) -> dict[str, Tensor]:
    """Accuracies f32[epochs, L] on the held-out images and on the test images, and f32[epochs, L] finite or not."""
    curves: dict[str, list[Tensor]] = {"held_out": [], "test": [], "finite": []}
    held_features, held_labels = cache.train[held], cache.train_labels[held]

    def look(_: int, heads: Heads) -> None:
        found = heads.classes(held_features)
        curves["held_out"].append((found == held_labels).float().mean(1))
        curves["finite"].append((found >= 0).float().mean(1))
        curves["test"].append((heads.classes(cache.test) == cache.test_labels).float().mean(1))

    train_heads(cache.passes, cache.train_labels, classes, recipe, rows=fit, after_epoch=look)
    return {name: torch.stack(values).cpu() for name, values in curves.items()}


def _row(lr: float, curves: dict[str, Tensor], i: int, chosen: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"base_lr": lr}
    for name in ("held_out", "test"):
        curve = curves[name][:, i]
        row |= {
            f"{name}_last": round(float(curve[-1]), 6),
            f"{name}_best": round(float(curve.max()), 6),
            f"{name}_best_epoch": int(curve.argmax()) + 1,
        }
    return row | {"diverged": bool(curves["finite"][-1, i] < 1), "chosen": chosen}


def _notes(settings: Settings, best: int) -> list[str]:
    notes = [
        "The table's classifiers are trained without the held-out images. Its best epochs are picked with hindsight on "
        "the images that they are measured on, so they flatter; last epochs do not. The learning rate is chosen by "
        "the last epoch on held-out images; the accuracy to report is that of the last epoch of a classifier that was "
        "then trained on all training images."
    ]
    if len(settings.lrs) > 1 and settings.lrs[best] in (min(settings.lrs), max(settings.lrs)):
        notes.append(f"The chosen learning rate, {settings.lrs[best]:g}, is at the end of the sweep: widen --lrs.")
    return notes


def _protocol(settings: Settings, subject: Subject, held: int) -> dict[str, Any]:
    size = 4 * settings.passes * len(subject.train) * subject.model.network.dim
    return {
        **subject.protocol,
        "classifier": {"linear": "linear layer", "batch_norm": "BatchNorm without affine, linear layer"}[settings.head],
        "optimizer": f"SGD, momentum {settings.momentum:g}, weight decay 0, half cosine by epoch",
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "augmentation": f"random resized crop (area {settings.crop_min:g} to 1) and flip",
        "cached_passes": settings.passes,
        "cached_features_mb": round(size / 1e6, 1),
        "held_out_images": held,
        "learning_rate_chosen_on": "held-out training images, last epoch",
    }
