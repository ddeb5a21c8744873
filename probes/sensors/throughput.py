"""How fast a run goes, in items (images, tokens) a second of the host's clock."""

from __future__ import annotations

__all__ = ["Throughput"]

import math
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...traces.schema import Series
from ._by_layer import Layers

ITEMS_PER_SECOND = Series(
    "items_per_second", ("step",), "float64", "items/s", doc="items (images, tokens) a second, over the last 10 steps"
)


class Throughput:
    """`items_per_second: f64[]`, over the last `window` steps (10), of the items that the loop feeds.

    `feed(n)` in the step, as often as a batch has parts, before `observe()`; without it a step is one item. The host
    runs ahead of an accelerator by its launch queue, which a window evens out. In a data-parallel run feed the items of
    all processes, or multiply. NaN in the first step.

    Raises ValueError for a window below 1 and for negative items.

    Cost: a few microseconds of the host. No host sync.

    >>> times = iter([0.0, 0.5, 1.0])
    >>> sensor = Throughput(clock=lambda: next(times))
    >>> for _ in range(3):
    ...     sensor.feed(64)
    ...     print(sensor.observe()["items_per_second"].item())
    nan
    128.0
    128.0
    """

    series: ClassVar[tuple[Series, ...]] = (ITEMS_PER_SECOND,)
    cost: ClassVar[str] = "a few microseconds of the host a step"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(self, *, window: int = 10, clock: Callable[[], float] = time.perf_counter) -> None:
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1")
        self._clock = clock
        self._past: deque[tuple[float, float]] = deque(maxlen=window + 1)  # time, items of the step that ended then
        self._items = 0.0
        self._fed = False

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor that counts steps until it is fed."""
        return cls()

    def feed(self, items: float) -> None:
        """Add the number of items in this part of the step; ValueError for a negative number."""
        if items < 0:
            raise ValueError(f"items is {items}; it must not be negative")
        self._items += items
        self._fed = True

    def observe(self) -> dict[str, Tensor]:
        """`{"items_per_second": f64[]}` up to now."""
        self._past.append((self._clock(), self._items if self._fed else 1.0))
        self._items = 0.0
        seconds = self._past[-1][0] - self._past[0][0]
        items = sum(count for _, count in list(self._past)[1:])
        return {"items_per_second": torch.tensor(items / seconds if seconds > 0 else math.nan, dtype=torch.float64)}
