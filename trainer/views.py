"""What happens to each view of a batch, drawn at random on the CPU: a seed gives the same views on every device.

The distributions are torchvision's; lengths are in pixels of the image before the crop, but the blur's.
"""

__all__ = ["Views", "draw"]

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .config_input import AugmentConfig

# Range of the logarithm of a crop's width over its height.
RATIO = (math.log(3 / 4), math.log(4 / 3))
TRIES = 10


@dataclass(frozen=True)
class Views:
    """What happens to each of n views; every field is f32[n], but `order`."""

    top: Tensor
    """First row of the crop; with `left`, `height` and `width` whole pixels of the image."""
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    """1 mirrors the view, 0 does not; likewise `gray` and `solarize`."""
    brightness: Tensor
    """Factor, 1 changes nothing; likewise `contrast` and `saturation`."""
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    """Turn of the hue in turns, 0 changes nothing."""
    order: Tensor
    """f32[n, 4]: brightness, contrast, saturation and hue are applied in the order of these numbers."""
    gray: Tensor
    sigma: Tensor
    """Standard deviation of the blur in pixels of the view, 0 for none."""
    solarize: Tensor

    def __len__(self) -> int:
        return len(self.top)

    def part(self, number: int, parts: int) -> "Views":
        """Of the views of a batch those of its part `number` (0 is the first) of `parts` equal ones, both of an image.

        >>> views = draw(6, 28, 28, AugmentConfig(), torch.Generator().manual_seed(0))
        >>> bool((views.part(1, 3).top == views.top[[2, 3, 8, 9]]).all())
        True
        """
        if parts == 1:
            return self
        columns = (getattr(self, f.name) for f in fields(self))
        return Views(*(c.unflatten(0, (2, parts, -1))[:, number].flatten(0, 1) for c in columns))

    def to(self, device: torch.device) -> "Views":
        """The same views on another device: one copy for all fields, which the host does not wait for."""
        if device.type == "cpu":
            return self
        table = torch.cat([getattr(self, f.name).view(len(self), -1) for f in fields(self)], 1)
        if device.type == "cuda":
            table = table.pin_memory()
        table = table.to(device, non_blocking=True)
        widths = [4 if f.name == "order" else 1 for f in fields(self)]
        columns = table.split(widths, 1)
        return Views(*(c if n > 1 else c.squeeze(1) for c, n in zip(columns, widths, strict=True)))


def draw(n: int, height: int, width: int, config: AugmentConfig, generator: torch.Generator) -> Views:
    """Draw both views of `n` images of `height` x `width` pixels: `Views` of length 2n, first views first.

    >>> views = draw(256, 28, 28, AugmentConfig(crop_min=0.5), torch.Generator().manual_seed(0))
    >>> len(views), int((views.height * views.width).min()), int(views.solarize[:256].sum())
    (512, 378, 0)
    """
    u = torch.rand(2 * n, 2 * TRIES + 16, generator=generator).unbind(1)
    crop = _draw_crop(torch.stack(u[16 : 16 + TRIES], 1), torch.stack(u[16 + TRIES :], 1), height, width, config)
    free = [(side - length + 1) for side, length in ((height, crop[2]), (width, crop[3]))]
    place = [torch.minimum((a * f).floor(), f - 1) for a, f in zip(u[:2], free, strict=True)]
    top, left = (torch.where(c < 0, p, c) for c, p in zip(crop[:2], place, strict=True))
    jitter = u[3] < config.jitter_p
    factor = [
        torch.where(jitter, 1 - min(s, 1) + u[4 + i] * (s + min(s, 1)), 1.0)
        for i, s in enumerate((config.brightness, config.contrast, config.saturation))
    ]
    hue = torch.where(jitter, (2 * u[7] - 1) * config.hue, 0.0)
    blur_p, solarize_p = (torch.tensor(p).repeat_interleave(n) for p in (config.blur_p, config.solarize_p))
    low, high = config.blur_sigma
    return Views(
        top=top,
        left=left,
        height=crop[2],
        width=crop[3],
        flip=(u[2] < config.flip_p).float(),
        brightness=factor[0],
        contrast=factor[1],
        saturation=factor[2],
        hue=hue,
        order=torch.stack(u[8:12], 1),
        gray=(u[12] < config.gray_p).float(),
        sigma=torch.where(u[13] < blur_p, low + u[14] * (high - low), 0.0),
        solarize=(u[15] < solarize_p).float(),
    )


def _draw_crop(u: Tensor, v: Tensor, height: int, width: int, config: AugmentConfig) -> list[Tensor]:
    """Top, left (-1: anywhere), height and width of crops from u, v: f32[n, TRIES], torchvision's rule.

    The first of ten random rectangles that fits; if none does, the largest central one of an allowed ratio.
    """
    area = height * width * (config.crop_min + (1 - config.crop_min) * u)
    ratio = torch.exp(RATIO[0] + (RATIO[1] - RATIO[0]) * v)
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = (fits * torch.arange(TRIES, 0, -1)).argmax(1, keepdim=True)
    fits, h, w = (x.gather(1, first).squeeze(1) for x in (fits, h, w))
    low, high = (math.exp(r) for r in RATIO)
    w0, h0 = min(width, round(height * high)), min(height, round(width / low))
    anywhere = torch.full_like(h, -1)
    return [
        torch.where(fits, anywhere, (height - h0) // 2),
        torch.where(fits, anywhere, (width - w0) // 2),
        torch.where(fits, h, h0),
        torch.where(fits, w, w0),
    ]
