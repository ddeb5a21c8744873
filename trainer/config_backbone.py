"""Settings of the backbones, as frozen dataclasses; image sizes are in pixels."""

__all__ = ["SIZES", "ResNetConfig", "VitConfig", "vit_of_size"]

from dataclasses import dataclass, replace
from typing import Literal

from .config_checks import choice, positive

Stem = Literal["patch", "conv"]
MlpNorm = Literal["layer", "batch"]
Position = Literal["sincos", "learned", "none"]
Pooling = Literal["class_token", "mean_pool", "norm_then_mean_pool"]
SIZES = {"vit-s": (384, 12, 12), "vit-b": (768, 12, 12), "vit-l": (1024, 24, 16), "vit-h": (1280, 32, 16)}
"""Width, blocks and attention heads of the paper's models (Table 2)."""
ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer (arXiv 2104.02057, Sec. 5); `vit_of_size` sets all sizes of a known one at once."""

    image_size: int | tuple[int, int] = 28
    """Side of a crop, or its height and width, in pixels; a multiple of the patch size."""
    in_chans: int = 1
    """Channels of an image: 1 (gray) or 3 (RGB)."""
    patch_size: int = 7
    """Side of a patch in pixels."""
    dim: int = 32
    """Width of a token; a multiple of 4 (sine and cosine of two axes) and of the number of heads."""
    depth: int = 8
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads in each block."""
    mlp_ratio: float = 4.0
    """Width of a block's hidden MLP layer in multiples of dim."""
    stem: Stem = "patch"
    """One projection per patch, or 3x3 convolutions of stride 2 with BatchNorm (arXiv 2106.14881)."""
    mlp_norm: MlpNorm = "layer"
    """Norm before each block's MLP: LayerNorm, or BatchNorm, which makes it the paper's ViT-BN (Sec. 6.3)."""
    position: Position = "sincos"
    """Position embedding: fixed sines and cosines, a learned table, or none (Sec. 6.2)."""
    pooling: Pooling = "class_token"
    """The feature: the class token after the last LayerNorm, the mean of the tokens without it, or after it."""

    def __post_init__(self) -> None:
        positive(self, "in_chans", "patch_size", "dim", "depth", "heads", "mlp_ratio")
        choice(self, "stem", Stem)
        choice(self, "mlp_norm", MlpNorm)
        choice(self, "position", Position)
        choice(self, "pooling", Pooling)
        if min(self.size) < 1 or any(side % self.patch_size for side in self.size):
            raise ValueError(
                f"image_size {self.image_size} is not a positive multiple of patch_size {self.patch_size}: "
                f"choose sides such as {self.patch_size * 4}."
            )
        if (self.position == "sincos" and self.dim % 4) or self.dim % self.heads:
            raise ValueError(
                f"dim {self.dim} must be a multiple of 4 (sine and cosine of two axes) and of heads {self.heads}: "
                f"choose for instance {4 * self.heads * max(1, self.dim // (4 * self.heads))}."
            )
        self._check_stem()

    def _check_stem(self) -> None:
        if self.stem == "patch":
            return
        halvings = self.patch_size.bit_length() - 1
        if self.patch_size != 2**halvings or halvings < 1 or self.dim % 2 ** (halvings - 1):
            raise ValueError(
                f"stem 'conv' halves the image patch_size times and doubles the width up to dim, so patch_size "
                f"{self.patch_size} must be a power of 2 and dim {self.dim} a multiple of its half: "
                "choose for instance 4 and 64."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""
        return _pair(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along the height and the width."""
        return self.size[0] // self.patch_size, self.size[1] // self.patch_size

    @property
    def feature(self) -> str:
        """What the backbone's output is, in words."""
        names = {"class_token": "class token", "mean_pool": "mean token", "norm_then_mean_pool": "mean normed token"}
        return names[self.pooling]

    @property
    def patches(self) -> bool:
        """Whether there is a patch projection (to be frozen, clipped and so on)."""
        return self.stem == "patch"


@dataclass(frozen=True)
class ResNetConfig:
    """A residual network (arXiv 1512.03385), the paper's convolutional reference."""

    name: ResNetName = "resnet50"
    """Which one: resnet50 is the paper's."""
    image_size: int | tuple[int, int] = 224
    """Side of a crop, or its height and width, in pixels."""
    in_chans: int = 3
    """Channels of an image: 1 (gray) or 3 (RGB)."""

    def __post_init__(self) -> None:
        choice(self, "name", ResNetName)
        positive(self, "in_chans")
        if min(self.size) < 32:
            raise ValueError(f"image_size {self.image_size} is too small for five halvings: use at least 32, or a ViT.")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop in pixels."""
        return _pair(self.image_size)

    @property
    def dim(self) -> int:
        """Length of a feature vector.

        >>> ResNetConfig().dim
        2048
        """
        return 512 if self.name in ("resnet18", "resnet34") else 2048

    @property
    def feature(self) -> str:
        """What the backbone's output is, in words."""
        return "mean over the last map"

    @property
    def patches(self) -> bool:
        """A ResNet has no patch projection."""
        return False


def vit_of_size(name: str, base: VitConfig | None = None) -> VitConfig:
    """A ViT of the paper (Table 2), such as "vit-b/16", with all else as in `base`.

    Raises ValueError for a name that is not a size and a patch.

    >>> vit_of_size("vit-s/7", VitConfig(image_size=28)).heads
    12
    """
    size, _, patch = name.lower().partition("/")
    if size not in SIZES or not patch.isdigit():
        raise ValueError(f"model {name!r} is unknown: give one of {', '.join(SIZES)} and a patch, such as vit-b/16.")
    dim, depth, heads = SIZES[size]
    return replace(base or VitConfig(), patch_size=int(patch), dim=dim, depth=depth, heads=heads)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
