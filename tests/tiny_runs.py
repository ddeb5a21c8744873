"""A made-up Fashion-MNIST of a few images and a model that trains on it in milliseconds, for the trainer's tests."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2.functional import to_pil_image

from foreshock.trainer.config import (
    AugmentConfig,
    DataConfig,
    HeadConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
    VitConfig,
)

IMAGES, BATCH = 70, 16  # four batches an epoch, and some images left over


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path, images: int = IMAGES, *, prefix: str = "train", compress: bool = True) -> Path:
    """Two IDX files of random images, each class with a tone of its own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, images)
    pixels = np.clip(rng.integers(0, 60, (images, 28, 28)) + 19 * labels[:, None, None], 0, 255)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
        raw = idx(array)
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(raw, 1) if compress else raw)
    return folder


def write_images(folder: Path, sizes: list[tuple[int, int]], *, channels: int = 3, classes: int = 2) -> Path:
    """PNG images in `classes` sub-folders, or right in the folder for 0."""
    random = torch.Generator().manual_seed(0)
    for i, (height, width) in enumerate(sizes):
        place = folder / f"class{i % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=random)
        to_pil_image(image).save(place / f"{i:03}.png")
    return folder


def tiny_config(root: Path, **changes: Any) -> TrainConfig:
    """Twelve steps (three epochs) of a ViT of width 8 on the images in `root`."""
    config = TrainConfig(
        vit=VitConfig(patch_size=14, dim=8, depth=2, heads=2),
        heads=HeadConfig(hidden=16, out=8),
        optim=OptimConfig(base_lr=0.05, warmup_steps=3, schedule="cosine"),
        data=DataConfig(data_root=str(root)),
        augment=AugmentConfig(saturation=0, hue=0, gray_p=0),
        probe=ProbeConfig(knn_queue=1.0, knn_k=5),
        batch_size=BATCH,
        steps=12,
        device="cpu",
        log_every=5,
    )
    return replace(config, **changes)


def tiny_options(root: Path) -> list[str]:
    """The same as options on the command line, on top of the recipe demo."""
    options = (
        "--vit.patch-size 14 --vit.dim 8 --vit.depth 2 --vit.heads 2 --heads.hidden 16 --heads.out 8 "
        "--optim.base-lr 0.05 --optim.warmup-steps 3 --optim.schedule cosine --probe.knn-queue 1 --probe.knn-k 5 "
        f"--batch-size {BATCH} --steps 12 --device cpu --log-every 5"
    )
    return [*options.split(), "--data-root", str(root)]


def same(a: Any, b: Any) -> bool:
    """Whether two states (tensors, numbers, containers) are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
