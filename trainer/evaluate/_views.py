"""Labelled images as a network takes them, f32[n, C, H, W], normalised: by one fixed crop, or by random ones."""

__all__ = ["Crop", "Reader"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..augment import _resize
from ..batches import _ignore_interrupt, generator
from ..config import AugmentConfig
from ..data import DataError, ImageSet
from ..folder import ImageFolder
from ..views import draw
from ._labelled import Part

Crop = Literal["auto", "centre", "whole"]
Transform = Callable[[Tensor, int], Tensor]
"""Images of one size, u8[n, C, H, W], and the place of the first of them in the part, to f32[n, C, *size]."""


@dataclass(frozen=True)
class Reader:
    """Reads the images of a part in its order, `batch` at a time, onto the device."""

    part: Part
    size: tuple[int, int]
    tones: tuple[tuple[float, ...], tuple[float, ...]]
    device: torch.device
    batch: int = 256
    workers: int = 0
    crop: Crop = "auto"

    @property
    def centred(self) -> bool:
        """Whether the centre of a test image is seen, instead of all of it."""
        images = self.part.images
        small = isinstance(images, ImageSet) and all(
            have <= want for have, want in zip(images.images.shape[-2:], self.size, strict=True)
        )
        return self.crop == "centre" or (self.crop == "auto" and not small)

    @property
    def crop_text(self) -> str:
        """The single crop of a test image, in words."""
        height, width = self.size
        if self.centred:
            return f"resized to {round(height * 8 / 7)}, centre {height}x{width}"
        return f"whole image at {height}x{width}"

    def plain(self) -> Iterator[Tensor]:
        """Every image once, by the single crop of a test image."""
        return self._batches(self._plain)

    def augmented(
        self, seed: int, number: int, crop_min: float = 0.08, then: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """Every image once, in the random resized crop and flip of pass `number`.

        `then` changes a crop f32[C, H, W], tones from 0 to 1, before it is normalised; it draws from torch's global
        generator, which is seeded for it.
        """
        config = AugmentConfig(
            crop_min=crop_min, jitter_p=0, gray_p=0, blur_p=(0, 0), solarize_p=(0, 0), saturation=0, hue=0
        )
        return self._batches(partial(self._augmented, config, (seed, 4, number), then))

    def normalise(self, x: Tensor) -> Tensor:
        """Tones f32[n, c, H, W] from 0 to 1 in units of the training data's deviation; gray becomes RGB."""
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in self.tones)
        return (x - mean) / std

    def _plain(self, images: Tensor, _: int) -> Tensor:
        x = tv.to_dtype(images, torch.float32, scale=True)
        height, width = self.size
        if self.centred:
            scale = 8 / 7 * max(height / x.shape[-2], width / x.shape[-1])
            sides = [max(round(x.shape[-2] * scale), height), max(round(x.shape[-1] * scale), width)]
            x = tv.center_crop(tv.resize(x, sides, antialias=True), [height, width])
        elif x.shape[-2:] != self.size:
            x = tv.resize(x, [height, width], antialias=True)
        return self.normalise(x)

    def _augmented(
        self,
        config: AugmentConfig,
        key: tuple[int, ...],
        then: Callable[[Tensor], Tensor] | None,
        images: Tensor,
        at: int,
    ) -> Tensor:
        random = generator(*key, at)
        n, height, width = len(images), *images.shape[-2:]
        views = draw(n, height, width, config, random).to(images.device)
        x = tv.to_dtype(images, torch.float32, scale=True)
        rows = _resize(views.top[:n], views.height[:n], height, self.size[0])
        columns = _resize(views.left[:n], views.width[:n], width, self.size[1], views.flip[:n])
        x = rows.unsqueeze(1) @ x @ columns.unsqueeze(1).mT
        if then:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(torch.randint(1 << 62, (), generator=random)))
                x = torch.stack([then(crop) for crop in x])
        return self.normalise(x)

    def _batches(self, transform: Transform) -> Iterator[Tensor]:
        images = self.part.images
        if isinstance(images, ImageSet):
            for start in range(0, len(self.part), self.batch):
                chunk = images.images[self.part.index[start : start + self.batch]]
                yield transform(chunk.to(self.device), start)
            return
        loader = DataLoader(
            _Files(images, self.part.index, transform),
            batch_size=self.batch,
            num_workers=self.workers,
            collate_fn=_collate,
            worker_init_fn=_ignore_interrupt,
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch.to(self.device)


class _Files(Dataset):
    """Decoded and transformed images; an error's text in place of one that failed."""

    def __init__(self, images: ImageFolder, index: Tensor, transform: Transform) -> None:
        self.images, self.index, self.transform = images, index.tolist(), transform

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Tensor | str:
        try:
            return self.transform(self.images.decode(self.index[i])[None], i)[0]
        except DataError as error:
            # Raised here, it would reach the reading process as a traceback of the decoding one.
            return str(error)


def _collate(images: list[Tensor | str]) -> Tensor | str:
    wrong = next((image for image in images if isinstance(image, str)), None)
    return wrong or torch.stack(images)  # pyright: ignore[reportArgumentType]
