"""Settings of the data and of the two random views, as frozen dataclasses; probabilities are 0 to 1."""

__all__ = ["AugmentConfig", "DataConfig"]

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from .config_checks import fraction, not_negative, positive, without_effect


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from."""

    dataset: Annotated[str, arg(aliases=["--data"])] = "fashion-mnist"
    """fashion-mnist, cifar-10, cifar-100, stl-10, flowers-102, pets (as torchvision lays them out), or folder:PATH with
    a sub-folder of images for each class."""
    data_root: Annotated[str | None, arg(aliases=["--data-root"])] = None
    """Folder that holds (or will hold) a named data set; None looks in the usual places."""
    download: bool = False
    """Get a named data set from its publisher if it is not there; Fashion-MNIST, 30 MB, needs no asking."""
    limit: int | None = None
    """Use the first so many images only; None uses all."""
    workers: int = 0
    """Processes that decode images of a folder; 0 decodes in the training process."""

    def __post_init__(self) -> None:
        if self.dataset in ("", "folder", "folder:"):
            raise ValueError(
                f"dataset {self.dataset!r} names no data: give 'fashion-mnist', for instance, or 'folder:PATH'."
            )
        if self.limit is not None:
            positive(self, "limit")
        not_negative(self, "workers")
        if self.dataset.startswith("folder:"):
            without_effect(self, "with a folder, whose path is in dataset", "data_root", "download")
        if self.dataset == "fashion-mnist":
            without_effect(self, "with fashion-mnist, which is downloaded unasked", "download")


@dataclass(frozen=True)
class AugmentConfig:
    """The two random views of an image; the defaults are those of MoCo v3 for ViT (after BYOL's)."""

    crop_min: float = 0.08
    """Smallest share of the image's area that a crop may show, 0 to 1; the largest is 1."""
    brightness: float = 0.4
    """Largest relative change of brightness."""
    contrast: float = 0.4
    """Largest relative change of contrast."""
    saturation: float = 0.2
    """Largest relative change of saturation; must be 0 for gray images."""
    hue: float = 0.1
    """Largest turn of the hue, in turns (0 to 0.5); must be 0 for gray images."""
    jitter_p: float = 0.8
    """Probability that a view gets the four changes above."""
    gray_p: float = 0.2
    """Probability that a view loses its colours; must be 0 for gray images."""
    blur_p: tuple[float, float] = (1.0, 0.1)
    """Probability of a Gaussian blur in the first and in the second view."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels."""
    solarize_p: tuple[float, float] = (0.0, 0.2)
    """Probability of solarisation (tones above one half inverted) in the first and in the second view."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        fraction(self, "crop_min", "jitter_p", "gray_p", "blur_p", "solarize_p", "flip_p")
        positive(self, "crop_min")
        not_negative(self, "brightness", "contrast", "saturation")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue {self.hue} must be between 0 and 0.5 turns.")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma {self.blur_sigma} must be a positive range, smaller number first.")
