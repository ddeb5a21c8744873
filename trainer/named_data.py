"""Labelled data sets that torchvision knows, in torchvision's layout on disk; tones are uint8, 0 to 255.

`cifar-10`, `cifar-100` and `stl-10` are held in memory; `flowers-102` and `pets` are photographs, decoded as they are
needed. "train" and "test" are the splits of arXiv 2104.02057, Table 5: Flowers-102 trains on its train and val images.
Nothing is downloaded unless that is asked for.
"""

__all__ = ["NAMED", "load_named", "tones"]

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision.datasets as tv
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from .data import FASHION_TONES, DataError, ImageSet, Split, _cache, _one_line
from .folder import TONES, ImageFolder

Tones = tuple[tuple[float, ...], tuple[float, ...]]
# Mean and standard deviation of red, green and blue over the training images, tones from 0 to 1.
CIFAR_TONES: dict[str, Tones] = {
    "cifar-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_named(
    name: str, data_root: str | None, channels: int = 3, split: Split = "train", *, download: bool = False
) -> ImageSet | ImageFolder:
    """The `split` of the data set `name`, looked for in `data_root` (None: the user's cache).

    Raises DataError for an unknown name, and for data that is not there or is damaged.

    >>> load_named("cifar", None)
    Traceback (most recent call last):
    foreshock.trainer.data.DataError: unknown data 'cifar': choose fashion-mnist, cifar-10, cifar-100, flowers-102, \
pets, stl-10 or folder:PATH.
    """
    if name not in NAMED:
        raise DataError(f"unknown data {name!r}: choose fashion-mnist, {', '.join(sorted(NAMED))} or folder:PATH.")
    if channels not in TONES:
        raise DataError(f"images have 1 or 3 channels, the model takes {channels}: set vit.in_chans to 1 or 3.")
    root = data_root or str(_cache())
    try:
        return NAMED[name](name, root, channels, split, download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"no {name} in {root} ({_one_line(error)}): name the folder that holds it in torchvision's layout by "
            "--data-root, or have it downloaded (foreshock train: --data.download, foreshock evaluate: --download)."
        ) from error


def tones(dataset: str, channels: int) -> Tones:
    """Mean and standard deviation per channel (tones from 0 to 1) by which the images of `dataset` are normalised.

    >>> tones("fashion-mnist", 1)
    ((0.286,), (0.353,))
    """
    if dataset == "fashion-mnist" and channels == 1:
        return (FASHION_TONES[0],), (FASHION_TONES[1],)
    if dataset in CIFAR_TONES and channels == 3:
        return CIFAR_TONES[dataset]
    return TONES[channels]


def _cifar(name: str, root: str, channels: int, split: Split, download: bool) -> ImageSet:
    kind = tv.CIFAR10 if name == "cifar-10" else tv.CIFAR100
    # Its files are pickles; torchvision compares their checksums with its own list before it reads them.
    found = kind(root, train=split == "train", download=download)
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2)
    return _in_memory(name, images, torch.tensor(found.targets), found.classes, channels)


def _stl(name: str, root: str, channels: int, split: Split, download: bool) -> ImageSet:
    found = tv.STL10(root, split=split, download=download)
    labels = torch.as_tensor(found.labels).long()
    classes = getattr(found, "classes", [str(i) for i in range(10)])
    return _in_memory(name, torch.from_numpy(found.data), labels, classes, channels)


def _in_memory(name: str, images: Tensor, labels: Tensor, classes: list[str], channels: int) -> ImageSet:
    images = rgb_to_grayscale(images) if channels == 1 else images
    mean, std = tones(name, channels)
    return ImageSet(name, images.contiguous(), labels, tuple(classes), mean, std)


def _flowers(name: str, root: str, channels: int, split: Split, download: bool) -> ImageFolder:
    paths, labels = [], []
    classes: list[str] = []
    for part in ("train", "val") if split == "train" else ("test",):
        # The loader gets a path and may return it: so nothing is decoded here.
        found: Any = tv.Flowers102(root, split=part, download=download, loader=Path)
        for i in range(len(found)):
            path, label = found[i]
            paths.append(path)
            labels.append(label)
        classes = list(found.classes)
    return _files(name, paths, labels, classes, channels)


def _pets(name: str, root: str, channels: int, split: Split, download: bool) -> ImageFolder:
    if download:
        tv.OxfordIIITPet(root, download=True)
    base = Path(root) / "oxford-iiit-pet"
    listing = base / "annotations" / ("trainval.txt" if split == "train" else "test.txt")
    rows = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(len(row) == 4 and row[1].isdigit() for row in rows):
        raise DataError(f"{listing} is not a list of the Pets data (name, class, kind, breed a line): get it afresh.")
    breeds = {int(number): image.rsplit("_", 1)[0].replace("_", " ") for image, number, _, _ in rows}
    number = {key: i for i, key in enumerate(sorted(breeds))}
    paths = [base / "images" / f"{row[0]}.jpg" for row in rows]
    classes = [breeds[key] for key in sorted(breeds)]
    return _files(name, paths, [number[int(row[1])] for row in rows], classes, channels)


def _files(name: str, paths: list[Path], labels: list[int], classes: list[str], channels: int) -> ImageFolder:
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise DataError(f"{missing} of the data set {name} is missing: get it afresh.")
    return ImageFolder(name, paths, torch.tensor(labels), tuple(classes), channels, *tones(name, channels))


Loader = Callable[[str, str, int, Split, bool], ImageSet | ImageFolder]
NAMED: dict[str, Loader] = {
    "cifar-10": _cifar,
    "cifar-100": _cifar,
    "stl-10": _stl,
    "flowers-102": _flowers,
    "pets": _pets,
}
