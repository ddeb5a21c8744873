"""Interventions in two real processes, whole copies (DDP) or shards (FSDP2): those of one process with their batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import two_processes
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion

from foreshock.probes.interventions import intervention_names
from foreshock.probes.interventions._rule import Thresholds
from foreshock.traces import open_trace
from foreshock.trainer.config import AlertConfig, InterveneConfig, ScaleConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import Run, prepare

QUIET = Console(quiet=True)
SPIKES, STEPS, SAVED = (12, 13, 17), 24, 14
SOON = (2.0, 6.0, 16, 8, 32, 0.05)  # a baseline of eight steps, as these runs are short
WAYS = ("ddp", "fsdp")
RULES = intervention_names()
TIMES = {"wall_time", "step_time", "images_per_second"}


def config_of(folder: Path, rule: str, way: str) -> TrainConfig:
    place = folder / f"{rule}-{way}"
    config = tiny_config(
        folder / "fashion",
        steps=STEPS,
        amp="float64",
        scale=ScaleConfig(parallel=way) if dist.is_initialized() else ScaleConfig(),  # pyright: ignore
        intervene=InterveneConfig(rule, z=4.0, **({"steps": 4} if rule == "freeze_layer" else {})),
        alert=AlertConfig(file=f"{place}.jsonl"),
        trace=str(place),
        checkpoint_dir=f"{place}-saved",
        checkpoint_every=SAVED,
    )
    return replace(config, optim=replace(config.optim, base_lr=0.005))


def spiking(config: TrainConfig) -> Run:
    """A run whose loss, and with it every gradient, is 300 times as large at some steps."""
    run = prepare(config)
    forward, count = run.forward, iter(range(run.start, 10**6))

    def larger(x1: torch.Tensor, x2: torch.Tensor, momentum: float):
        output = forward(x1, x2, momentum)
        return output._replace(loss=output.loss * (300.0 if next(count) in SPIKES else 1.0))

    run.forward = larger
    return run


def worker(rank: int, folder: Path) -> None:
    Thresholds.__init__.__defaults__ = SOON
    for rule in RULES:
        for way in WAYS:
            config = config_of(folder, rule, way)
            run = spiking(config)
            assert run.tracing
            assert (run.tracing.alerts is not None) is (rank == 0)
            result = train(run, QUIET)
            assert (result.status, result.interventions) == ("finished", len(SPIKES))
            saved = Path(f"{config.trace}-saved")
            if rank == 0:
                (saved / f"step-{STEPS:08}.pt").rename(saved / "straight")
                torch.save(told(folder, rule, way), f"{config.trace}.told")
            dist.barrier()
            again = spiking(replace(config, resume=True))
            assert again.start == SAVED
            assert train(again, QUIET).interventions == len(SPIKES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind, and one beside them."""
    folder = tmp_path_factory.mktemp("together")
    write_fashion(folder / "fashion")
    two_processes(worker, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thresholds.__init__, "__defaults__", SOON)
        for rule in RULES:
            result = train(spiking(config_of(folder, rule, "one")), QUIET)
            assert f"{rule} acted at 3 steps" in result.lines()
    return folder


def told(folder: Path, rule: str, way: str) -> list[tuple[int, str]]:
    events = open_trace(folder / f"{rule}-{way}").events
    return [(event["step"], event["text"]) for event in events if event["kind"] == "intervention"]


def state(folder: Path, rule: str, way: str, name: str = f"step-{STEPS:08}.pt") -> dict:
    return torch.load(folder / f"{rule}-{way}-saved" / name, weights_only=True)


def assert_close(a, b) -> None:
    """Equal containers, whose tensors may be off by rounding."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert_close(value, b[name])
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)
    else:
        assert a == b


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES)
def test_two_processes_intervene_as_one_does(folder: Path, rule: str, way: str) -> None:
    assert [step for step, _ in told(folder, rule, "one")] == list(SPIKES)
    assert torch.load(folder / f"{rule}-{way}.told") == told(folder, rule, "one")  # each once, by rank 0
    one, two = open_trace(folder / f"{rule}-one"), open_trace(folder / f"{rule}-{way}")
    for series in (*one.series, *one.scalars):
        if series not in TIMES:
            np.testing.assert_allclose(two[series], one[series], rtol=1e-6, atol=1e-9, err_msg=series)
    single, both = state(folder, rule, "one"), state(folder, rule, way, "straight")
    for part in ("model", "optimizer", "intervention"):
        assert_close(both[part], single[part])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_is_the_straight_one_to_the_last_bit(folder: Path, rule: str, way: str) -> None:
    straight, again = (state(folder, rule, way, name) for name in ("straight", f"step-{STEPS:08}.pt"))
    assert same(*({k: v for k, v in s.items() if k != "config"} for s in (straight, again)))
    assert told(folder, rule, way) == told(folder, rule, "one")


def test_one_process_goes_on_with_what_shards_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Thresholds.__init__, "__defaults__", SOON)
    for rule in RULES:
        config = config_of(folder, rule, "fsdp")
        (Path(f"{config.trace}-saved") / f"step-{STEPS:08}.pt").unlink()
        run = spiking(replace(config, resume=True, trace=str(folder / f"{rule}-elsewhere")))
        assert run.start == SAVED
        train(run, QUIET)
        assert_close(run.model.state_dict(), state(folder, rule, "one")["model"])
