"""Losses and gradients that are not finite: found before the update, left out or not, counted, and where they began."""

import copy
import math
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_runs import tiny_config, write_fashion
from torch import nn

from foreshock.traces import open_trace
from foreshock.trainer.attribution import first_nonfinite
from foreshock.trainer.config import HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig
from foreshock.trainer.guard import Guard
from foreshock.trainer.health import SCALER_PATIENCE, Health
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method, method_names
from foreshock.trainer.optim import build_optimizer
from foreshock.trainer.run import prepare

CPU = torch.device("cpu")
LAYERS = ["patch_embed", "blocks.00", "head"]
QUIET = Console(quiet=True)


def seen(losses, norms=None, *, scaled=False) -> Health:
    health = Health(CPU, LAYERS, scaled=scaled)
    for step, loss in enumerate(losses):
        health.observe(step, torch.tensor(loss), torch.tensor((norms or {}).get(step, [1.0, 1.0, nan])))
    return health


def test_a_sound_run_has_nothing_to_tell_and_a_frozen_layer_is_no_fault():
    assert seen([4.0, 3.9]).read(1) == (False, False, -1, False, None, 0, 0)


def test_the_first_bad_step_is_told_and_the_layer_nearest_to_the_loss():
    verdict = seen([4.0, 3.9, 3.8, 3.7], {2: [inf, inf, 1.0], 3: [inf, inf, inf]}).read(3)
    assert (verdict.lost, verdict.since, verdict.loss_finite, verdict.layer, verdict.steps) == (
        True,
        2,
        True,
        "blocks.00",
        2,
    )


def test_reading_begins_anew_but_goes_on_counting():
    health = seen([nan, 4.0])
    assert health.read(1).since == 0
    health.observe(2, torch.tensor(4.0), torch.ones(3))
    assert health.read(2)[:3] == (False, False, -1)
    health.observe(3, torch.tensor(inf), torch.ones(3))
    verdict = health.read(3)
    assert (verdict.since, verdict.steps) == (3, 2)


def test_a_scaler_may_overflow_for_a_while():
    overflow = {step: [inf, inf, inf] for step in range(SCALER_PATIENCE + 5)}
    health = seen([4.0] * (SCALER_PATIENCE + 5), overflow, scaled=True)
    assert health.read(0)[0] is False
    assert health.overflow == 1
    assert seen([nan] * SCALER_PATIENCE, overflow, scaled=True).read(0)[0] is False
    lost = seen([nan] * (SCALER_PATIENCE + 1), overflow, scaled=True).read(0)
    assert lost.lost
    assert lost.overflows == SCALER_PATIENCE + 1


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    def forward(self, x):
        return self.body(x).square().mean()


@pytest.mark.parametrize("name", ["adamw", "lars", "lamb", "stableadamw"])
def test_a_bad_step_leaves_everything_as_if_it_had_not_been(name):
    torch.manual_seed(0)
    with_bad, without = (copy.deepcopy(Net()) for _ in range(2))
    without.load_state_dict(with_bad.state_dict())
    optimizers = [build_optimizer(model, OptimConfig(name), lr=0.01) for model in (with_bad, without)]
    guards = [
        Guard(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
        for model, optimizer in zip((with_bad, without), optimizers, strict=True)
    ]
    for step in range(6):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        bad = step in (2, 3)
        for model, optimizer, guard in zip((with_bad, without), optimizers, guards, strict=True):
            if bad and model is without:
                continue
            optimizer.zero_grad()
            model(x * nan if bad else x).backward()
            guard.step(torch.tensor(bad))
    for a, b in zip(with_bad.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(*(list(o.state.values()) for o in optimizers), strict=True):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_without_protection_the_step_is_made():
    model = Net()
    optimizer = build_optimizer(model, OptimConfig(), lr=0.01)
    guard = Guard(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), protect=False)
    model(torch.full((4, 4), nan)).backward()
    guard.step(torch.tensor(True))
    assert not all(p.isfinite().all() for p in model.parameters())


VIT = VitConfig(image_size=8, in_chans=1, patch_size=4, dim=16, depth=3, heads=2)


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"prototypes": 20, "temperature": 0.1} if name == "swav" else {}
    return build_method(TrainConfig(vit=VIT, heads=HeadConfig(24, 12), method=MethodConfig(name, **own)))


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("layer", ["patch_embed", "blocks.01", "projector"])
def test_the_layer_that_overflows_is_named_and_nothing_is_changed(name, layer):
    model = built(name)
    backbone = model.encoder.backbone
    module = {
        "patch_embed": backbone.patch_embed.proj,
        "blocks.01": backbone.blocks[1].mlp.fc1,
        "projector": model.encoder.projector[0],
    }[layer]
    with torch.no_grad():
        module.weight.fill_(3e38)
    before = copy.deepcopy(model.state_dict())
    x1, x2 = torch.randn(2, 6, 1, 8, 8)
    assert first_nonfinite(model, x1, x2) == layer
    for key, after in model.state_dict().items():
        # Every pass of SwAV puts the prototypes back on the unit sphere first, to the last bit or so.
        same = torch.allclose if key.startswith("prototypes") else torch.equal
        assert same(before[key], after)
    assert not any(m._forward_hooks for m in model.modules())


def test_weights_and_images_are_named_before_any_layer():
    model, (x1, x2) = built("mocov3"), torch.randn(2, 6, 1, 8, 8)
    assert first_nonfinite(model, x1, x2) is None
    assert first_nonfinite(model, x1 * nan, x2) == "the images"
    with torch.no_grad():
        model.encoder.backbone.blocks[2].attn.qkv.weight[0, 0] = inf
    assert first_nonfinite(model, x1, x2) == "weights of blocks.02"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


class SpoilGradient:
    """Makes the gradient of one layer infinite in some steps, as an overflow in the backward pass does."""

    def __init__(self, run, steps: set[int]) -> None:
        self.steps, self.step = steps, -1
        run.model.register_forward_pre_hook(self._count)
        run.model.encoder.backbone.blocks[0].mlp.fc1.weight.register_hook(self._spoil)

    def _count(self, *_) -> None:
        self.step += 1

    def _spoil(self, grad: torch.Tensor) -> torch.Tensor:
        return grad * (inf if self.step in self.steps else 1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_skip_leaves_out_bad_updates_and_goes_on(root: Path, tmp_path: Path, optimizer) -> None:
    config = tiny_config(
        root, trace=str(tmp_path / "run"), nonfinite="skip", optim=OptimConfig(optimizer, base_lr=0.05), log_every=4
    )
    run = prepare(config)
    SpoilGradient(run, {2, 3, 9})
    result = train(run, QUIET)
    trace = open_trace(tmp_path / "run")
    assert (result.status, result.exit_code, result.left_out) == ("finished", 0, 3)
    assert trace["nonfinite"].tolist() == [float(step in (2, 3, 9)) for step in range(12)]
    assert all(p.isfinite().all() for p in run.model.state_dict().values())
    told = [(e["step"], e["kind"], e["text"]) for e in trace.events]
    assert [(step, kind) for step, kind, _ in told] == [(2, "nonfinite"), (9, "nonfinite")]
    assert "2 updates were left out" in told[0][2]
    assert "gradient" in told[0][2]
    assert "blocks.00" in told[0][2]
    assert any("3 updates were left out" in line for line in result.lines())
    bad = np.isinf(trace["grad_norm"])
    assert bad.any(axis=0).tolist() == [step in (2, 3, 9) for step in range(12)]


def test_stop_keeps_the_weights_from_before(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), nonfinite="stop", log_every=6)
    run = prepare(config)
    SpoilGradient(run, {3})
    states = {}

    def remember(*_) -> None:
        states[len(states)] = copy.deepcopy(run.model.encoder.state_dict())

    run.model.register_forward_pre_hook(remember)
    result = train(run, QUIET)
    assert (result.status, result.bad_since, result.step) == ("nonfinite", 3, 6)
    weights = dict(run.model.encoder.named_parameters())
    assert all(torch.equal(states[3][n], p) for n, p in weights.items())
    assert not all(torch.equal(states[2][n], p) for n, p in weights.items())
    assert open_trace(tmp_path / "run").status == "failed"


def test_record_lets_it_run_into_the_wall(root: Path, tmp_path: Path) -> None:
    run = prepare(tiny_config(root, trace=str(tmp_path / "run"), nonfinite="record"))
    SpoilGradient(run, {3})
    result = train(run, QUIET)
    trace = open_trace(tmp_path / "run")
    assert (result.status, len(trace)) == ("finished", 12)
    assert not math.isfinite(trace["loss"][-1])
    assert len([e for e in trace.events if e["kind"] == "nonfinite"]) == 1


def test_a_loss_that_overflows_is_traced_to_its_layer(root: Path, tmp_path: Path) -> None:
    run = prepare(tiny_config(root, trace=str(tmp_path / "run"), log_every=1))
    with torch.no_grad():
        run.model.encoder.backbone.blocks[1].mlp.fc2.weight.fill_(3e38)
    result = train(run, QUIET)
    assert (result.status, result.bad_since) == ("nonfinite", 0)
    (event,) = open_trace(tmp_path / "run").events
    assert "the loss is not finite since step 0, first in blocks.01" in event["text"]


def test_replaced_policy_is_refused_in_a_sentence(root: Path) -> None:
    with pytest.raises(ValueError, match="one of record, skip, stop"):
        replace(tiny_config(root), nonfinite="ignore")  # type: ignore[arg-type]
