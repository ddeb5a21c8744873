"""A convolutional stem in the place of the patch projection: images `[N, C, H, W]` to tokens `[N, L, D]`.

Source: "Early Convolutions Help Transformers See Better" (arXiv 2106.14881), the later remedy for the instability of
the patch projection; the published MoCo v3 code has one of this shape for 16 x 16 patches.
"""

__all__ = ["ConvStem"]

from typing import Any

from torch import Tensor, nn


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2 with BatchNorm and ReLU, each twice as wide, then a 1x1 convolution to `embed_dim`.

    It takes the arguments and has the attributes of timm's `PatchEmbed`. `patch_size` is a power of 2: the number of
    halvings; the last of them is `embed_dim` wide.

    >>> stem = ConvStem(224, 16, 3, 384)
    >>> stem.num_patches, [m.out_channels for m in stem.modules() if isinstance(m, nn.Conv2d)]
    (196, [48, 96, 192, 384, 384])
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool = True,
        **_: Any,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        halvings = patch_size.bit_length() - 1
        for width in (embed_dim >> level for level in reversed(range(halvings))):
            layers += [nn.Conv2d(in_chans, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            in_chans = width
        self.proj = nn.Sequential(*layers, nn.Conv2d(in_chans, embed_dim, 1, bias=bias))

    def forward(self, images: Tensor) -> Tensor:
        """Tokens in row-major order."""
        return self.proj(images).flatten(2).transpose(1, 2)
