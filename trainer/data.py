"""The training images: Fashion-MNIST in memory, or a folder of one's own; tones are uint8, 0 to 255.

`load_dataset` takes `fashion-mnist`, `folder:PATH` or one of the data sets in `named_data.py`. Fashion-MNIST is looked
up in `data_root`, in the folder named by the environment variable FORESHOCK_DATA, where Debian's package
dataset-fashion-mnist puts it, and in the user's cache, into which torchvision downloads it if all else fails. Folders
are in `folder.py`.
"""

__all__ = ["DataError", "ImageSet", "load_dataset"]

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from .config_input import DataConfig

if TYPE_CHECKING:
    from .folder import ImageFolder

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Mean and standard deviation of the 60,000 training images, tones from 0 to 1.
FASHION_TONES = (0.2860, 0.3530)
Split = Literal["train", "test"]


class DataError(ValueError):
    """The images cannot be used: the message names the file or folder and the remedy."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one size in memory."""

    name: str
    images: Tensor
    """u8[N, C, H, W]"""
    labels: Tensor | None
    """i64[N], or None if the images have no classes."""
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Mean tone of each channel, 0 to 1; `std` likewise."""
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 (gray) or 3 (RGB)."""
        return self.images.shape[1]


def load_dataset(
    config: DataConfig, channels: int = 1, split: Split = "train", *, download: bool = True
) -> "ImageSet | ImageFolder":
    """The images that `config` names, with `channels` channels each; DataError says what is wrong with them.

    Fashion-MNIST is downloaded where it is not found, unless `download` is False; the other named sets are if `config`
    says so.

    >>> data = load_dataset(DataConfig(limit=512))
    >>> tuple(data.images.shape), data.classes[int(data.labels[0])]
    ((512, 1, 28, 28), 'Ankle boot')
    """
    if config.dataset.startswith("folder:"):
        from .folder import load_folder

        return load_folder(config.dataset.removeprefix("folder:"), channels, config.limit)
    if config.dataset != "fashion-mnist":
        from .named_data import load_named

        return _first(
            load_named(config.dataset, config.data_root, channels, split, download=config.download), config.limit
        )
    if channels != 1:
        raise DataError(f"Fashion-MNIST is gray, but the model takes {channels} channels: set vit.in_chans to 1.")
    images, labels = _fashion_mnist(config.data_root, split, download)
    mean, std = FASHION_TONES
    return _first(ImageSet("fashion-mnist", images, labels, FASHION_CLASSES, (mean,), (std,)), config.limit)


def _first(data: "ImageSet | ImageFolder", limit: int | None) -> "ImageSet | ImageFolder":
    if limit is None:
        return data
    labels = None if data.labels is None else data.labels[:limit]
    if isinstance(data, ImageSet):
        return replace(data, images=data.images[:limit], labels=labels)
    return replace(data, paths=data.paths[:limit], labels=labels)


def _fashion_mnist(data_root: str | None, split: Split, download: bool) -> tuple[Tensor, Tensor]:
    prefix = {"train": "train", "test": "t10k"}[split]
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    files = _find(data_root, names, download)
    images, labels = (_read_idx(path) for path in files)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{files[0]} and {files[1].name} do not belong together: {_RENEW}")
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def _find(data_root: str | None, names: tuple[str, str], download: bool) -> tuple[Path, Path]:
    """The two files in the first place that has both, or downloaded into the cache if that is allowed."""
    for place in [Path(data_root)] if data_root else list(_places()):
        for folder in (place, place / "FashionMNIST" / "raw"):
            found = [p for name in names for p in (folder / name, folder / f"{name}.gz") if p.is_file()]
            images = next((p for p in found if p.name.startswith(names[0])), None)
            labels = next((p for p in found if p.name.startswith(names[1])), None)
            if images and labels:
                return images, labels
    if data_root:
        raise DataError(
            f"no Fashion-MNIST in {data_root} ({names[0]}.gz and {names[1]}.gz are looked for): "
            "give the folder that holds them, or leave data_root out to search the usual places."
        )
    if not download:
        raise DataError(
            "Fashion-MNIST is not on this computer: get it with --download, install Debian's package "
            "dataset-fashion-mnist, or name a folder with its four *-ubyte.gz files by --data-root."
        )
    return _download(names)


def _places() -> Iterator[Path]:
    if os.environ.get("FORESHOCK_DATA"):
        yield Path(os.environ["FORESHOCK_DATA"])
    yield DEBIAN
    yield _cache()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foreshock"


def _download(names: tuple[str, str]) -> tuple[Path, Path]:
    from torchvision.datasets import FashionMNIST

    cache = _cache()
    try:
        FashionMNIST(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST is not on this computer and could not be downloaded ({_one_line(error)}): install "
            "Debian's package dataset-fashion-mnist, or name a folder with its four *-ubyte.gz files "
            "by --data-root or the environment variable FORESHOCK_DATA."
        ) from error
    raw = cache / "FashionMNIST" / "raw"
    return raw / names[0], raw / names[1]


_RENEW = "remove them and get them afresh (Debian's package dataset-fashion-mnist has them)."


def _read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file of bytes (two zero bytes, type 8, number of axes, their lengths, the values)."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cannot be read ({_one_line(error)}): {_RENEW}") from error
    axes = raw[3] if len(raw) >= 4 and raw[:3] == b"\0\0\x08" else 0
    shape = tuple(np.frombuffer(raw, ">i4", axes, 4).tolist()) if len(raw) >= 4 + 4 * axes else ()
    if not axes or not shape or len(raw) != 4 + 4 * axes + int(np.prod(shape)):
        raise DataError(f"{path} is not a complete IDX file of bytes: {_RENEW}")
    return np.frombuffer(bytearray(raw), np.uint8, offset=4 + 4 * axes).reshape(shape)


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".:")
