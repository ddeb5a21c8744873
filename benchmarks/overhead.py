"""What recording costs a training step: ms with and without side by side, host syncs, and bytes on disk a step.

A ViT of 12 blocks x 192 is trained on made-up images. Steps with and without the GradNorm sensor and its recorder
alternate, the first of a pair in turn, so that a change of the machine's speed meets both; the cost is the median of
the differences of the pairs, in wall time and in CPU time of the whole process (the writer's thread included), which
other programs on the machine disturb less. `--knn` adds the kNN monitor.

    python benchmarks/overhead.py --image-size 224 --batch 64 --pairs 20
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.recorder import Recorder
from foreshock.probes.sensors import series_of
from foreshock.probes.sensors.feature_knn import FeatureKNN
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import TraceWriter


class Ops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name().removeprefix("aten::").split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


class Training:
    """One model, and the two kinds of step."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        torch.manual_seed(0)
        self.device = torch.device(options.device)
        size, patch, batch = options.image_size, options.patch_size, options.batch
        shape = {"img_size": size, "patch_size": patch, "embed_dim": 192, "depth": 12, "num_heads": 3}
        self.model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **shape).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.images = torch.randn(batch, 3, size, size, device=self.device)
        self.labels = torch.randint(10, (batch,), device=self.device)
        self.norms = GradNorm(self.model)
        knn = FeatureKNN(options.queue, 192, 10, k=min(200, options.queue), every=options.knn_every, device=self.device)
        self.knn = knn if options.knn else None
        sensors = [self.norms, *([knn] if options.knn else [])]
        self.writer = TraceWriter(folder / "run", layers=self.norms.layers, series=series_of(sensors))
        self.recorder = Recorder(self.writer, sensors)
        self.steps = 0

    def step(self, recorded: bool) -> tuple[float, float]:
        """Seconds that the step took, the device's work included: of the wall clock, and of CPU time."""
        self.wait()
        start, cpu = time.perf_counter(), time.process_time()
        features = self.model(self.images)
        loss = features.square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        if recorded:
            if self.knn is not None:
                self.knn.feed(features, self.labels)
            self.recorder.observe(self.steps, loss=loss, lr=1e-4)
            self.steps += 1
        self.optimizer.step()
        self.wait()
        return time.perf_counter() - start, time.process_time() - cpu

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--knn", action="store_true", help="the kNN monitor too")
    parser.add_argument("--knn-every", type=int, default=10)
    parser.add_argument("--queue", type=int, default=6000)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        training = Training(options, Path(name))
        for _ in range(3):
            training.step(recorded=True)
        training.recorder.seconds = 0.0
        first = training.steps
        pairs = []
        for pair in range(options.pairs):
            order = (True, False) if pair % 2 else (False, True)
            times = {recorded: training.step(recorded) for recorded in order}
            pairs.append((times[False], times[True]))
        inside = training.recorder.seconds / (training.steps - first)
        features = training.model(training.images).detach()
        with Ops() as ops:
            if training.knn is not None:
                training.knn.feed(features, training.labels)
            training.recorder.observe(training.steps, loss=torch.ones((), device=options.device), lr=1e-4)
        norms = []  # the sensor alone, back to back
        for _ in range(50):
            training.wait()
            start = time.perf_counter()
            training.norms.observe()
            training.wait()
            norms.append(time.perf_counter() - start)
        training.recorder.close()
        rows, size = bytes_a_step(Path(name) / "long", training.norms.layers)
    report(options, training, pairs, inside, norms, ops.counts, rows, size)


def bytes_a_step(path: Path, layers: tuple[str, ...], rows: int = 8192) -> tuple[int, float]:
    """Of a long trace with noisy norms, overview included: a short one is mostly its metadata."""
    noise = torch.Generator().manual_seed(0)
    norms = (0.2 * torch.randn(len(layers), rows, generator=noise)).exp().numpy()
    scalars = torch.randn(5, rows, generator=noise, dtype=torch.float64).numpy()
    with TraceWriter(path, layers=layers) as writer:
        for start in range(0, rows, 64):
            part = slice(start, start + 64)
            names = ("loss", "lr", "wall_time", "step_time", "grad_norm_total")
            block = {"grad_norm": norms[:, part]} | {n: s[part] for n, s in zip(names, scalars, strict=True)}
            writer.extend(torch.arange(start, start + 64).numpy(), block)
    return rows, sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / rows


def report(options, training, pairs, inside, norms, counts, rows, size) -> None:
    plain, plain_cpu = (median(without[clock] for without, _ in pairs) for clock in (0, 1))
    cost, cost_cpu = (median(with_[clock] - without[clock] for without, with_ in pairs) for clock in (0, 1))
    tensors = sum(1 for _ in training.model.parameters())
    syncs = sum(counts[name] for name in ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"))
    print(
        f"ViT 12 x 192, {tensors} tensors, {len(training.norms.layers)} layers, {options.image_size} px, "
        f"batch {options.batch}, {options.device}, {options.threads} thread(s), {len(pairs)} pairs"
    )
    print(f"step without recording      {1e3 * plain:9.2f} ms (median)")
    print(f"recording, of the pairs     {1e3 * cost:9.2f} ms ({100 * cost / plain:+.2f} %)")
    print(f"recording, in CPU time      {1e3 * cost_cpu:9.2f} ms ({100 * cost_cpu / plain_cpu:+.2f} %)")
    print(f"recording, clocked inside   {1e3 * inside:9.2f} ms ({100 * inside / plain:.2f} %)")
    print(f"GradNorm alone, warm        {1e3 * median(norms):9.2f} ms")
    print(f"ops a step                  {sum(counts.values()):6d}, host syncs {syncs}")
    print(f"bytes a step on disk        {size:9.1f}    (of {rows} rows, overview included)")


if __name__ == "__main__":
    main()
