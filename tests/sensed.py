"""A small transformer of three kinds of layer, and a training loop that a sensor looks into, for the sensors' tests."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.sensors import layer_parameters, sensor_class

# Ops that make the host wait for the device, or whose result's shape depends on the data.
WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
    "_unique2",
    "repeat_interleave",
    "bincount",
)
LAYERS = ["patch_embed", "blocks.00", "blocks.01", "head"]


class HostSyncs(TorchDispatchMode):
    """Counts the ops in which the host waits for the device; a CPU is enough for that."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        if name in WAITS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Block(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.qkv, self.mlp, self.dropout = nn.Linear(6, 18), nn.Linear(6, 6), dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + F.dropout(self.mlp(x).tanh(), self.dropout, self.training)


class Small(nn.Module):
    """[n, 5, 4] to [n, 2]; a weight of the head is optionally the patch projection's."""

    def __init__(self, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.patch_embed = nn.Linear(4, 6)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(2))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def batch(step: int, n: int = 8) -> torch.Tensor:
    return torch.randn(n, 5, 4, generator=torch.Generator().manual_seed(step))


def adam(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, **options)


def build(name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    """The sensor `name`, measuring at every step."""
    cls = sensor_class(name)
    sensor = cls.attach(model, optimizer, layer_parameters(model)) if hasattr(cls, "attach") else None
    if sensor is None:
        return cls.example(model, optimizer)
    sensor.every = 1
    return sensor


def feed(sensor: Any, features: torch.Tensor) -> None:
    """What a loop hands over to a sensor that wants to be fed."""
    if type(sensor).__name__ == "FeatureKNN":
        sensor.feed(features, torch.zeros(len(features), dtype=torch.int64))
    elif type(sensor).__name__ == "Throughput":
        sensor.feed(len(features))
    elif hasattr(sensor, "feed"):
        sensor.feed(features)


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sensor: Any = None,
    *,
    steps: int = 3,
    parts: int = 1,
    before: Callable[[int], None] = lambda step: None,
    gradients: Callable[[int], None] = lambda step: None,
    clip: float | None = None,
    images: int = 8,
) -> list[dict[str, torch.Tensor]]:
    """Train; what the sensor saw at every step. `gradients` may spoil them after the backward passes."""
    seen = []
    for step in range(steps):
        before(step)
        optimizer.zero_grad()
        for part in batch(step, images).chunk(parts):
            features = model(part)
            (features.square().mean() / parts).backward()
            if sensor is not None:
                feed(sensor, features)
        gradients(step)
        if sensor is not None:
            seen.append(dict(sensor.observe()))
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if hasattr(sensor, "after_step"):
            seen[-1] |= sensor.after_step()
    return seen
