"""One view of one image with torchvision's functions: for images of a folder, and the twin that tests `augment.py`.

Tones are float32 from 0 to 1. The image keeps its own size until the crop, so images of any size can be mixed.
"""

__all__ = ["apply_one"]

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from .augment import SOLARIZE_FROM, blur_reach
from .views import Views


def apply_one(image: Tensor, views: Views, i: int, size: tuple[int, int], sigma_max: float) -> Tensor:
    """View `i` of `views`, f32[C, *size], of `image`: u8[C, H, W], tones from 0 to 1.

    >>> from .views import draw
    >>> from .config_input import AugmentConfig
    >>> views = draw(1, 40, 30, AugmentConfig(), torch.Generator().manual_seed(0))
    >>> tuple(apply_one(torch.zeros(3, 40, 30, dtype=torch.uint8), views, 1, (28, 28), 2.0).shape)
    (3, 28, 28)
    """
    top, left, height, width = (int(x[i]) for x in (views.top, views.left, views.height, views.width))
    x = tv.to_dtype(image, torch.float32, scale=True)
    x = tv.resized_crop(x, top, left, height, width, list(size), tv.InterpolationMode.BILINEAR, antialias=True)
    for which in views.order[i].argsort().tolist():
        if which == 0:
            x = tv.adjust_brightness(x, float(views.brightness[i]))
        elif which == 1:
            x = tv.adjust_contrast(x, float(views.contrast[i]))
        elif which == 2:
            x = tv.adjust_saturation(x, float(views.saturation[i]))
        elif views.hue[i]:
            x = tv.adjust_hue(x, float(views.hue[i]))
    if views.gray[i]:
        x = tv.rgb_to_grayscale(x, num_output_channels=x.shape[0])
    if views.sigma[i]:
        kernel = [2 * blur_reach(side, sigma_max) + 1 for side in reversed(size)]
        x = tv.gaussian_blur(x, kernel, [float(views.sigma[i])] * 2)
    if views.solarize[i]:
        x = tv.solarize(x, SOLARIZE_FROM)
    return tv.horizontal_flip(x) if views.flip[i] else x
