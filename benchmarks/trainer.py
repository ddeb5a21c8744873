"""Images a second of whole training steps, data included: this trainer, a textbook's step and stable-pretraining's.

All have the same model, batch, images (Fashion-MNIST) and threads, and take turns in one process, so that a change of
the machine's speed meets all; the ratio is the median over the rounds. Each one's peak memory is that of a process of
its own. Also: the model FLOPs of a step, counted by torch, and the share of the machine's own matrix-product rate
(float32, measured in the same run) that they reach.

    OMP_NUM_THREADS=1 python benchmarks/trainer.py --cases laptop vit-ti --rounds 5

stable-pretraining takes part if it is installed (`pip install stable-pretraining`); it is timed without its Lightning
loop, with the textbook's data.
"""

import argparse
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from textbook import TextbookMoCo, loader, momentum_update
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foreshock.trainer.config import AugmentConfig, HeadConfig, OptimConfig, ProbeConfig, TrainConfig, VitConfig
from foreshock.trainer.data import ImageSet, load_dataset
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method
from foreshock.trainer.run import prepare
from foreshock.trainer.vit import vit

Round = Callable[[int], float]
"""Makes so many steps and returns the seconds that they took."""

CASES: dict[str, tuple[VitConfig, HeadConfig, int, int]] = {
    # Sizes, batch size and steps a round. The first is the model of the demo, bound by overhead.
    "laptop": (VitConfig(28, 1, 7, 32, 8, 4), HeadConfig(256, 64), 256, 10),
    "vit-ti": (VitConfig(32, 1, 4, 192, 12, 3), HeadConfig(512, 128), 64, 3),
    "vit-s": (VitConfig(224, 1, 16, 384, 12, 12), HeadConfig(512, 128), 8, 2),
}


def configuration(case: str) -> TrainConfig:
    """The trainer's configuration of a case."""
    backbone, heads, batch, _ = CASES[case]
    return TrainConfig(
        vit=backbone,
        heads=heads,
        optim=OptimConfig(base_lr=1e-3),
        augment=AugmentConfig(saturation=0.0, hue=0.0, gray_p=0.0),
        probe=ProbeConfig(knn_every=0),
        batch_size=batch,
        steps=1,
        device="cpu",
        log_every=100_000,
    )


def ours(config: TrainConfig) -> Round:
    """The trainer through its own loop; building the run is left out, as it is for the others."""

    def steps(count: int) -> float:
        run = prepare(dataclasses.replace(config, steps=count))
        start = time.perf_counter()
        train(run, Console(quiet=True))
        return time.perf_counter() - start

    return steps


def textbook(config: TrainConfig, workers: int) -> Round:
    """The textbook's step."""
    model = TextbookMoCo(config)
    batches = loader(_images().images, config.vit.size, config.batch_size, workers)
    return _plain(model, batches, model.forward, lambda: momentum_update(model, 0.99))


def stable_pretraining(config: TrainConfig, workers: int) -> Round:
    """stable-pretraining's MoCo v3 module around the same ViT, with the textbook's data and loop."""
    from stable_pretraining.methods.mocov3 import MoCov3  # pyright: ignore[reportMissingImports]

    sizes = (config.heads.hidden, config.heads.hidden, config.heads.out)
    model = MoCov3(_Resized(config), sizes, config.heads.hidden)
    model.train()
    batches = loader(_images().images, config.vit.size, config.batch_size, workers)

    def follow() -> None:
        model.backbone.update_teacher()
        model.projector.update_teacher()

    return _plain(model, batches, lambda x1, x2: model(x1, x2).loss, follow)


class _Resized(nn.Module):
    """The ViT, which also takes the RGB image of 224 pixels by which the rival asks for the feature's length."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.backbone, self.size = vit(config.vit), config.vit.size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1:
            x = F.interpolate(x.mean(1, keepdim=True), self.size)
        return self.backbone(x)


def _plain(model: nn.Module, batches: Any, loss_of: Callable[..., Tensor], follow: Callable[[], None]) -> Round:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            x1, x2 = next(batches)
            loss = loss_of(x1, x2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            follow()
            loss.item()  # for the progress bar
        return time.perf_counter() - start

    return steps


def _images() -> ImageSet:
    data = load_dataset(TrainConfig().data, 1)
    assert isinstance(data, ImageSet)
    return data


def rivals(case: str, workers: int) -> dict[str, Callable[[], Round]]:
    """What is timed, by name."""
    config = configuration(case)
    found = {"foreshock": lambda: ours(config)}
    if hasattr(config.scale, "compile"):
        compiled = dataclasses.replace(config, scale=dataclasses.replace(config.scale, compile=True))
        found["foreshock, compiled"] = lambda: ours(compiled)
    found["textbook"] = lambda: textbook(config, workers)
    if find_spec("stable_pretraining"):
        found["stable-pretraining"] = lambda: stable_pretraining(config, workers)
    return found


def model_flops(config: TrainConfig) -> float:
    """Floating-point operations of one step: forward and backward of both views, and the momentum encoder's forward."""
    model = build_method(config)
    x = torch.zeros(config.batch_size, 1, *config.vit.size)
    with FlopCounterMode(display=False) as counter:
        model(x, x, 0.99).loss.backward()
    return counter.get_total_flops()


def matmul_rate(size: int = 1024, repeats: int = 5) -> float:
    """Floating-point operations a second of a float32 matrix product on this machine."""
    a, b = torch.randn(2, size, size)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times[1:])


def compare(case: str, rounds: int, workers: int) -> None:
    """Time all in turns and print a line for each."""
    config = configuration(case)
    batch, count = config.batch_size, CASES[case][3]
    makers = {name: make() for name, make in rivals(case, workers).items()}
    for steps in makers.values():
        steps(1)  # caches, compilation, the optimizer's memory
    times: dict[str, list[float]] = {name: [] for name in makers}
    rates = []
    for number in range(rounds):
        order = list(makers) if number % 2 else list(makers)[::-1]
        for name in order:
            times[name].append(makers[name](count) / count)
        rates.append(matmul_rate())
    flops = model_flops(config)
    print(f"\n{case}: batch {batch}, {flops / batch / 1e9:.3f} GFLOP an image, {torch.get_num_threads()} thread(s)")
    print(f"matrix products: {median(rates) / 1e9:.0f} GFLOP/s (float32, 1024 x 1024)")
    for name, seconds in times.items():
        share = median(flops / s / r for s, r in zip(seconds, rates, strict=True))
        faster = median(t / s for s, t in zip(seconds, times["textbook"], strict=True))
        line = f"{name:20s} {batch / median(seconds):8.1f} images/s  {1e3 * median(seconds):8.1f} ms a step"
        print(f"{line}  {faster:5.2f} x textbook  {share:6.1%} of the rate  {_peak(case, name, workers):6.0f} MB peak")


def _peak(case: str, name: str, workers: int) -> float:
    """Peak memory of a process that makes three steps, in MB."""
    command = [sys.executable, __file__, "--alone", name, "--cases", case, "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["laptop", "vit-ti"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="processes of the textbook's DataLoader")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        rivals(args.cases[0], args.workers)[args.alone]()(3)
        # Not getrusage's, which a child inherits from its parent.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) / 1024)
        return
    for case in args.cases:
        compare(case, args.rounds, args.workers)


if __name__ == "__main__":
    main()
