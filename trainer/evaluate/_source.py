"""What every protocol is told: the checkpoint, which of its encoders, and the images; sizes are in pixels."""

__all__ = ["Source", "Subject", "open_source"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from ..config_checks import choice, not_negative, positive
from ..data import DataError
from ..pretrained import Pretrained, Which, load_pretrained, resized
from ..run import pick_device
from ._labelled import Part, load_parts
from ._views import Crop, Reader


@dataclass(frozen=True, kw_only=True)
class Source:
    """The features that are evaluated."""

    checkpoint: tyro.conf.Positional[Path]
    """A file step-*.pt, a folder of them (the newest is taken), or a published MoCo v3 checkpoint."""
    encoder: Which = "encoder"
    """Which of the two encoders of a momentum method."""
    random: bool = False
    """Evaluate an untrained network of the same shape: the control."""
    data: str | None = None
    """Images: fashion-mnist, cifar-10, cifar-100, stl-10, flowers-102, pets, or folder:PATH with train/ and val/; those
    of the training run by default."""
    data_root: str | None = None
    """Folder that holds a named data set; the training run's, or the usual places, by default."""
    download: bool = False
    """Download a named data set that is not there."""
    limit_train: int | None = None
    """Use so many training images only, drawn at random from the seed; None uses all."""
    limit_test: int | None = None
    """Use so many test images only, likewise."""
    image_size: int | None = None
    """Side to which images are brought; the training crops' by default. Position tables are fitted to it."""
    crop: Crop = "auto"
    """Part of a test image that is seen: the centre (7/8 of the side), the whole image, or (auto) the whole of images
    that are no larger than the network's and the centre of others."""
    arch: str | None = None
    """Published files only: vit-s, vit-b, vit-l, vit-h or resnet50, if shapes shall not decide."""
    heads: int | None = None
    """Published files only: attention heads of a ViT whose width is none of the paper's."""
    batch: int = 256
    """Images that go through the network at once."""
    workers: int = 0
    """Processes that decode image files."""
    device: str = "auto"
    """Auto takes a GPU if there is one; or a torch device such as cpu or cuda:0."""
    seed: int = 0
    """Seed of subsets, augmentation, and weights that are drawn."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        choice(self, "encoder", Which)
        choice(self, "crop", Literal["auto", "centre", "whole"])
        positive(self, "batch")
        not_negative(self, "workers", "seed")
        for name in ("limit_train", "limit_test", "image_size", "heads"):
            if getattr(self, name) is not None:
                positive(self, name)


@dataclass(frozen=True)
class Subject:
    """A network on its device, with the labelled images that it is evaluated on."""

    model: Pretrained
    train: Part
    test: Part
    device: torch.device
    settings: Source

    def reader(self, part: Part) -> Reader:
        """The images of `part` as the network takes them."""
        settings = self.settings
        return Reader(
            part,
            self.model.network.size,
            self.model.tones,
            self.device,
            settings.batch,
            settings.workers,
            settings.crop,
        )

    @property
    def protocol(self) -> dict[str, Any]:
        """What every number of this evaluation goes with."""
        mean, std = self.model.tones
        return {
            **self.model.origin,
            "feature": f"{self.model.network.feature}, {self.model.network.dim} numbers",
            "dataset": self.train.images.name,
            "split": self.test.split,
            "classes": len(self.test.classes),
            "train_images": len(self.train),
            "test_images": len(self.test),
            "crop": self.reader(self.test).crop_text,
            "normalised_by": {"mean": list(mean), "std": list(std)},
            "seed": self.settings.seed,
        }


def open_source(settings: Source) -> Subject:
    """Load the checkpoint and the images; ValueError (some are CheckpointError or DataError) says what is wrong."""
    device = pick_device(settings.device)
    model = load_pretrained(
        settings.checkpoint,
        settings.encoder,
        arch=settings.arch,
        heads=settings.heads,
        untrained=settings.random,
        seed=settings.seed,
    )
    if settings.image_size is not None:
        model = resized(model, settings.image_size)
    own = model.data
    name = settings.data or (own.dataset if own else None)
    if name is None:
        raise DataError("a published checkpoint does not say where its images are: give --data folder:PATH.")
    root = settings.data_root
    if root is None and own and own.dataset == name:
        root = own.data_root
    train, test = load_parts(name, root, model.network.in_chans, settings)
    model.backbone.to(device)
    return Subject(model, train, test, device, settings)
