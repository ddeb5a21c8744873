"""What each sensor costs a training step: CPU ms, host syncs and bytes on disk, beside what other loggers take.

A ViT of 12 blocks x 192 (152 tensors, 5.4 M parameters) has gradients and Adam states; in a round every sensor observes
ten steps, one sensor after the other, with the forward pass that the hooks need (and whose own cost is taken off: its
ten passes without hooks are timed in the same round). The figure is the median over the rounds of the CPU ms a step,
at the sensors' own sampling. Lightning's `grad_norm`, wandb (offline) and TensorBoard take part where they are
installed, with 152 norms each a step. Syncs are `aten::_local_scalar_dense` and the like under a dispatch mode.

    OMP_NUM_THREADS=1 python benchmarks/sensors_overhead.py --rounds 7
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.sensors import attach, layer_parameters, sensor_names
from foreshock.probes.sensors.feature_knn import FeatureKNN

STEPS = 50  # one period of the rarest sampling
WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")


class Syncs(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().removeprefix("aten::").split(".")[0] in WAITS
        return func(*args, **(kwargs or {}))


class Subject:
    """A model in the middle of its training."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.images = torch.randn(batch, 3, 64, 64)
        for _ in range(2):
            self.optimizer.zero_grad()
            self.model(self.images).square().mean().backward()
            self.optimizer.step()
        self.features = self.model(self.images).detach()


def ours(subject: Subject) -> dict[str, Any]:
    names = [name for name in sensor_names() if name != "feature_knn"]
    sensors = attach(names, subject.model, subject.optimizer, layer_parameters(subject.model))
    knn = FeatureKNN(6000, 192, 10, k=200)
    knn.feed(torch.randn(6000, 192), torch.randint(10, (6000,)))
    knn.observe()
    return sensors | {"feature_knn": knn}


def step_of(sensor: Any, subject: Subject, labels: torch.Tensor) -> Callable[[], None]:
    """What a step calls: feed, observe, after_step."""
    name = type(sensor).__name__
    more = {"FeatureKNN": (subject.features, labels), "Collapse": (subject.features,), "Throughput": (64,)}.get(name)

    def step() -> None:
        if more is not None:
            sensor.feed(*more)
        sensor.observe()
        getattr(sensor, "after_step", dict)()

    return step


def theirs(subject: Subject, folder: Path) -> dict[str, Callable[[], None]]:
    """The same norms by other means, as their users call them."""
    named = list(subject.model.named_parameters())
    ways: dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("lightning"):
        from lightning.pytorch.utilities import grad_norm

        ways["lightning grad_norm"] = lambda: {k: v.item() for k, v in grad_norm(subject.model, 2).items()} and None
    if importlib.util.find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        board, at = SummaryWriter(str(folder / "board")), iter(range(10**9))

        def to_board() -> None:
            step = next(at)
            norms = torch.stack(torch._foreach_norm([p.grad for _, p in named])).tolist()
            for (name, _), value in zip(named, norms, strict=True):
                board.add_scalar(name, value, step)

        ways["tensorboard, 152 scalars"] = to_board
    if importlib.util.find_spec("wandb"):
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        run = wandb.init(mode="offline", dir=str(folder))

        def to_wandb() -> None:
            norms = torch.stack(torch._foreach_norm([p.grad for _, p in named])).tolist()
            run.log({name: value for (name, _), value in zip(named, norms, strict=True)})

        ways["wandb.log offline, 152 scalars"] = to_wandb
    return ways


def timed(way: Callable[[], None], steps: int, forward: Callable[[], Any] | None = None) -> float:
    start = time.process_time()
    for _ in range(steps):
        if forward is not None:
            forward()
        way()
    return 1e3 * (time.process_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    subject = Subject(options.batch)
    labels = torch.randint(10, (options.batch,))
    with tempfile.TemporaryDirectory() as name:
        sensors = ours(subject)
        steps = {key: step_of(sensor, subject, labels) for key, sensor in sensors.items()}
        ways = steps | theirs(subject, Path(name))
        hooked = ("activation", "attention")
        for key in hooked:
            sensors[key].close()  # until its turn
        measured: dict[str, list[float]] = {key: [] for key in ways}
        syncs: dict[str, int] = {}
        for _ in range(options.rounds + 1):
            for key, way in ways.items():
                if key in hooked:
                    measured[key].append(hooked_cost(key, subject))
                else:
                    measured[key].append(timed(way, STEPS))
                if key not in syncs:
                    with Syncs() as mode:
                        way()
                    syncs[key] = mode.count
    tensors = sum(1 for _ in subject.model.parameters())
    print(
        f"ViT 12 x 192, {tensors} tensors, batch {options.batch}, {torch.get_num_threads()} thread(s), "
        f"{options.rounds} rounds of {STEPS} steps"
    )
    layers = len(layer_parameters(subject.model))
    for key, values in measured.items():
        sensor = sensors.get(key)
        numbers = sum(layers if s.per_layer else 1 for s in sensor.series) if sensor else tensors
        print(f"{key:32} {median(values[1:]):8.3f} CPU ms a step   {syncs[key]:4d} syncs   {numbers:4d} values")
    print(f"{'all sensors':32} {sum(median(measured[key][1:]) for key in sensors):8.3f} CPU ms a step")


def hooked_cost(name: str, subject: Subject) -> float:
    """What a sensor with hooks adds to forward and observe, at its own sampling: ms a step."""
    forward = lambda: subject.model(subject.images)  # noqa: E731
    samples = {"activation": 10, "attention": 50}[name]
    plain = min(timed(lambda: None, 3, forward) for _ in range(2))
    layers: Any = layer_parameters(subject.model)
    sensor = attach([name], subject.model, subject.optimizer, layers)[name]
    sensor.every = 1
    sampled = min(timed(lambda: sensor.observe() and None, 3, forward) for _ in range(2))
    sensor.every, sensor.observed = 10**9, 1
    between = timed(lambda: sensor.observe() and None, 20)
    sensor.close()
    return max(0.0, sampled - plain) / samples + between


if __name__ == "__main__":
    main()
