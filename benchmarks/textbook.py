"""MoCo v3 as a textbook writes it from timm and torchvision parts: the slow twin that `benchmarks/trainer.py` times.

PIL transforms in a `DataLoader`, one forward pass a view, a loop over the parameters for the momentum encoder, AdamW
without options. It computes what the trainer computes (arXiv 2104.02057, Alg. 1).
"""

__all__ = ["TextbookMoCo", "loader", "momentum_update", "views"]

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from foreshock.trainer.config import TrainConfig


def views(size: tuple[int, int], blur_p: float, solarize_p: float) -> v2.Compose:
    """The paper's augmentation of one view, on a PIL image."""
    blur = v2.GaussianBlur(kernel_size=max(3, size[0] // 10 // 2 * 2 + 1), sigma=(0.1, 2.0))
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.08, 1.0)),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4)], p=0.8),  # the images are gray
            v2.RandomApply([blur], p=blur_p),
            v2.RandomSolarize(128, solarize_p),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [0.25]),
        ]
    )


class _TwoViews(Dataset):
    def __init__(self, images: Tensor, size: tuple[int, int]) -> None:
        self.images = images
        self.first, self.second = views(size, 1.0, 0.0), views(size, 0.1, 0.2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = v2.functional.to_pil_image(self.images[index])
        return self.first(image), self.second(image)


def loader(images: Tensor, size: tuple[int, int], batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of two views of `images`: u8[N, 1, H, W], without end; each view f32[batch_size, 1, *size]."""
    batches = DataLoader(
        _TwoViews(images, size),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from batches


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b, bias=False))
        last = i == len(widths) - 2
        layers += [nn.BatchNorm1d(b, affine=False)] if last else [nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers)


class TextbookMoCo(nn.Module):
    """Query encoder, momentum encoder and predictor of the sizes in `config`."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        vit, heads = config.vit, config.heads
        backbone = VisionTransformer(
            img_size=vit.size,
            patch_size=vit.patch_size,
            in_chans=vit.in_chans,
            embed_dim=vit.dim,
            depth=vit.depth,
            num_heads=vit.heads,
            num_classes=0,
        )
        self.encoder = nn.Sequential(backbone, _mlp(vit.dim, heads.hidden, heads.hidden, heads.out))
        self.momentum_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.predictor = _mlp(heads.out, heads.hidden, heads.out)
        self.temperature = config.method.temperature

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The symmetrised loss of two views `[N, 1, H, W]`."""
        q1, q2 = self.predictor(self.encoder(x1)), self.predictor(self.encoder(x2))
        with torch.no_grad():
            k1, k2 = self.momentum_encoder(x1), self.momentum_encoder(x2)
        return self._contrast(q1, k2) + self._contrast(q2, k1)

    def _contrast(self, q: Tensor, k: Tensor) -> Tensor:
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / self.temperature
        return 2 * self.temperature * F.cross_entropy(logits, torch.arange(len(q)))


@torch.no_grad()
def momentum_update(model: TextbookMoCo, m: float) -> None:
    """One update of the momentum encoder, a parameter at a time."""
    for slow, fast in zip(model.momentum_encoder.parameters(), model.encoder.parameters(), strict=True):
        slow.data = slow.data * m + fast.data * (1 - m)
