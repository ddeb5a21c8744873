"""Clipping over all layers, by layer, and of the patch projection; LAMB and StableAdamW against their twins."""

import copy
from dataclasses import replace
from math import inf, isnan, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_runs import tiny_config, write_fashion
from torch import nn

from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import open_trace
from foreshock.trainer.clipping import Clipping, build_clipping
from foreshock.trainer.config import MethodConfig, OptimConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method
from foreshock.trainer.observed import observed_layers
from foreshock.trainer.optim import build_optimizer
from foreshock.trainer.stable_adamw import StableAdamW


def model_with_gradients() -> tuple[nn.Module, dict[str, list[tuple[str, nn.Parameter]]]]:
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("a", "b", "c")})
    for scale, (_, parameter) in enumerate(model.named_parameters(), start=1):
        parameter.grad = torch.randn_like(parameter) * scale
    layers = {name: [(f"{name}.{n}", p) for n, p in module.named_parameters()] for name, module in model.items()}
    return model, layers


def norms(layers) -> list[float]:
    return [sqrt(sum(p.grad.square().sum().item() for _, p in named)) for named in layers.values()]


def measured(layers) -> torch.Tensor:
    return GradNorm(layers).observe()["grad_norm"]


def test_over_all_layers_it_is_torchs():
    model, layers = model_with_gradients()
    twin = copy.deepcopy(model)
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.grad = q.grad.clone()
    nn.utils.clip_grad_norm_(twin.parameters(), 1.5)
    after = Clipping(layers, total=1.5)(measured(layers))["grad_norm_clipped"]
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert after.tolist() == pytest.approx(norms(layers), rel=1e-5)


def test_by_layer_each_keeps_its_own_limit_and_smaller_ones_stay():
    _, layers = model_with_gradients()
    before = norms(layers)
    limit = (before[0] + before[1]) / 2  # above the first, below the others
    after = Clipping(layers, limits=dict.fromkeys(layers, limit))(measured(layers))["grad_norm_clipped"]
    assert after.tolist() == pytest.approx([before[0], limit, limit], rel=1e-5)
    assert norms(layers) == pytest.approx(after.tolist(), rel=1e-5)


def test_a_layer_without_a_gradient_stays_nan_and_does_not_spoil_the_others():
    _, layers = model_with_gradients()
    for _, parameter in layers["b"]:
        parameter.grad = None
    after = Clipping(layers, total=1.0)(measured(layers))["grad_norm_clipped"].tolist()
    assert isnan(after[1])
    assert sqrt(after[0] ** 2 + after[2] ** 2) == pytest.approx(1.0, rel=1e-5)


def test_a_norm_that_is_not_finite_stays_visible():
    _, layers = model_with_gradients()
    layers["a"][0][1].grad[0, 0] = inf
    Clipping(layers, total=1.0)(measured(layers))
    assert not layers["a"][0][1].grad.isfinite().all()


def test_it_never_waits_for_the_device():
    _, layers = model_with_gradients()
    meta = {name: [(n, nn.Parameter(p.detach().to("meta"))) for n, p in named] for name, named in layers.items()}
    for named in meta.values():
        for _, parameter in named:
            parameter.grad = torch.empty_like(parameter)
    Clipping(meta, total=1.0, limits={"a": 0.5})(torch.empty(3, device="meta"))


def test_the_patch_projections_limit_is_its_own():
    config = TrainConfig(
        method=MethodConfig(patch_projection="clip", patch_clip=1e-3), optim=OptimConfig(clip="layer", clip_norm=0.1)
    )
    model = build_method(config)
    layers = observed_layers(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    clip = build_clipping(config, layers)
    assert clip is not None
    after = dict(zip(layers, clip(measured(layers))["grad_norm_clipped"].tolist(), strict=True))
    assert after.pop("patch_embed") == pytest.approx(1e-3, rel=1e-2)
    assert list(after.values()) == pytest.approx([0.1] * len(after), rel=1e-3)
    assert build_clipping(TrainConfig(), layers) is None


@pytest.mark.parametrize("clip", ["global", "layer"])
def test_a_trace_holds_the_norms_before_and_after(clip, tmp_path: Path):
    base = tiny_config(write_fashion(tmp_path))
    config = replace(base, optim=replace(base.optim, clip=clip, clip_norm=0.05), trace=str(tmp_path / "run"))
    train(config, Console(quiet=True))
    trace = open_trace(tmp_path / "run")
    before, after = trace["grad_norm"], trace["grad_norm_clipped"]
    assert before.shape == after.shape
    limited = np.sqrt((after**2).sum(0)) if clip == "global" else after.max(0)
    assert (limited <= 0.05 * 1.0001).all()
    assert (before > after * 1.01).any()
    assert (after <= before * 1.0001).all()


def test_without_clipping_there_is_no_such_series(tmp_path: Path):
    config = replace(tiny_config(write_fashion(tmp_path)), trace=str(tmp_path / "run"), steps=4)
    train(config, Console(quiet=True))
    assert open_trace(tmp_path / "run").series == ("grad_norm",)


def stable_twin(p, gradients, lr, wd, beta1, beta2, eps=1e-6):
    mean = square = torch.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g * g
        v = square / (1 - beta2**t)
        rms = (g * g / v.clamp(min=eps**2)).mean().sqrt()
        rate = lr / max(1.0, rms.item())
        p = p - rate * (mean / (1 - beta1**t) / (v.sqrt() + eps) + wd * p)
    return p


def test_stable_adamw_is_its_twin_through_a_spike():
    torch.manual_seed(0)
    shapes = [(5, 4), (3,), ()]
    start = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    parameters = [nn.Parameter(p.clone()) for p in start]
    optimizer = StableAdamW(parameters, lr=0.03, betas=(0.9, 0.99), weight_decay=0.2)
    history = []
    for step in range(30):
        for p in parameters:
            p.grad = torch.randn_like(p) * (50.0 if step == 20 else 1.0)
        history.append([p.grad.clone() for p in parameters])
        optimizer.step()
    for i, p in enumerate(parameters):
        expected = stable_twin(start[i], [g[i] for g in history], 0.03, 0.2, 0.9, 0.99)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)


def test_stable_adamw_moves_less_than_adamw_at_a_spike_only():
    moves = {}
    for name in ("adamw", "stableadamw"):
        model = nn.Linear(20, 20, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = build_optimizer(model, OptimConfig(name, weight_decay=0.0), lr=0.01)
        lengths = []
        for step in range(60):
            before = model.weight.detach().clone()
            generator = torch.Generator().manual_seed(step)
            model.weight.grad = torch.randn(20, 20, generator=generator) * (100.0 if step == 50 else 1.0)
            optimizer.step()
            lengths.append((model.weight.detach() - before).norm().item())
        moves[name] = lengths
    assert moves["stableadamw"][50] < 0.5 * moves["adamw"][50]
    assert moves["stableadamw"][45] == pytest.approx(moves["adamw"][45], rel=0.2)


def test_stable_adamw_refuses_what_is_out_of_range():
    with pytest.raises(ValueError, match="eps 0"):
        StableAdamW([nn.Parameter(torch.ones(1))], lr=0.1, eps=0.0)


@pytest.mark.parametrize("name", ["adamw", "lars", "lamb", "stableadamw"])
def test_every_optimizer_resumes_to_the_last_bit_and_learns(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3))
    x, y = torch.randn(32, 5), torch.randn(32, 3)

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    config, lr = OptimConfig(name, weight_decay=0.01), 1.0 if name == "lars" else 0.01
    first = steps(model, straight := build_optimizer(model, config, lr), 1)
    steps(model, straight, 10)
    resumed = copy.deepcopy(model)
    restored = build_optimizer(resumed, config, lr)
    restored.load_state_dict(copy.deepcopy(straight.state_dict()))
    assert steps(model, straight, 20) < first
    steps(resumed, restored, 20)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_lamb_does_not_clip_the_gradient():
    """Adam's ratio does not see a common factor, but timm's clipping to norm 1 would show in the second step."""
    ends = []
    for scale in (1.0, 1000.0):
        model = nn.Linear(6, 6, bias=False)
        nn.init.eye_(model.weight)
        optimizer = build_optimizer(model, OptimConfig("lamb", weight_decay=0.0), lr=0.01)
        for step, factor in enumerate((1.0, 30.0)):
            generator = torch.Generator().manual_seed(step)
            model.weight.grad = scale * factor * torch.randn(6, 6, generator=generator)
            optimizer.step()
        ends.append(model.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)
