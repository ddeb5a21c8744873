"""What recording costs a training step: CPU ms, host syncs and bytes of each sensor and of all, beside other loggers.

A ViT of 12 blocks x 192 (152 tensors, 5.4 M parameters) is trained on made-up images, batch 64, 64 pixels: 17 tokens an
image, so a short step, which makes the shares large. In a round every way of recording has its turn in a step of its
own, the first of a round another one each time; the figure is the median over the rounds of the CPU time that its call
takes. A sensor that samples is called as on a sampled step, and its cost divided by its `every`. What hooks do in
forward and backward is the difference to the steps of the same round without hooks. "Elsewhere" is the CPU time of
other threads and of child processes (a writer's thread, wandb's service), from a burst of steps and its end. Syncs are
counted as `aten::_local_scalar_dense` and the like under a dispatch mode, with those that it can't see on a CPU added
from reading the code. Bytes are those that a longer run adds.

The last row is not the sum of the others: all sensors are in one recorder, each at its own sampling, over `--periods`
times 50 steps, and look at the tensors together. It is the mean over the 50 steps of the median of the periods, with
the writer's thread and with what the hooks of activation and attention take in the forward pass.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py

Other loggers take part where they are installed (`pip install 'foreshock[bench]'`); the others are named.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import timm
import torch
from overhead_peers import PEERS, Way
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.recorder import Recorder
from foreshock.probes.sensors import attach, layer_parameters, sensor_names, series_of
from foreshock.probes.sensors.feature_knn import FeatureKNN
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import TraceWriter
from foreshock.traces.schema import Series

WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal")
QUEUE = 6000
PERIOD = 50  # steps after which the sensors' samplings are the same again
RECORDED = "grad_norm, recorded"
ROWS = 8192  # of the runs whose bytes are counted


class Syncs(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name().removeprefix("aten::").split(".")[0] in WAITS
        return func(*args, **(kwargs or {}))


class Training:
    """A model in the middle of its training; `step` lets one way of recording have its turn."""

    def __init__(self, size: int, batch: int) -> None:
        torch.manual_seed(0)
        self.model = timm.create_model("vit_tiny_patch16_224", img_size=size, num_classes=10)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.size, self.batch = size, batch
        self.labels = torch.randint(10, (batch,))
        self.features = torch.zeros(batch, 192)

    def step(self, way: Way | None, syncs: Syncs | None = None) -> tuple[float, float, float]:
        """CPU ms of this thread in forward and backward, in the way's call, and in the optimizer.

        Syncs are counted up to there: the optimizer has some of its own.
        """
        images = torch.randn(self.batch, 3, self.size, self.size)
        marks = [time.thread_time()]
        with syncs or nullcontext():
            model: Any = self.model
            features = model.forward_head(model.forward_features(images), pre_logits=True)
            loss = F.cross_entropy(model.head(features), self.labels)
            self.features = features.detach()
            loss.backward()
            marks.append(time.thread_time())
            if way is not None:
                way.call(loss)
            marks.append(time.thread_time())
        self.optimizer.step()
        self.optimizer.zero_grad()
        marks.append(time.thread_time())
        before, call, after = (1e3 * (b - a) for a, b in pairwise(marks))
        return before, call, after


def ours(training: Training, folder: Path) -> dict[str, tuple[Way, Any]]:
    """Each sensor with its call, `grad_norm` a tensor, and `grad_norm` recorded: sensor, ring, writer's thread."""
    model, layers = training.model, layer_parameters(training.model)
    sensors, ways = every_sensor(training), {}
    for name, sensor in sensors.items():
        numbers = sum(len(layers) if series.per_layer else 1 for series in sensor.series)
        way = Way(name, call_of(sensor, training), numbers, inside=hasattr(sensor, "close"))
        if way.inside:  # its hooks are there in its turn only
            sensor.close()
            way.begin, way.call, way.end = hooked(name, training, sensors)
        ways[name] = (way, sensor)
    by_tensor = GradNorm({name: [(name, p)] for name, p in model.named_parameters()})
    ways["grad_norm, a value a tensor"] = (Way("", lambda _: by_tensor.observe(), len(by_tensor.layers) + 1), by_tensor)
    kept = GradNorm(model)
    recorder = Recorder(TraceWriter(folder / "run", layers=kept.layers, series=series_of([kept])), [kept])
    way = Way("", lambda loss: recorder.observe(recorder.rows, loss=loss, lr=1e-4), len(kept.layers) + 5)
    way.close = recorder.close
    ways[RECORDED] = (way, kept)
    return ways


def every_sensor(training: Training) -> dict[str, Any]:
    names = [name for name in sensor_names() if name != "feature_knn"]
    sensors: dict[str, Any] = attach(names, training.model, training.optimizer, layer_parameters(training.model))
    sensors["feature_knn"] = FeatureKNN(QUEUE, 192, 10, k=200)
    sensors["feature_knn"].feed(torch.randn(QUEUE, 192), torch.randint(10, (QUEUE,)))
    sensors["feature_knn"].observe()
    return sensors


def feed(sensor: Any, training: Training) -> None:
    if hasattr(sensor, "feed"):
        features, labels = training.features, training.labels
        given = {"FeatureKNN": (features, labels), "Throughput": (training.batch,)}
        sensor.feed(*given.get(type(sensor).__name__, (features,)))


def together(training: Training, folder: Path, periods: int) -> tuple[float, float]:
    """CPU ms a step that all sensors in one recorder take, and those of its writer's thread."""
    sensors, late = every_sensor(training), [0.0]
    series, layers = series_of(sensors.values()), sensors["grad_norm"].layers
    recorder = Recorder(TraceWriter(folder / "together", layers=layers, series=series), list(sensors.values()))

    def call(loss: Tensor) -> None:
        for sensor in sensors.values():
            feed(sensor, training)
        recorder.observe(recorder.rows, loss=loss, lr=1e-4)

    def after(*_: Any) -> None:
        start = time.thread_time()
        recorder.after_step()
        late[0] = 1e3 * (time.thread_time() - start)

    hook = training.optimizer.register_step_post_hook(after)
    way, costs = Way("", call, None), []
    before, here = time.process_time(), time.thread_time()
    for _ in range(PERIOD * periods):
        costs.append(training.step(way)[1] + late[0])
    recorder.close()
    hook.remove()
    elsewhere = 1e3 * (time.process_time() - before - (time.thread_time() - here)) / len(costs)
    return mean(median(costs[i::PERIOD]) for i in range(PERIOD)), elsewhere


def call_of(sensor: Any, training: Training) -> Callable[[Tensor], Any]:
    def call(_: Tensor) -> None:
        feed(sensor, training)
        sensor.observe()
        if hasattr(sensor, "after_step"):
            sensor.after_step()

    return call


def hooked(name: str, training: Training, sensors: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Attach, call and detach a sensor with hooks; it samples in its turn."""

    def begin() -> None:
        made: Any = attach([name], training.model, training.optimizer, layer_parameters(training.model))[name]
        made.every = 1
        sensors[name] = made

    return begin, lambda _: sensors[name].observe(), lambda: sensors[name].close()


def theirs(training: Training, folder: Path, make: Callable[..., Iterable[Way]]) -> list[Way]:
    folder.mkdir(parents=True)
    try:
        return list(make(training.model, training.optimizer, folder))
    except ModuleNotFoundError as error:
        print(f"{make.__name__}: {error.name} is not installed, so it is left out")
        return []


def cpu_everywhere() -> float:
    """CPU seconds of this process and of its children."""
    own = time.process_time()
    try:
        import psutil
    except ModuleNotFoundError:
        return own
    children = psutil.Process().children(recursive=True)
    return own + sum(sum(child.cpu_times()[:2]) for child in children)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def burst(way: Way, training: Training, steps: int) -> float:
    """CPU ms a step that a way takes outside of this thread, until it is closed."""
    before, here = cpu_everywhere(), time.thread_time()
    way.begin()
    for _ in range(steps):
        training.step(way)
    way.end()
    way.close()
    return max(0.0, 1e3 * (cpu_everywhere() - before - (time.thread_time() - here)) / steps)


def peer_bursts(make: Any, small: Training, folder: Path) -> tuple[float, float]:
    """CPU ms elsewhere a step, and bytes a step: of a long burst less those of a short one (steps 8 to 40)."""
    sizes, elsewhere = [], 0.0
    for steps in (8, 40):
        part = folder / f"{steps}"
        way = theirs(small, part, make)[0]
        elsewhere = burst(way, small, steps)
        sizes.append(size_of(part))
    return elsewhere, (sizes[1] - sizes[0]) / 32


def bytes_a_step(folder: Path, series: tuple[Series, ...], layers: tuple[str, ...], every: int) -> float:
    """Of a long trace with noisy values, overviews included, less one without the series."""
    rng = torch.Generator().manual_seed(0)
    steps, sizes = torch.arange(ROWS).numpy(), []
    for kept in ((), series):
        path = folder / f"{len(kept)}"
        with TraceWriter(path, layers=layers, series=kept) as writer:
            values = {"loss": torch.randn(ROWS, generator=rng, dtype=torch.float64).numpy()}
            for one in kept:
                shape = (len(layers), ROWS) if one.per_layer else (ROWS,)
                table = (0.2 * torch.randn(shape, generator=rng)).exp()
                table[..., torch.arange(ROWS) % every != 0] = torch.nan
                values[one.name] = table.numpy()
            writer.extend(steps, values)
        sizes.append(size_of(path))
    return (sizes[1] - sizes[0]) / ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--periods", type=int, default=3, help="of 50 steps, for the last row")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    large = Training(224, 64)
    at_224 = min(sum(large.step(None)) for _ in range(2))
    del large
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training, small = Training(options.image_size, options.batch), Training(options.image_size, 2)
        measure(training, small, folder, options.rounds, options.periods, at_224)


def measure(training: Training, small: Training, folder: Path, rounds: int, periods: int, at_224: float) -> None:
    training.step(None)
    sensors = ours(training, folder)
    ways = {key: way for key, (way, _) in sensors.items()}
    makers = {}
    for make in PEERS:
        for kind, way in enumerate(theirs(training, folder / make.__name__, make)):
            key = f"{way.name}#{kind}" if kind else way.name
            ways[key], makers[key] = way, make
    every = {key: getattr(sensor, "every", 1) for key, (_, sensor) in sensors.items()}
    for way, sensor in sensors.values():
        if hasattr(sensor, "every") and not way.inside:
            sensor.every = 1
    cost, syncs, plain = turns(training, ways, rounds)
    step, cheaper = median(plain), at_224 / median(plain)
    for key in makers:
        ways[key].close()
    tensors, layers = sum(1 for _ in training.model.parameters()), layer_parameters(training.model)
    print(f"ViT 12 x 192, {tensors} tensors, {len(layers)} layers, one thread, {rounds} rounds")
    print(
        f"A step without recording: {step:.0f} CPU ms at batch {training.batch} and {training.size} pixels (the shares"
    )
    print(f"are of it), {at_224:.0f} at batch 64 and 224 pixels: there a share is {cheaper:.0f} times smaller.\n")
    print("| way | CPU ms a step | of it elsewhere | % of the step | syncs | values | bytes a step |\n|" + "---|" * 7)
    spent, size = {}, {}
    for key, way in ways.items():
        if "#" in key:
            continue
        elsewhere = 0.0
        if key in makers:
            elsewhere, size[key] = peer_bursts(makers[key], small, folder / f"burst-{makers[key].__name__}")
            kinds = [other for other in ways if other.partition("#")[0] == key]
            spent[key] = sum(ways[kind].share * cost[kind] for kind in kinds) + elsewhere
            syncs[key] = way.waits + round(sum(ways[kind].share * syncs[kind] for kind in kinds))
        else:
            sensor = sensors[key][1]
            names = tuple(getattr(sensor, "layers", ())) or ("model",)
            size[key] = bytes_a_step(folder / f"bytes-{len(size)}", tuple(sensor.series), names, every[key])
            elsewhere = burst(way, small, 200) if key == RECORDED else 0.0
            spent[key] = cost[key] / every[key] + elsewhere
        label = f"{key}, every {every[key]}" if every.get(key, 1) > 1 else key
        values = "histograms" if way.values is None else way.values
        line(label, spent[key], elsewhere, step, syncs[key], values, size[key] if size[key] > 0 else None)
    whole, elsewhere = together(training, folder, periods)
    whole += elsewhere + sum(spent[key] for key in sensor_names() if ways[key].inside)
    waits, bytes_ = sum(syncs[key] for key in sensor_names()), sum(size[key] for key in sensor_names())
    line(
        "all sensors, recorded",
        whole,
        elsewhere,
        step,
        waits,
        sum(ways[key].values or 0 for key in sensor_names()),
        bytes_,
    )


def line(label: str, spent: float, elsewhere: float, step: float, syncs: int, values: Any, size: float | None) -> None:
    share, told = 100 * spent / step, "–" if size is None else f"{size:,.0f}"
    print(f"| {label} | {spent:.2f} | {elsewhere:.2f} | {share:.2f} | {syncs} | {values} | {told} |", flush=True)


def turns(
    training: Training, ways: dict[str, Way], rounds: int
) -> tuple[dict[str, float], dict[str, int], list[float]]:
    """Median CPU ms of each way's turn, its syncs, and the CPU ms of whole steps without recording."""
    costs: dict[str, list[float]] = {key: [] for key in ways}
    syncs, plain = {}, []
    for round_ in range(rounds + 1):
        keys = list(ways)
        keys = keys[round_ % len(keys) :] + keys[: round_ % len(keys)]
        forward = []
        inside = {}
        for key in keys:
            way = ways[key]
            way.begin()
            if not round_:  # the first round warms up, and counts
                mode = Syncs()
                training.step(way, mode)
                syncs[key] = mode.count
            else:
                before, call, after = training.step(way)
                if way.inside:
                    inside[key] = before + call
                else:
                    costs[key].append(call)
                    forward.append(before)
                    plain.append(before + after)
            way.end()
        for key, spent in inside.items():
            costs[key].append(max(0.0, spent - median(forward)))
    return {key: median(values) for key, values in costs.items()}, syncs, plain


if __name__ == "__main__":
    main()
