"""Laws of every file in probes/sensors on a model in shards (FSDP2): the values of the whole model, few exchanges."""

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import two_processes
from sensed import HostSyncs, Small, adam, batch, build, feed
from torch import nn

from foreshock.probes.recorder import Recorder
from foreshock.probes.sensors import attach, layer_parameters, sensor_class, sensor_names
from foreshock.probes.sensors._shards import local

STEPS = 4
HOSTS_OWN = ("throughput", "memory")  # of a process's clock and memory
OF_SHARE = ("activation", "attention", "collapse", "feature_knn")  # of the images of a process, and they say so
pytestmark = pytest.mark.filterwarnings("ignore:foreshock. no")


def shard(model: nn.Module) -> nn.Module:
    """Block by block and the rest, as the trainer does."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for unit in (*model.blocks, model):  # pyright: ignore[reportGeneralTypeIssues]
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return model


class Training:
    """A model that learns from the images given, with a sensor that looks in."""

    def __init__(self, name: str, model: nn.Module) -> None:
        self.model, self.optimizer = model, adam(model, eps=1e-3)
        self.sensor = build(name, model, self.optimizer)

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.optimizer.zero_grad()
        features = self.model(images)
        features.square().mean().backward()
        feed(self.sensor, features)
        values = dict(self.sensor.observe())
        self.optimizer.step()
        return values | getattr(self.sensor, "after_step", dict)()


def law(name: str, rank: int) -> None:
    """In shards it sees what it sees on the whole model of all images, or of this process's."""
    parts, whole = Training(name, shard(Small().double())), Training(name, Small().double())
    looker = Training(name, copy.deepcopy(whole.model)) if name in OF_SHARE else whole
    for step in range(STEPS):
        images = batch(step).double()
        share = images.chunk(2)[rank]
        expected = {}
        if looker is not whole:
            looker.model.load_state_dict(whole.model.state_dict())
            expected = looker.step(share)
        seen = parts.step(share)
        values = whole.step(images)
        expected = expected or values
        assert seen.keys() == expected.keys()
        if name not in HOSTS_OWN:
            for series, value in expected.items():
                torch.testing.assert_close(
                    local(seen[series]), value, rtol=1e-6, atol=1e-9, equal_nan=True,
                    msg=lambda text, series=series, step=step: f"{series}, step {step}: {text}",
                )  # fmt: skip
    with HostSyncs() as syncs:
        parts.sensor.observe()
    assert not syncs.counts, str(syncs.counts)


def odd_shards() -> None:
    """Sizes that leave a process without a part, copies beside shards, and a whole tensor in a layer of shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh, generator = init_device_mesh("cpu", (2,)), torch.Generator().manual_seed(0)
    grid = init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "parts"))
    placed = [(mesh, [Shard(0)]), (grid, [Replicate(), Shard(0)]), (mesh, [Replicate()]), None]
    names = ("grad_cosine", "grad_max", "weight_norm")
    sides: list[dict[str, list[tuple[str, nn.Parameter]]]] = [{}, {}]
    for i, shape in enumerate([(5, 3), (1,), (4, 2), (6,), (4, 3), (2,), (3,)]):
        weight, grad = (torch.randn(shape, generator=generator) * 10.0**i for _ in range(2))
        if i == 4:
            grad.view(-1)[0] = torch.nan
        for sharded, layers in enumerate(sides):
            where = placed[i % 4] if sharded else None
            put = (lambda x, where=where: distribute_tensor(x, *where)) if where else torch.clone
            parameter = nn.Parameter(put(weight))
            parameter.grad = put(grad)
            layers.setdefault(f"layer{i // 2}", []).append((f"p{i}", parameter))
    for name in names:
        cls = sensor_class(name)
        whole, parts = (cls(layers, **({"every": 1} if name != "grad_max" else {})) for layers in sides)
        seen = [(whole.observe()[name], parts.observe()[name]) for _ in range(2)]
        for expected, found in seen:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert name == "weight_norm" or not seen[-1][0].isfinite().all()
    unlike = nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Shard(0)]))
    unlike.grad = distribute_tensor(torch.ones(4), mesh, [Replicate()])
    with pytest.raises(ValueError, match="split over the processes in another way"):
        sensor_class("grad_max")({"a": [("p", unlike)]}).observe()


def exchanges(name: str | None, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the processes exchange something in a step: of one sensor, or of all in a recorder."""
    model = shard(Small())
    optimizer = adam(model)
    names = [name] if name else [other for other in sensor_names() if other != "feature_knn"]
    sensors = attach(names, model, optimizer, layer_parameters(model))
    for sensor in sensors.values():
        sensor.every = 1

    class Nowhere:
        def extend(self, steps: Any, values: Any) -> None:
            """Drop the rows."""

        def close(self, status: str, message: str = "") -> None:
            """Nothing is open."""

    recorder = Recorder(Nowhere(), list(sensors.values()))  # pyright: ignore[reportArgumentType]
    counts: Counter[str] = Counter()
    observed = counts.copy()
    exchange = dist.all_reduce

    def counted(tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, *args: Any, **kwargs: Any) -> Any:
        counts[str(op)] += 1
        return exchange(tensor, op, *args, **kwargs)

    for step in range(3):
        optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        counts.clear()
        with monkeypatch.context() as patch:
            patch.setattr(dist, "all_reduce", counted)
            recorder.observe(step)
            observed = counts.copy()
            optimizer.step()
            counts.clear()
            recorder.after_step()
    assert sum(counts.values()) <= 1  # what is known only after the step
    recorder.close()
    return observed


def process(rank: int, folder: Path) -> None:
    odd_shards()
    failed = {}
    for name in sensor_names():
        try:
            law(name, rank)
        except (AssertionError, ValueError) as error:
            failed[name] = f"{type(error).__name__}: {error}"
    with pytest.MonkeyPatch.context() as patch:
        counts = {str(name): dict(exchanges(name, patch)) for name in (None, "grad_cosine", "grad_to_variance")}
    torch.save((failed, counts), folder / f"found{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, str], dict[str, dict[str, int]]]]:
    folder = tmp_path_factory.mktemp("shards")
    two_processes(process, folder)
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sensor_names())
def test_in_shards_it_measures_the_whole(name: str, found: Any) -> None:
    assert [failed.get(name) for failed, _ in found] == [None, None]


@pytest.mark.parametrize("name", OF_SHARE)
def test_what_sees_this_process_alone_says_so(name: str) -> None:
    said = re.sub(r"\s+", " ", sensor_class(name).__doc__ or "")
    assert "FSDP" in said
    assert re.search(r"this (process|rank)'s share", said)


def test_all_sensors_exchange_once_for_each_kind(found: Any) -> None:
    for _, counts in found:
        sums, maxima = (next((n for kind, n in counts["None"].items() if word in kind), 0) for word in ("SUM", "MAX"))
        assert (sums, maxima) == (2, 1)  # grad_norm's own, and that of all the others
        assert counts["grad_cosine"] == counts["grad_to_variance"] == {"RedOpType.SUM": 1}
