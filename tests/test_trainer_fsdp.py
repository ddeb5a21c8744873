"""A model in shards (FSDP2) is the whole one: the same norms, weights and checkpoints, loadable either way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import two_processes
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion
from torch import nn

from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import open_trace
from foreshock.trainer.config import MethodConfig, OptimConfig, ScaleConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import prepare

QUIET = Console(quiet=True)
SENSORS = ("collapse", "grad_cosine", "grad_max", "grad_to_variance", "update_ratio", "update_rms", "weight_norm")
TIMES = {"wall_time", "step_time", "images_per_second"}
SHARDS = ScaleConfig(parallel="fsdp")
METHODS = {
    "mocov3": MethodConfig(),
    "mocov3-frozen": MethodConfig(patch_projection="frozen"),
    "mocov3-clip": MethodConfig(patch_projection="clip", patch_clip=0.1),
    "mocov3-weight-norm": MethodConfig(patch_projection="weight_norm"),
    "simclr": MethodConfig("simclr"),
    "byol": MethodConfig("byol"),
    "swav": MethodConfig("swav", prototypes=12, prototype_frozen_steps=2),
}
# By run: the method, and the scale in two processes.
RUNS = {name: (method, SHARDS) for name, method in METHODS.items()} | {
    "parts": (METHODS["mocov3"], replace(SHARDS, accumulate=2)),
    "anew": (METHODS["mocov3"], replace(SHARDS, checkpoint_activations=True)),
    "ddp-parts-anew": (METHODS["mocov3"], ScaleConfig(accumulate=2, checkpoint_activations=True)),
}


def config_of(name: str, folder: Path) -> TrainConfig:
    two = dist.is_initialized()
    method, scale = RUNS[name]
    config = tiny_config(
        folder / "fashion",
        method=method,
        scale=scale if two else ScaleConfig(),
        amp="float64",
        steps=6,
        trace=str(folder / f"{name}-{1 + two}"),
        checkpoint_dir=str(folder / f"{name}-{1 + two}-saved"),
        checkpoint_every=3,
    )
    return replace(config, probe=replace(config.probe, sensors=SENSORS))


def checkpoint(folder: Path, name: str, processes: int, step: int = 6) -> dict:
    return torch.load(folder / f"{name}-{processes}-saved" / f"step-{step:08}.pt")


def law_of_shards(folder: Path, rank: int) -> None:
    """Norms of sharded gradients, odd sizes and a layer without any among them, and of the same ones whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh, generator = init_device_mesh("cpu", (2,)), torch.Generator().manual_seed(0)
    grid = init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "parts"))
    layers, whole = {}, {}
    for i, (shape, bad) in enumerate([((5, 3), 0.0), ((1,), 0.0), ((4, 2), np.nan), ((6,), 0.0), ((4, 3), 0.0)]):
        grad = torch.randn(shape, generator=generator) * 10.0**i
        grad.view(-1)[0] += bad
        where, placements = [(mesh, [Shard(0)]), (grid, [Replicate(), Shard(0)]), (mesh, [Replicate()])][i % 3]
        parameter = nn.Parameter(distribute_tensor(torch.zeros(shape), where, placements))
        parameter.grad = distribute_tensor(grad, where, placements)
        plain = nn.Parameter(torch.zeros(shape))
        plain.grad = grad
        layers[f"layer{i}"], whole[f"layer{i}"] = [("p", parameter)], [("p", plain)]
    layers["none"], whole["none"] = [("p", nn.Parameter(torch.ones(2)))], [("p", nn.Parameter(torch.ones(2)))]
    beside = nn.Parameter(torch.zeros(2))  # a whole one in a layer of shards
    beside.grad = torch.tensor([3.0, 4.0])
    for layer in (layers, whole):
        layer["layer0"].append(("q", beside))
    expected, got = GradNorm(whole).observe(), GradNorm(layers).observe()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, equal_nan=True)
    assert torch.isinf(expected["grad_norm"]).tolist() == [False, False, True, False, False, False]
    unsummed = nn.Parameter(DTensor.from_local(torch.zeros(2), mesh, [Replicate()]))
    unsummed.grad = DTensor.from_local(torch.ones(2), mesh, [Partial()])
    with pytest.raises(ValueError, match="yet to be summed up"):
        GradNorm({"a": [("p", unsummed)]}).observe()
    (folder / f"law.{rank}").touch()


def worker(rank: int, folder: Path) -> None:
    law_of_shards(folder, rank)
    held = {}
    for name in RUNS:
        run = prepare(config_of(name, folder))
        assert train(run, QUIET).status == "finished"
        parts = [p.to_local().numel() if hasattr(p, "to_local") else -p.numel() for p in run.model.parameters()]
        held[name] = sum(part for part in parts if part > 0), -sum(part for part in parts if part < 0)
    torch.save(held, folder / f"held.{rank}")
    # Go on from the middle, as shards from shards.
    config = config_of("mocov3", folder)
    saved = folder / "mocov3-2-saved"
    if rank == 0:
        (saved / "step-00000006.pt").rename(saved / "step-00000006.straight")
    dist.barrier()
    again = prepare(replace(config, resume=True))
    assert again.start == 3
    train(again, QUIET)
    said = []
    for bad in (
        replace(config, optim=OptimConfig("lars", base_lr=0.3)),
        replace(config, amp="fp16"),
        replace(config, scale=replace(SHARDS, compile=True)),
    ):
        with pytest.raises(ValueError, match="does not go with") as refused:
            prepare(replace(bad, checkpoint_dir=None, checkpoint_every=1000))
        said.append(str(refused.value))
    torch.save(said, folder / f"said.{rank}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that two processes left behind."""
    folder = tmp_path_factory.mktemp("shards")
    write_fashion(folder / "fashion")
    two_processes(worker, folder)
    return folder


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    """The runs of one process beside them; the scale of a run changes nothing here."""
    for name in METHODS:
        train(config_of(name, folder), QUIET)
    return folder


def assert_close(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-6, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", RUNS)
def test_shards_are_one_run(one: Path, name: str) -> None:
    twin = name if name in METHODS else "mocov3"
    a, b = open_trace(one / f"{twin}-1"), open_trace(one / f"{name}-2")
    assert (a.layers, a.series, a.scalars, a.steps.tolist()) == (b.layers, b.series, b.scalars, b.steps.tolist())
    for series in (*a.series, *a.scalars):
        if series not in TIMES:
            np.testing.assert_allclose(a[series], b[series], rtol=1e-6, atol=1e-9, err_msg=series)
    end = "straight" if name == "mocov3" else "pt"
    two = torch.load(one / f"{name}-2-saved" / f"step-00000006.{end}")
    single = checkpoint(one, twin, 1)
    assert_close(single["model"], two["model"])
    for index, state in single["optimizer"]["state"].items():
        assert_close(state, two["optimizer"]["state"][index])
    assert two["optimizer"]["param_groups"] == single["optimizer"]["param_groups"]


def test_every_process_holds_half(folder: Path) -> None:
    held = [torch.load(folder / f"held.{rank}") for rank in range(2)]
    for name, (_, scale) in RUNS.items():
        parts, rest = zip(*(h[name] for h in held), strict=True)
        if scale.parallel == "fsdp":
            assert abs(parts[0] - parts[1]) < 0.2 * sum(parts)
            assert rest[0] == (12 * 8 if name == "swav" else 0)  # the prototypes
        else:
            assert parts == (0, 0)


def test_resumed_shards_are_the_straight_run_to_the_last_bit(folder: Path) -> None:
    straight, again = (torch.load(folder / "mocov3-2-saved" / f"step-00000006.{end}") for end in ("straight", "pt"))
    assert same(*({k: v for k, v in s.items() if k != "config"} for s in (straight, again)))


def test_one_process_goes_on_with_what_shards_saved(one: Path) -> None:
    saved = config_of("mocov3", one)
    place = one / "anew-2-saved"
    (place / "step-00000006.pt").rename(place / "later")
    run = prepare(replace(saved, trace=None, checkpoint_dir=str(place), resume=True))
    assert run.start == 3
    train(run, QUIET)
    assert_close(checkpoint(one, "mocov3", 1)["model"], run.model.state_dict())


def test_norms_of_shards_are_those_of_the_whole(folder: Path) -> None:
    assert all((folder / f"law.{rank}").exists() for rank in range(2))


def test_what_does_not_go_with_shards_is_refused(folder: Path) -> None:
    said = torch.load(folder / "said.0")
    assert torch.load(folder / "said.1") == [f"process 0: {text}" for text in said]
    assert "optim.name 'lars'" in said[0]
    assert "'fp16'" in said[1]
    assert "scale.compile" in said[2]
