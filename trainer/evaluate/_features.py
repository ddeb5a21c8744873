"""Features f32[N, D] of all images of a part, by a frozen backbone in evaluation mode."""

__all__ = ["extract"]

import sys
from collections.abc import Iterable, Iterator

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from ..checkpoint import CheckpointError


@torch.no_grad()
def extract(backbone: nn.Module, batches: Iterable[Tensor], images: int, dim: int, title: str = "features") -> Tensor:
    """Features f32[images, dim] of `batches` f32[n, C, H, W] in their order, on their device.

    On a terminal a bar with `title` shows how far it is.

    Raises CheckpointError if one is not finite: the run that left the checkpoint had diverged.

    >>> extract(nn.Flatten(), [torch.ones(2, 1, 2, 2), torch.zeros(1, 1, 2, 2)], 3, 4).sum().item()
    8.0
    """
    features = torch.empty(0)
    row = 0
    for batch in _shown(batches, images, title):
        found = backbone(batch).float()
        if row == 0:
            features = found.new_empty(images, dim)
        features[row : row + len(found)] = found
        row += len(found)
    assert row == images
    if not features.isfinite().all():
        raise CheckpointError("its features are not finite: the run had diverged; evaluate an earlier checkpoint.")
    return features


def _shown(batches: Iterable[Tensor], images: int, title: str) -> Iterator[Tensor]:
    """The batches, their progress on standard error."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=images)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch))
