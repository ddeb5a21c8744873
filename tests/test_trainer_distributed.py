"""Several processes are one: the same losses, norms, kNN and weights as one process with the whole batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import two_processes
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion, write_images
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.traces import open_trace
from foreshock.trainer.config import MethodConfig, ScaleConfig, TrainConfig
from foreshock.trainer.distributed import DistributedError, PeerError, Processes
from foreshock.trainer.loop import train
from foreshock.trainer.run import prepare
from foreshock.trainer.sync_norm import synchronise_norms
from foreshock.trainer.token_norm import TokenBatchNorm

QUIET = Console(quiet=True)
TIMES = {"wall_time", "step_time", "images_per_second"}
SWAV = {"prototypes": 12, "prototype_frozen_steps": 2}
RUNS = {
    "mocov3": MethodConfig(),
    "mocov3-frozen": MethodConfig(patch_projection="frozen"),
    "mocov3-clip": MethodConfig(patch_projection="clip", patch_clip=0.1),
    "mocov3-batch-norm": MethodConfig(patch_projection="batch_norm"),
    "simclr": MethodConfig("simclr"),
    "simclr-frozen": MethodConfig("simclr", patch_projection="frozen"),
    "byol": MethodConfig("byol"),
    "byol-frozen": MethodConfig("byol", patch_projection="frozen"),
    "swav": MethodConfig("swav", **SWAV),
    "swav-frozen": MethodConfig("swav", patch_projection="frozen", **SWAV),
}


def config_of(name: str, folder: Path) -> TrainConfig:
    config = tiny_config(folder / "fashion", method=RUNS[name], amp="float64", steps=6)
    return replace(config, trace=str(folder / f"{name}-{processes()}"))


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def streamed(folder: Path) -> TrainConfig:
    """A run on images that are decoded as they are needed."""
    config = tiny_config(folder, amp="float64", steps=4, batch_size=8, trace=str(folder / f"streamed-{processes()}"))
    data = replace(config.data, dataset=f"folder:{folder / 'images'}", data_root=None)
    return replace(config, data=data)


def resumed(folder: Path) -> TrainConfig:
    place = folder / f"resumed-{processes()}"
    return tiny_config(
        folder / "fashion", steps=12, trace=str(place / "run"), checkpoint_dir=str(place / "saved"), checkpoint_keep=9
    )


def final(config: TrainConfig) -> dict[str, torch.Tensor]:
    run = prepare(config)
    assert train(run, QUIET).status == "finished"
    return run.model.state_dict()


class Norms(nn.Module):
    """BatchNorm of every kind, as a chain."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.tokens = nn.BatchNorm2d(3), TokenBatchNorm(3)
        self.plain, self.bare = nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False, momentum=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(self.images(x).flatten(2).mT)
        return self.bare(self.plain(tokens[:, 0] * tokens[:, 1] + 0.1 * tokens.sum(1)))


def norms_and_gradients(x: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics of two training steps and an evaluation; the loss is this process's mean."""
    torch.manual_seed(1)
    model = Norms().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = synchronise_norms(model, torch.device("cpu"))
    x = x.clone().requires_grad_()
    model(x.detach() + 1)
    output = model(x)
    (output * target).sum(1).mean().backward()
    assert x.grad is not None
    result = {"output": output.detach(), "x": x.grad, "eval": model.eval()(x).detach()}
    result |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return result | dict(model.named_buffers())


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = {"generator": generator, "dtype": torch.float64}
    return 5 + torch.randn(6, 3, 2, 2, **shape), torch.randn(6, 3, **shape)


def worker(rank: int, folder: Path) -> None:
    torch.save(norms_and_gradients(*(x.chunk(2)[rank] for x in images())), folder / f"norms.{rank}")
    torch.save({name: final(config_of(name, folder)) for name in RUNS}, folder / f"runs.{rank}")
    torch.save(final(streamed(folder)), folder / f"streamed.{rank}")
    config = resumed(folder)
    final(replace(config, checkpoint_every=5))
    for path in Path(config.checkpoint_dir or "").glob("step-*12.pt") if rank == 0 else []:
        path.rename(path.with_suffix(".straight"))
    dist.barrier()
    torch.save(final(replace(config, checkpoint_every=5, resume=True)), folder / f"resumed.{rank}")
    torch.save(waits(folder), folder / f"waits.{rank}")
    torch.save(refusals(folder, rank), folder / f"refusals.{rank}")


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.count += 1
        return func(*args, **(kwargs or {}))


def waits(folder: Path) -> list[int]:
    """How often the host waits in runs of 6 and of 12 steps, in bfloat16."""
    counts = []
    for steps in (6, 12):
        run = prepare(tiny_config(folder / "fashion", steps=steps, log_every=1000, amp="bf16"))
        with Waits() as counted:
            train(run, QUIET)
        counts.append(counted.count)
    return counts


def refusals(folder: Path, rank: int) -> dict[str, tuple[str, str]]:
    """What each process says, and the kind of error, if one of them or all cannot go on."""
    config = tiny_config(folder / "fashion")
    mine = replace(config, data=replace(config.data, data_root=str(folder / ("fashion" if rank == 0 else "nowhere"))))
    there = replace(config, trace=str(folder / "swav-2"))
    swav = replace(config, method=RUNS["swav"], scale=ScaleConfig(sync_batch_norm=False))
    said = {}
    for name, bad in {"odd": replace(config, batch_size=15), "data": mine, "trace": there, "norms": swav}.items():
        try:
            prepare(bad)
        except ValueError as error:
            said[name] = type(error).__name__, str(error)
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that two processes left behind."""
    folder = tmp_path_factory.mktemp("processes")
    write_fashion(folder / "fashion")
    write_images(folder / "images", [(30, 26 + i) for i in range(20)])
    two_processes(worker, folder)
    return folder


def both(folder: Path, name: str) -> list:
    return [torch.load(folder / f"{name}.{rank}") for rank in range(2)]


def assert_same_trace(one: Path, two: Path) -> None:
    a, b = open_trace(one), open_trace(two)
    assert a.steps.tolist() == b.steps.tolist()
    assert (a.layers, a.series, a.scalars) == (b.layers, b.series, b.scalars)
    for name in (*a.series, *a.scalars):
        if name not in TIMES:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-9, err_msg=name)


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], within: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=within, atol=within, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_run(folder: Path, name: str) -> None:
    first, second = (states[name] for states in both(folder, "runs"))
    one = final(config_of(name, folder))
    assert_close(one, first, 1e-6)
    assert same(first, second)
    assert_same_trace(folder / f"{name}-1", folder / f"{name}-2")
    assert np.isfinite(open_trace(folder / f"{name}-2")["knn_accuracy"][1:]).all()
    assert open_trace(folder / f"{name}-2").meta["processes"] == 2


def test_images_that_are_decoded_as_needed_too(folder: Path) -> None:
    first, second = both(folder, "streamed")
    assert_close(final(streamed(folder)), first, 1e-6)
    assert same(first, second)
    assert_same_trace(folder / "streamed-1", folder / "streamed-2")


def test_batch_norm_over_two_processes_is_that_of_the_joint_batch(folder: Path) -> None:
    first, second = both(folder, "norms")
    # The mean of both losses has the gradient of the joint one: halves of each process's own.
    joint = {"output": torch.cat, "eval": torch.cat, "x": lambda parts: torch.cat(parts) / 2}
    parameters = {name for name, _ in Norms().named_parameters()}
    two = {}
    for name in first:
        parts = [first[name], second[name]]
        if name in joint:
            two[name] = joint[name](parts)
        else:
            two[name] = sum(parts) / 2 if name in parameters else parts[0]
            assert name in parameters or torch.equal(*parts)
    assert_close(norms_and_gradients(*images()), two, 1e-10)


def test_a_resumed_run_of_two_is_the_straight_one_to_the_last_bit(folder: Path) -> None:
    saved = folder / "resumed-2" / "saved"
    straight, again = (torch.load(saved / f"step-00000012.{end}") for end in ("straight", "pt"))
    assert same({k: v for k, v in straight.items() if k != "config"}, {k: v for k, v in again.items() if k != "config"})
    assert again["processes"] == 2
    first, second = both(folder, "resumed")
    assert same(first, second)
    assert same(first, again["model"])
    assert [e["kind"] for e in open_trace(folder / "resumed-2" / "run").events] == ["resume", "resumed"]


def test_another_number_of_processes_goes_on_with_it(folder: Path) -> None:
    config = resumed(folder)
    there = replace(config, trace=None, checkpoint_dir=str(folder / "resumed-2" / "saved"), checkpoint_every=5)
    for path in (folder / "resumed-2" / "saved").glob("step-*12.pt"):
        path.unlink()
    run = prepare(replace(there, resume=True))
    assert run.start == 10
    train(run, QUIET)
    # In float32 and over a few steps only.
    straight = torch.load(folder / "resumed-2" / "saved" / "step-00000012.straight")["model"]
    assert_close(
        {k: v for k, v in straight.items() if v.is_floating_point()},
        {k: v for k, v in run.model.state_dict().items() if v.is_floating_point()},
        1e-3,
    )


def test_steps_of_several_processes_never_wait_for_the_device(folder: Path) -> None:
    for six, twelve in both(folder, "waits"):
        assert six == twelve


def test_what_one_process_cannot_do_none_does(folder: Path) -> None:
    first, second = both(folder, "refusals")
    assert first["odd"][0] == DistributedError.__name__
    assert second["odd"] == (PeerError.__name__, f"process 0: {first['odd'][1]}")
    assert "batch_size 15 cannot be divided among 2 processes" in first["odd"][1]
    assert second["data"][0] == "DataError"
    assert first["data"][0] == PeerError.__name__
    assert first["data"][1] == f"process 1: {second['data'][1]}"
    assert "swav-2" in first["trace"][1]
    assert second["trace"][1].startswith("process 0: ")
    assert "sync_batch_norm False would have no effect on a model without BatchNorm" in first["norms"][1]


@pytest.mark.parametrize(
    "scale", [ScaleConfig(parallel="ddp"), ScaleConfig(sync_batch_norm=False), ScaleConfig(timeout=5)]
)
def test_settings_of_several_processes_are_refused_for_one(tmp_path: Path, scale: ScaleConfig) -> None:
    with pytest.raises(ValueError, match="would have no effect with one process"):
        prepare(tiny_config(write_fashion(tmp_path), scale=scale))


def test_shares_are_equal_or_refused() -> None:
    assert Processes(count=3, rank=1).share(12, "batch_size") == 4
    with pytest.raises(DistributedError, match=r"batch_size 13 cannot be divided among 3 processes: .* such as 12"):
        Processes(count=3).share(13, "batch_size")
