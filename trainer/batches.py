"""The stream of batches: which images a step sees, and their two views on the training device.

A step's images and views follow from the seed and the step's number alone. So a run that is resumed in mid-epoch needs
no state of a sampler, and the number of decoding processes changes nothing. Of several training processes each takes
its own part of that one batch, in the order of their ranks.
"""

__all__ = ["Batch", "batches", "generator", "step_indices", "steps_per_epoch"]

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augment import two_views
from .config import TrainConfig
from .data import DataError, ImageSet
from .distributed import Processes
from .folder import ImageFolder
from .reference import apply_one
from .views import draw

ALONE = Processes()
Job = tuple[int, int]
"""Number of a crop pair in the whole run (step x batch size + place in the batch), index of its image."""


@dataclass(frozen=True)
class Batch:
    """What one step sees in this process."""

    x1: Tensor
    """f32[N, C, H, W] (f64 in a run in float64), first views; `x2` the second ones of the same images."""
    x2: Tensor
    labels: Tensor | None
    """i64[N]"""


def batches(
    data: ImageSet | ImageFolder,
    config: TrainConfig,
    device: torch.device,
    start: int,
    stop: int,
    processes: Processes = ALONE,
) -> Iterator[Batch]:
    """Yield the `Batch` of each step from `start` up to, but not, `stop`: of several processes, this one's part.

    Raises DataError if the images are fewer than a batch, or one of them cannot be decoded, and DistributedError if a
    batch cannot be divided among the processes.
    """
    steps_per_epoch(len(data), config.batch_size)
    processes.share(config.batch_size, "batch_size")
    if isinstance(data, ImageSet):
        stream = _from_memory(data, config, device, range(start, stop), processes)
    else:
        stream = _from_files(data, config, device, range(start, stop), processes)
    return (Batch(b.x1.double(), b.x2.double(), b.labels) for b in stream) if config.amp == "float64" else stream


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Full batches in a pass over the data; the rest of the images sit that pass out.

    >>> steps_per_epoch(60_000, 256)
    234
    """
    if images < batch_size:
        raise DataError(f"{images} images are fewer than a batch of {batch_size}: choose a smaller batch_size.")
    return images // batch_size


def step_indices(step: int, images: int, config: TrainConfig) -> Tensor:
    """Indices i64[batch_size] of the images that `step` sees: its part of its epoch's random order.

    >>> step_indices(1, 10, TrainConfig(batch_size=5)).tolist()
    [7, 0, 2, 9, 4]
    """
    epoch, place = divmod(step, steps_per_epoch(images, config.batch_size))
    order = _epoch_order(images, config.seed, epoch)
    return order[place * config.batch_size : (place + 1) * config.batch_size]


def generator(*key: int) -> torch.Generator:
    """A random generator that belongs to `key` (seed, purpose, number), independent of those of other keys."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=2)
def _epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(images, generator=generator(seed, 0, epoch))


def _own(index: Tensor, processes: Processes) -> tuple[int, Tensor]:
    """Where this process's part of a batch begins, and the part."""
    part = index.chunk(processes.count)[processes.rank]
    return processes.rank * len(part), part


def _from_memory(
    data: ImageSet, config: TrainConfig, device: torch.device, steps: range, processes: Processes
) -> Iterator[Batch]:
    images = data.images.to(device)
    labels = None if data.labels is None else data.labels.to(device)
    part = processes.rank, processes.count
    for step in steps:
        _, index = _own(step_indices(step, len(data), config), processes)
        index = (index.pin_memory() if device.type == "cuda" else index).to(device, non_blocking=True)
        random = generator(config.seed, 1, step)
        x1, x2 = two_views(images[index], config.network.size, config.augment, random, data.mean, data.std, part)
        yield Batch(x1, x2, None if labels is None else labels[index])


def _from_files(
    data: ImageFolder, config: TrainConfig, device: torch.device, steps: range, processes: Processes
) -> Iterator[Batch]:
    loader = DataLoader(
        _Pairs(data, config),
        batch_sampler=_Jobs(len(data), config, steps, processes),
        num_workers=config.data.workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupt,
        # Without its own generator the loader would draw from the global one, and a resumed run would differ.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, str):
            raise DataError(batch)
        x1, x2, labels = batch
        labels = None if labels is None else labels.to(device, non_blocking=True)
        yield Batch(x1.to(device, non_blocking=True), x2.to(device, non_blocking=True), labels)


class _Jobs(Sampler[list[Job]]):
    def __init__(self, images: int, config: TrainConfig, steps: range, processes: Processes) -> None:
        self.images, self.config, self.steps, self.processes = images, config, steps, processes

    def __iter__(self) -> Iterator[list[Job]]:
        for step in self.steps:
            place, index = _own(step_indices(step, self.images, self.config), self.processes)
            yield list(enumerate(index.tolist(), step * self.config.batch_size + place))


class _Pairs(Dataset):
    """Decoded, augmented and normalised pairs of views; an error's text in place of a pair that failed."""

    def __init__(self, data: ImageFolder, config: TrainConfig) -> None:
        self.data, self.config = data, config
        self.mean = torch.tensor(data.mean).view(-1, 1, 1)
        self.std = torch.tensor(data.std).view(-1, 1, 1)

    def __getitem__(self, job: Job) -> tuple[Tensor, Tensor, int] | str:
        number, i = job
        augment, size = self.config.augment, self.config.network.size
        try:
            image = self.data.decode(i)
        except DataError as error:
            # Raised here, it would reach the training process as a traceback of the decoding one.
            return str(error)
        height, width = image.shape[-2:]
        views = draw(1, height, width, augment, generator(self.config.seed, 1, number))
        pair = [apply_one(image, views, v, size, augment.blur_sigma[1]) for v in (0, 1)]
        x1, x2 = ((x - self.mean) / self.std for x in pair)
        return x1, x2, -1 if self.data.labels is None else int(self.data.labels[i])


def _collate(pairs: list[tuple[Tensor, Tensor, int] | str]) -> tuple[Tensor, Tensor, Tensor | None] | str:
    for pair in pairs:
        if isinstance(pair, str):
            return pair
    x1, x2, labels = zip(*pairs, strict=True)
    return torch.stack(x1), torch.stack(x2), None if labels[0] < 0 else torch.tensor(labels)


def _ignore_interrupt(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; only the training loop should act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
