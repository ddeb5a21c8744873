"""End-to-end fine-tuning on labelled images, by the recipe that the paper's transfer results were got with.

Source: arXiv 2104.02057, Sec. 6.4; the numbers and where they are from are in `_tuning.py`. Every weight is trained, a
patch projection and a position table that were fixed in pre-training too.
"""

__all__ = ["Settings", "evaluate"]

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision.transforms.v2 as v2
from rich.console import Console
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..batches import generator
from ..config_checks import choice, positive
from ._measured import Measured, accuracy
from ._source import Source, Subject, open_source
from ._tuning import TRANSFER, Tuning, lr_at, parameter_groups

LARGE = 64
"""Pixels from which on images are large enough for RandAugment and erasing by default."""


@dataclass(frozen=True, kw_only=True)
class Settings(Source):
    """Fine-tuning; what is None takes the value published for the data set, or for CIFAR-10 where there is none."""

    epochs: int | None = None
    """Passes over the training images (100)."""
    batch_size: int | None = None
    """Images a step (128)."""
    base_lr: float | None = None
    """Learning rate for 512 images a step (3e-4); the peak is base x batch size / 512, for every layer."""
    weight_decay: float | None = None
    """Of AdamW, for matrices only (0.1; Flowers-102 0.3)."""
    warmup_epochs: float | None = None
    """Linear warm-up (3)."""
    min_lr: float | None = None
    """Learning rate at the end of the cosine (1e-5)."""
    smoothing: float | None = None
    """Label smoothing (0.1)."""
    mixup: float | None = None
    """Parameter of mixup's Beta distribution, 0 for none (0.8; CIFAR-100 0.5, Flowers-102 0)."""
    cutmix: float | None = None
    """Likewise of CutMix; with both, each batch gets one of them (1; Flowers-102 and Pets 0)."""
    drop_path: float | None = None
    """Probability of skipping a branch of the last block, rising from 0 in the first (0.1; Pets 0)."""
    erasing: float | None = None
    """Probability of erasing a rectangle (0; Flowers-102 0.25)."""
    rand_augment: int | None = None
    """Magnitude of two operations of RandAugment, 0 for none (9; 0 below 64 pixels)."""
    crop_min: float = 0.08
    """Smallest share of an image's area that a random crop shows."""
    test_every: int = 10
    """Epochs from one test to the next; the last epoch is always tested."""
    amp: Literal["off", "bf16"] = "off"
    """Mixed precision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "crop_min", "test_every")
        choice(self, "amp", Literal["off", "bf16"])

    def tuning(self, dataset: str, side: int, *, blocks: bool = True) -> Tuning:
        """The recipe for a data set, images of `side` pixels, and a network with or without transformer blocks."""
        given = {f.name: getattr(self, f.name) for f in fields(Tuning)}
        given = {name: value for name, value in given.items() if value is not None}
        if not blocks and given.get("drop_path"):
            raise ValueError(f"drop_path {given['drop_path']:g} would have no effect on a ResNet: leave it out.")
        default = dict(TRANSFER.get(dataset, {}))
        if side < LARGE:
            default |= {"rand_augment": 0, "erasing": 0.0}
        if not blocks:
            default["drop_path"] = 0.0
        return Tuning(**default | given)


def evaluate(settings: Settings) -> Measured:
    """Fine-tune and test; the last epoch is the one to report. ValueError says what cannot be used."""
    subject = open_source(settings)
    backbone = subject.model.backbone
    transformer = isinstance(backbone, VisionTransformer)
    tuning = settings.tuning(subject.train.images.name, min(subject.model.network.size), blocks=transformer)
    torch.manual_seed(settings.seed)
    model = _classifier(subject, tuning)
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), tuning.weight_decay), lr=tuning.lr)
    rows = []
    console = Console(stderr=True, highlight=False)
    for epoch in range(tuning.epochs):
        loss = _train_epoch(model, optimizer, subject, settings, tuning, epoch)
        if (epoch + 1) % settings.test_every == 0 or epoch + 1 == tuning.epochs:
            right = _count_right(model, subject)
            rows.append({"epoch": epoch + 1, "train_loss": loss, **accuracy(right, len(subject.test))})
            console.print(f"epoch {epoch + 1}/{tuning.epochs}  loss {loss:.3f}  test {rows[-1]['accuracy']:.2%}")
    best = max(rows, key=lambda row: row["accuracy"])
    notes = [*subject.model.notes]
    if best is not rows[-1]:
        notes.append(
            f"Epoch {best['epoch']} was better ({best['accuracy']:.2%}), but that is picked with hindsight on the test "
            "images: report the last epoch."
        )
    return Measured("finetune", _protocol(subject, settings, tuning), rows, rows[-1], notes)


def _classifier(subject: Subject, tuning: Tuning) -> nn.Sequential:
    """Backbone and a fresh linear layer, everything to be trained."""
    backbone = subject.model.backbone.requires_grad_(True)
    if isinstance(backbone, VisionTransformer):
        last = max(len(backbone.blocks) - 1, 1)
        for i, block in enumerate(backbone.blocks):
            block.drop_path1, block.drop_path2 = (DropPath(tuning.drop_path * i / last) for _ in range(2))
    layer = nn.Linear(subject.model.network.dim, len(subject.train.classes))
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(backbone, layer).to(subject.device)


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    subject: Subject,
    settings: Settings,
    tuning: Tuning,
    epoch: int,
) -> float:
    """One pass over the training images in a fresh order; its mean loss. ValueError if that is not finite."""
    model.train()
    part, classes = subject.train, len(subject.train.classes)
    order = torch.randperm(len(part), generator=generator(settings.seed, 8, epoch))
    shuffled = replace(part, index=part.index[order], labels=part.labels[order])
    reader = replace(subject.reader(shuffled), batch=tuning.batch_size)
    labels = shuffled.labels.to(subject.device)
    batches = reader.augmented(settings.seed, epoch, settings.crop_min, _per_image(tuning))
    mix = _mix(tuning, classes)
    steps = -(-len(part) // tuning.batch_size)
    total = torch.zeros((), device=subject.device)
    for step, x in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(epoch + step / steps, tuning)
        y = labels[step * tuning.batch_size :][: len(x)]
        x, target = mix(x, y) if mix else (x, y)
        with torch.autocast(subject.device.type, torch.bfloat16, enabled=settings.amp == "bf16"):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=tuning.smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    mean = float(total) / steps
    if mean != mean or mean == float("inf"):
        raise ValueError(f"the loss is not finite in epoch {epoch + 1}: lower --base-lr.")
    return mean


def _per_image(tuning: Tuning) -> Callable[[Tensor], Tensor] | None:
    """RandAugment and erasing of one crop; None for neither."""
    steps: list[nn.Module] = []
    if tuning.rand_augment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=tuning.rand_augment))
    if tuning.erasing:
        steps.append(v2.RandomErasing(p=tuning.erasing, value=0.5))
    return v2.Compose(steps) if steps else None


def _mix(tuning: Tuning, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Mixup or CutMix of a whole batch, with targets f32[n, classes]; None for neither."""
    kinds = [v2.MixUp(alpha=tuning.mixup, num_classes=classes)] if tuning.mixup else []
    kinds += [v2.CutMix(alpha=tuning.cutmix, num_classes=classes)] if tuning.cutmix else []
    return v2.RandomChoice(kinds) if kinds else None


@torch.no_grad()
def _count_right(model: nn.Module, subject: Subject) -> int:
    model.eval()
    found = torch.cat([model(x).argmax(1) for x in subject.reader(subject.test).plain()])
    return int((found == subject.test.labels.to(subject.device)).sum())


def _protocol(subject: Subject, settings: Settings, tuning: Tuning) -> dict[str, Any]:
    recipe = {field.name: getattr(tuning, field.name) for field in fields(tuning)}
    return {
        **subject.protocol,
        "classifier": "linear layer, trained end to end with the backbone",
        "optimizer": "AdamW, cosine, the same learning rate in every layer",
        "crop_min": settings.crop_min,
        **recipe,
    }
