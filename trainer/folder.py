"""A folder of images (ImageNet's layout, one sub-folder a class), decoded by Pillow as uint8, 0 to 255.

PATH/train is taken if there is one. Images of one small size are held in memory; others are decoded as they are needed.
A folder with images but without sub-folders is a set without classes: it can be trained on, without a kNN accuracy.
"""

__all__ = ["ImageFolder", "load_folder"]

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from .data import DataError, ImageSet, _one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
# What Pillow raises for files that are damaged in one way or another.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# ImageNet's mean and standard deviation of red, green and blue (tones from 0 to 1), and their average for gray images.
TONES = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
IN_MEMORY = 1 << 30
"""Bytes of decoded images up to which a folder is held in memory."""


@dataclass(frozen=True)
class ImageFolder:
    """Image files, decoded one at a time."""

    name: str
    paths: Sequence[Path]
    labels: Tensor | None
    """i64[N], or None if the images have no classes."""
    classes: tuple[str, ...]
    channels: int
    """1 (gray) or 3 (RGB)"""
    mean: tuple[float, ...]
    """Mean tone of each channel, 0 to 1; `std` likewise."""
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def decode(self, i: int) -> Tensor:
        """Image `i`, upright: u8[C, H, W]; DataError names a file that is no image."""
        try:
            with Image.open(self.paths[i]) as image:
                return pil_to_tensor(ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB"))
        except DAMAGED as error:
            raise DataError(
                f"{self.paths[i]} cannot be read as an image ({_one_line(error)}): remove or replace it."
            ) from error


def load_folder(path: str, channels: int = 3, limit: int | None = None) -> ImageSet | ImageFolder:
    """The images at or below `path`, in the order of their names; DataError if there are none."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f'no folder of images at {path}: check the path after "folder:".')
    if channels not in TONES:
        raise DataError(f"images have 1 or 3 channels, the model takes {channels}: set vit.in_chans to 1 or 3.")
    root = root / "train" if (root / "train").is_dir() else root
    paths, classes = _index(root)
    paths = paths[:limit]
    if not paths:
        raise DataError(f"no images in {root}: files ending in {', '.join(SUFFIXES)} are looked for.")
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[p.relative_to(root).parts[0]] for p in paths]) if classes else None
    folder = ImageFolder(f"folder:{path}", paths, labels, classes, channels, *TONES[channels])
    images = _small(folder)
    if images is None:
        return folder
    return ImageSet(folder.name, images, labels, classes, folder.mean, folder.std)


def _index(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Image files and names of the classes; a class is a sub-folder that holds an image, at any depth."""
    files = {d.name: _images(d.rglob("*")) for d in sorted(root.iterdir()) if d.is_dir()}
    files = {name: images for name, images in files.items() if images}
    loose = _images(root.iterdir())
    if files and loose:
        raise DataError(
            f"{root} has images both in sub-folders (classes) and beside them, such as {loose[0].name}: "
            "move those into a class."
        )
    return [p for images in files.values() for p in images] or loose, tuple(files)


def _images(paths: object) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file())  # pyright: ignore


def _small(folder: ImageFolder) -> Tensor | None:
    """All images as u8[N, C, H, W] if they are of one size and fit IN_MEMORY, else None."""
    first = folder.decode(0)
    if len(folder) * first.numel() > IN_MEMORY:
        return None
    images = torch.empty(len(folder), *first.shape, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(folder), 256):
            for i, image in enumerate(pool.map(folder.decode, range(start, min(start + 256, len(folder))))):
                if image.shape != first.shape:
                    return None
                images[start + i] = image
    return images
