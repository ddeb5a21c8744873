"""Training and test images with their classes, as two parts that agree on what the classes are."""

__all__ = ["Limits", "Part", "load_parts"]

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..batches import generator
from ..config import DataConfig
from ..data import DataError, ImageSet, load_dataset
from ..folder import ImageFolder, load_folder
from ..named_data import load_named


class Limits(Protocol):
    """How many images are used, and whether missing ones may be downloaded."""

    @property
    def limit_train(self) -> int | None: ...
    @property
    def limit_test(self) -> int | None: ...
    @property
    def download(self) -> bool: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Part:
    """Labelled images, or some of them."""

    images: ImageSet | ImageFolder
    index: Tensor
    """i64[n]: which of the images, in order."""
    labels: Tensor
    """i64[n]: their classes."""
    classes: tuple[str, ...]
    split: str
    """Name of the split that they are: train, test or val."""

    def __len__(self) -> int:
        return len(self.index)


def load_parts(name: str, root: str | None, channels: int, limits: Limits) -> tuple[Part, Part]:
    """The training and the test images of the data set `name`, for a network that takes `channels` channels.

    Fashion-MNIST, which is gray, also serves networks that take three channels.
    Raises DataError for data that are not there, have no classes, or disagree about them.
    """
    held_out = "test"
    if name.startswith("folder:"):
        train, test, held_out = _folders(name, channels)
    elif name == "fashion-mnist":
        config = DataConfig(data_root=root)
        train, test = (load_dataset(config, 1, split, download=limits.download) for split in ("train", "test"))
    else:
        train, test = (load_named(name, root, channels, split, download=limits.download) for split in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(
            f"training and test images of {name} differ in their classes ({odd[0]}, for one): make them agree."
        )
    return (
        _part(train, "train", limits.limit_train, limits.seed),
        _part(test, held_out, limits.limit_test, limits.seed + 1),
    )


def _folders(name: str, channels: int) -> tuple[ImageSet | ImageFolder, ImageSet | ImageFolder, str]:
    root = Path(name.removeprefix("folder:")).expanduser()
    held_out = next((root / part for part in ("val", "test") if (root / part).is_dir()), None)
    if not (root / "train").is_dir() or held_out is None:
        raise DataError(f"{root} must hold the folders train and val (or test) to be evaluated on.")
    return load_folder(str(root), channels), load_folder(str(held_out), channels), held_out.name


def _part(images: ImageSet | ImageFolder, split: str, limit: int | None, seed: int) -> Part:
    if images.labels is None:
        raise DataError(f"{images.name} has no classes: an evaluation needs one sub-folder of images for each class.")
    index = torch.arange(len(images))
    if limit is not None and limit < len(images):
        # At random, since the files of a folder are sorted by their class.
        index = torch.randperm(len(images), generator=generator(seed, 3))[:limit].sort().values
    return Part(images, index, images.labels[index], images.classes, split)
