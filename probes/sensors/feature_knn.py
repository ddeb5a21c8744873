"""The kNN monitor: how often the nearest features of the last iterations name the right class, 0 to 1."""

from __future__ import annotations

__all__ = ["FeatureKNN"]

import math
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional as F
from torch.optim import Optimizer

from ...traces.schema import SCALARS, Series

MAX_BYTES = 64 * 2**20  # of one temporary: at 128,000 queued features 131 queries at a time, by pieces 1,024
HOST_ROWS = 64  # queries at a time on a CPU: their cosines and all that is made of them stay in the cache
GROUP = 4  # cosines of which the largest stands for all, as the nearest are looked for on a CPU
HOST_COLUMNS = 16_384  # features of a long queue at a time on a CPU
HOST_BANK = 8 * 2**20  # bytes of a queue that a CPU reads from its cache again and again; a longer one for many queries
HOST_THREADS = 4  # numpy selects six times as fast as torch does on one thread, and torch shares the rows out
NEVER = -2.0  # below every cosine: what a non-finite feature of the queue is compared as


class FeatureKNN:
    """`knn_accuracy: f32[]` (0..1) of the batch that was fed against a queue of earlier features, and `knn_queries`.

    The approximate monitor of Chen, Xie and He (arXiv 2104.02057, appendix): a queue of the class-token features of the
    last iterations' training images, 10 % of the data set long, so that no extra feature is ever computed. A batch is
    classified **before** it enters the queue: an image never meets itself or its other crop of this step. The vote is
    that of Wu et al. (arXiv 1805.01978): the `k` nearest by cosine, each with weight exp(similarity / temperature).

    - `feed(features, labels)` in the step, as often as a batch has parts; then `observe()` evaluates and queues them.
    - With two crops an image, features are `[2N, D]`, labels `[2N]`, and `images=N`: `knn_queries` counts images, since
      two crops of one image are not two independent trials.
    - NaN until the queue holds `k` features, and in steps where nothing was fed. With `every=E` the queue moves at
      every step and every E-th `observe()` evaluates.
    - A feature that is not finite is a wrong answer as a query, and no neighbour in the queue: divergence reads 0.
    - With DDP and FSDP the queue holds this process's share, unless the loop feeds the features of all.

    No temporary is larger than `max_bytes`, or than one row as long as the queue.

    Raises ValueError for sizes that cannot work. Labels must be in `[0, num_classes)`: that is not checked, because
    looking would mean waiting for the device.

    >>> knn = FeatureKNN(queue_size=8, dim=2, num_classes=2, k=2)
    >>> corners = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> for _ in range(2):
    ...     knn.feed(corners, torch.tensor([0, 0, 1, 1]))
    ...     print(knn.observe()["knn_accuracy"].item())
    nan
    1.0
    """

    series: ClassVar[tuple[Series, ...]] = (SCALARS["knn_accuracy"], SCALARS["knn_queries"])
    cost: ClassVar[str] = "one product of the batch with the queue, and the k nearest of each row, at each evaluation"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(
        self,
        queue_size: int,
        dim: int,
        num_classes: int,
        *,
        k: int = 200,
        temperature: float = 0.07,
        every: int = 1,
        device: torch.device | str | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        for name, value in {"dim": dim, "num_classes": num_classes, "k": k, "every": every}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if queue_size < k:
            raise ValueError(f"queue_size {queue_size} never holds k={k} features: make it at least k")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0 (the paper's is 0.07)")
        self.k, self.temperature, self.every, self.num_classes = k, temperature, every, num_classes
        self.max_bytes = max_bytes
        self._features = torch.zeros(queue_size, dim, device=device)
        self._labels = torch.zeros(queue_size, dtype=torch.int64, device=device)
        # All three are counted on the host from shapes alone, so that no step waits for the device.
        self._next = self._filled = self._observed = 0
        self._fed: list[tuple[Tensor, Tensor, int]] = []

    @classmethod
    def example(cls, model: nn.Module, optimizer: Optimizer) -> Self:
        """A monitor with a filled queue of made-up features on the model's device, and a batch fed."""
        device = next(model.parameters()).device
        sensor = cls(16, 2, 4, k=4, device=device)
        angles = torch.arange(16.0, device=device)
        for _ in range(2):
            sensor.observe()
            sensor.feed(torch.stack([angles.cos(), angles.sin()], 1), torch.arange(16, device=device) % 4)
        return sensor

    @torch.no_grad()
    def feed(self, features: Tensor, labels: Tensor, images: int | None = None) -> None:
        """Hand over this step's features `[N, D]` (any float type, not normalised) and labels `[N]`; both are copied.

        `images` is the number of distinct images among the N, by default N.
        """
        dim = self._features.shape[1]
        if features.ndim != 2 or features.shape[1] != dim or labels.shape != features.shape[:1]:
            raise ValueError(
                f"got features {list(features.shape)} and labels {list(labels.shape)}; allowed are [N, {dim}] and [N]"
            )
        if images is not None and not 0 < images <= len(features):
            raise ValueError(f"images is {images} for {len(features)} features; give 1 to {len(features)}")
        device = self._features.device
        unit = F.normalize(features.detach().to(device, torch.float32, non_blocking=True), dim=1)
        copied = labels.detach().to(device, torch.int64, non_blocking=True, copy=True)
        self._fed.append((unit, copied, len(features) if images is None else images))

    @torch.no_grad()
    def observe(self) -> dict[str, Tensor]:
        """`{"knn_accuracy": f32[], "knn_queries": f32[]}` of what was fed since the last call; then queue it."""
        self._observed += 1
        fed, self._fed = self._fed, []
        unknown = self._features.new_full((), math.nan)
        accuracy = queries = unknown
        if fed and self._filled >= self.k and self._observed % self.every == 0:
            right = torch.stack([self._count_right(features, labels) for features, labels, _ in fed]).sum()
            accuracy = right / sum(len(features) for features, _, _ in fed)
            queries = unknown.new_full((), sum(images for _, _, images in fed))
        for features, labels, _ in fed:
            self._push(features, labels)
        return {"knn_accuracy": accuracy, "knn_queries": queries}

    def _count_right(self, features: Tensor, labels: Tensor) -> Tensor:
        """How many of the queries `[N, D]` the queue classifies as `labels [N]`: f32[]."""
        rows = max(4 * self._filled, 4 * self.num_classes, 8 * self.k)  # bytes: cosines, votes, indices of the nearest
        if _by_numpy(features):
            pieces = -(-self._filled // HOST_COLUMNS)  # of the queue, each with its k nearest
            rows = max(4 * _in_groups(min(self._filled, HOST_COLUMNS)), 4 * self.num_classes, 8 * self.k * pieces)
        rows = max(1, self.max_bytes // rows)
        parts = zip(features.split(rows), labels.split(rows), strict=True)
        return torch.stack([(self._classify(x) == y).sum() for x, y in parts]).sum().float()

    def _classify(self, queries: Tensor) -> Tensor:
        """The class of each query `[n, D]`: i64[n], -1 for a query that is not finite."""
        kind = queries.device.type  # a caller's autocast would round the cosines
        with torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext():
            find = _nearest_by_numpy if _by_numpy(queries) else _nearest
            nearest, index = find(queries, self._features[: self._filled], self.k)
        # Less the largest, which changes no vote's order and can't overflow at a small temperature.
        weights = ((nearest - nearest.amax(1, keepdim=True)) / self.temperature).exp()
        classes = self._labels.index_select(0, index.flatten()).view_as(index)
        votes = weights.new_zeros(len(queries), self.num_classes).scatter_add_(1, classes, weights)
        return votes.argmax(1).where(queries.isfinite().all(1), -1)

    def _push(self, features: Tensor, labels: Tensor) -> None:
        """Write a batch over the oldest entries; of one longer than the queue its last entries stay."""
        size = len(self._features)
        features, labels = features[-size:], labels[-size:]
        head = min(len(features), size - self._next)  # up to the end of the buffer; the rest goes to its start
        for queue, new in ((self._features, features), (self._labels, labels)):
            queue[self._next : self._next + head].copy_(new[:head])
            queue[: len(new) - head].copy_(new[head:])
        self._next = (self._next + len(features)) % size
        self._filled = min(size, self._filled + len(features))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on exactly: tensors, numbers, lists (`weights_only` loads it)."""
        return {
            "settings": self._settings(),
            "features": self._features[: self._filled].clone(),
            "labels": self._labels[: self._filled].clone(),
            "next": self._next,
            "observed": self._observed,
            "fed": [(features.clone(), labels.clone(), images) for features, labels, images in self._fed],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict()`; raises ValueError when it was made with other settings."""
        if state["settings"] != self._settings():
            raise ValueError(
                f"the saved monitor has {state['settings']}, this one {self._settings()}: build it with the same"
            )
        device = self._features.device
        self._filled, self._next, self._observed = len(state["labels"]), state["next"], state["observed"]
        self._features[: self._filled] = state["features"].to(device)
        self._labels[: self._filled] = state["labels"].to(device)
        self._fed = [(x.to(device), y.to(device), images) for x, y, images in state["fed"]]

    def _settings(self) -> dict[str, int | float]:
        queue_size, dim = self._features.shape
        return {
            "queue_size": queue_size,
            "dim": dim,
            "num_classes": self.num_classes,
            "k": self.k,
            "temperature": self.temperature,
            "every": self.every,
        }


def _by_numpy(queries: Tensor) -> bool:
    """Whether numpy selects the nearest: on a CPU and few threads."""
    return queries.device.type == "cpu" and torch.get_num_threads() <= HOST_THREADS


def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each query in any order, and where they stand in the bank: f32[n, k], i64[n, k]."""
    return (queries @ bank.T).nan_to_num_(nan=NEVER).topk(k, dim=1, sorted=False)


def _nearest_by_numpy(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same, a piece of the queries and of the bank at a time."""
    rows = HOST_ROWS if bank.numel() * bank.element_size() <= HOST_BANK else len(queries)
    columns = _in_groups(min(len(bank), HOST_COLUMNS))
    room = torch.empty(min(rows, len(queries)) * columns)  # one for all pieces: fresh memory takes as long as a product
    values, places = [], []
    for chosen in queries.split(rows):
        found = [_largest_of(chosen, part, k, room) for part in bank.split(HOST_COLUMNS)]
        nearest = np.concatenate([value for value, _ in found], 1)
        index = np.concatenate([at + n * HOST_COLUMNS for n, (_, at) in enumerate(found)], 1)
        if len(found) > 1:  # the k largest are among the k largest of each piece
            last = _largest(nearest, k)
            nearest, index = nearest.take(last), index.take(last)
        values.append(nearest)
        places.append(index)
    return torch.from_numpy(np.concatenate(values)), torch.from_numpy(np.concatenate(places))


def _largest_of(queries: Tensor, part: Tensor, k: int, room: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Each query's k largest cosines (all, of a shorter part) and their places in it: f32[n, k], i64[n, k]."""
    n = len(part)
    columns = _in_groups(n)
    table = room[: len(queries) * columns].view(len(queries), columns)
    torch.mm(queries, part.T, out=table[:, :n]).nan_to_num_(nan=NEVER)
    table[:, n:] = -math.inf
    cosines = table.numpy()
    found = [_select(cosines[i : i + HOST_ROWS], min(k, n)) for i in range(0, len(cosines), HOST_ROWS)]
    return np.concatenate([value for value, _ in found]), np.concatenate([at for _, at in found])


def _select(table: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row, and their columns. A row is as long as a multiple of GROUP."""
    rows, n = table.shape
    row = np.arange(rows)[:, None]
    if n < 2 * GROUP * k:
        at = _largest(table, k)
    else:
        # Whatever is not in one of the k groups with the largest maxima has k that are no smaller before it.
        groups = n // GROUP
        best = _largest(table.reshape(rows, GROUP, groups).max(1), k) + row * (n - groups)
        members = (best[:, None] + groups * np.arange(GROUP)[:, None]).reshape(rows, -1)
        at = members.take(_largest(table.take(members), k))
    return table.take(at), at - n * row


def _in_groups(columns: int) -> int:
    """The next multiple of GROUP."""
    return -(-columns // GROUP) * GROUP


def _largest(table: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of each row stand, counted through all rows: i64[n, k].

    numpy's partition is vectorised, torch's selection is not.
    """
    rows, n = table.shape
    bound = np.partition(table, n - k, axis=1)[:, n - k : n - k + 1]
    chosen = table >= bound
    places = np.flatnonzero(chosen)
    if len(places) > rows * k:  # ties with the k-th, of which just as many count as are wanted
        surplus = np.count_nonzero(chosen, axis=1) - k
        some = np.flatnonzero(surplus)
        tied = table[some] == bound[some]
        chosen[some] &= ~tied | (tied.cumsum(1, dtype=np.int32) > surplus[some, None])
        places = np.flatnonzero(chosen)
    return places.reshape(rows, k)
