"""The two random views of an image (arXiv 2104.02057, appendix), for a whole batch on its device.

Each image of a batch gets its own crop, flip, colours, blur and solarisation, drawn in `views.py` and carried out here
by a few batched operations: crop, resize and flip are one matrix product along each axis, and so is the blur.
`reference.py` does the same to one image with torchvision. Images come as uint8 and leave as float32 in units of the
data's standard deviation. For gray images saturation, hue and the loss of colours have no effect, as in torchvision;
they are skipped.
"""

__all__ = ["apply", "two_views"]

import math
from functools import lru_cache

import torch
from torch import Tensor

from .config_input import AugmentConfig
from .views import Views, draw

# Weights of red, green and blue in brightness (ITU-R BT.601, rounded as in torchvision and Pillow).
LUMA = (0.2989, 0.587, 0.114)
# Tones from here on are inverted by solarisation: Pillow's 128 of 255.
SOLARIZE_FROM = 128 / 255


def two_views(
    images: Tensor,
    size: tuple[int, int],
    config: AugmentConfig,
    generator: torch.Generator,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    part: tuple[int, int] = (0, 1),
) -> tuple[Tensor, Tensor]:
    """Two views of `images`: u8[N, C, H, W], each f32[N, C, *size], normalised by `mean` and `std` per channel.

    `images` may be a part of a batch, `part` its number and the number of equal parts: they get the views that they
    would get in the whole batch.

    >>> images = torch.full((4, 1, 28, 28), 255, dtype=torch.uint8)
    >>> x1, x2 = two_views(images, (28, 28), AugmentConfig(jitter_p=0), torch.Generator().manual_seed(0))
    >>> tuple(x2.shape), round(float(x1.mean()), 5)
    ((4, 1, 28, 28), 1.0)
    """
    height, width = images.shape[-2:]
    number, parts = part
    views = draw(len(images) * parts, height, width, config, generator).part(number, parts)
    x = apply(images, views.to(images.device), size, config.blur_sigma[1])
    x = (x - _channels(mean, x.device)) / _channels(std, x.device)
    return x[: len(images)], x[len(images) :]


@lru_cache(maxsize=8)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Kept, since making a tensor on a GPU from Python numbers waits for it.
    return torch.tensor(values, device=device).view(-1, 1, 1)


def apply(images: Tensor, views: Views, size: tuple[int, int], sigma_max: float) -> Tensor:
    """Views f32[2N, C, *size] of `images`: u8[N, C, H, W], tones from 0 to 1."""
    x = images.float().div_(255)
    rows = _resize(views.top, views.height, images.shape[-2], size[0])
    columns = _resize(views.left, views.width, images.shape[-1], size[1], views.flip)
    x = torch.cat([x, x])
    x = rows.unsqueeze(1) @ x @ columns.unsqueeze(1).mT
    x = _jitter(x, views)
    if x.shape[1] == 3:
        x = torch.lerp(x, _luma(x), views.gray.view(-1, 1, 1, 1))
    x = _blur(x, views.sigma, sigma_max)
    inverted = (x >= SOLARIZE_FROM) & views.solarize.bool().view(-1, 1, 1, 1)
    return torch.where(inverted, 1 - x, x)


def _resize(start: Tensor, length: Tensor, n_in: int, n_out: int, flip: Tensor | None = None) -> Tensor:
    """Matrices f32[n, n_out, n_in] that take pixels [start, start + length) to n_out: bilinear, antialiased."""
    start, length = start.view(-1, 1, 1), length.view(-1, 1, 1)
    out = torch.arange(n_out, device=start.device).view(1, -1, 1) + 0.5
    if flip is not None:
        out = torch.where(flip.bool().view(-1, 1, 1), n_out - out, out)
    scale = length / n_out
    at = torch.arange(n_in, device=start.device).view(1, 1, -1) + 0.5 - start
    # Going down, the triangle is as wide as the step between outputs, so that every input pixel counts.
    weight = (1 - (at - out * scale).abs() / scale.clamp(min=1)).clamp_(min=0)
    weight = weight * ((at > 0) & (at < length))
    return weight / weight.sum(-1, keepdim=True)


def _jitter(x: Tensor, views: Views) -> Tensor:
    """Brightness, contrast, saturation and hue, in each view's own order, cut to [0, 1] after each.

    The first three are blends with black, with the mean and with the gray image, so one formula serves views
    that are at different ones. The hue is dear: it is turned once for all, between the blends that come before it
    and those that come after; a blend whose turn it is not has the factor 1, which changes nothing.
    """
    colours = x.shape[1] == 3
    blends = 3 if colours else 2
    factors = torch.stack([views.brightness, views.contrast, views.saturation][:blends], 1)
    order, which = views.order[:, :blends].sort(1)
    factors = factors.gather(1, which)
    early = order < views.order[:, 3:] if colours else torch.ones_like(which, dtype=torch.bool)
    for i in range(blends):
        x = _blend(x, torch.where(early[:, i], factors[:, i], 1.0), which[:, i])
    if colours:
        x = _turn_hue(x, views.hue)
        for i in range(blends):
            x = _blend(x, torch.where(early[:, i], 1.0, factors[:, i]), which[:, i])
    return x


def _blend(x: Tensor, factor: Tensor, which: Tensor) -> Tensor:
    """x and black (which 0), its mean tone (1) or its gray version (2), mixed as factor : 1 - factor."""
    factor, which = factor.view(-1, 1, 1, 1), which.view(-1, 1, 1, 1)
    gray = _luma(x)
    other = gray.mean((-2, -1), keepdim=True) * (which == 1)
    if x.shape[1] == 3:
        other = other + gray * (which == 2)
    return torch.addcmul(other * (1 - factor), x, factor).clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of x: f32[n, 3, H, W] by turn: f32[n] turns, in the HSV cone."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(value == red, (green - blue) / safe, 2 + (blue - red) / safe)
    hue = torch.where((value == blue) & (value != red) & (value != green), 4 + (red - green) / safe, hue)
    hue = hue + 6 * turn.view(-1, 1, 1)
    phase = [(n + hue) % 6 for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(p, 4 - p).clamp(0, 1) for p in phase], 1)


def _blur(x: Tensor, sigma: Tensor, sigma_max: float) -> Tensor:
    """Gaussian blur with reflected borders, three of the largest sigma wide on each side (0: untouched)."""
    rows = _gaussian(x.shape[-2], sigma, sigma_max)
    columns = rows if x.shape[-1] == x.shape[-2] else _gaussian(x.shape[-1], sigma, sigma_max)
    return rows.unsqueeze(1) @ x @ columns.unsqueeze(1).mT


def _gaussian(n: int, sigma: Tensor, sigma_max: float) -> Tensor:
    """Matrices f32[n_views, n, n] of the blur along an axis of n pixels."""
    reach = blur_reach(n, sigma_max)
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    # A sigma of 0 becomes one so small that the neighbours' weights are exactly 0.
    kernel = torch.exp(-0.5 * (offset / sigma.clamp(min=1e-3).unsqueeze(1)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return (kernel @ _taps(n, reach, sigma.device)).view(-1, n, n)


def blur_reach(n: int, sigma_max: float) -> int:
    """Pixels on each side that a blur looks at along an axis of n.

    >>> blur_reach(28, 2.0)
    6
    """
    return min(math.ceil(3 * sigma_max), n - 1)


@lru_cache(maxsize=8)
def _taps(n: int, reach: int, device: torch.device) -> Tensor:
    """f32[2 reach + 1, n * n]: which pixel each offset of the kernel falls on, reflected at the borders."""
    pixel = torch.arange(n).view(-1, 1) + torch.arange(-reach, reach + 1)
    pixel = pixel.abs()
    pixel = torch.where(pixel >= n, 2 * (n - 1) - pixel, pixel)
    return torch.nn.functional.one_hot(pixel, n).permute(1, 0, 2).reshape(2 * reach + 1, n * n).float().to(device)
