"""Interventions: laws of every file of probes/interventions, and the rule against a slow twin of plain lists."""

import copy
import io
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import two_processes
from sensed import LAYERS, HostSyncs, Small, batch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from foreshock.probes.interventions import intervention_class, intervention_names
from foreshock.probes.interventions._acting import Intervention
from foreshock.probes.interventions._rule import SpikeRule, Thresholds
from foreshock.probes.interventions.clip import Clip
from foreshock.probes.interventions.freeze_layer import FreezeLayer
from foreshock.probes.interventions.skip_update import SkipUpdate
from foreshock.probes.sensors import layer_parameters
from foreshock.probes.watch import Watch, watch
from foreshock.traces import open_trace

every = pytest.mark.parametrize("name", intervention_names())
SOON = {"minimum": 8, "window": 16}
SPIKES = (20, 21, 30)  # steps of a run whose loss is made large


def twin(x: np.ndarray, t: Thresholds) -> list[bool]:
    """What the rule says of each value of one series, by lists and loops."""
    window: list[float] = []
    in_a_row, told = 0, []
    for value in x:
        if not (math.isfinite(value) and value > 0):
            told.append(False)
            continue
        y, spikes = math.log(value), False
        if len(window) >= t.minimum:
            middle = float(np.median(window))
            spread = max(1.4826 * float(np.median([abs(v - middle) for v in window])), t.floor)
            spikes = y - middle >= t.z * spread and y - middle >= math.log(t.ratio)
        in_a_row = in_a_row + 1 if spikes else 0
        if in_a_row > t.longest:
            spikes, in_a_row, window = False, 0, []
        if not spikes:
            window = [*window, y][-t.window :]
        told.append(spikes)
    return told


def judged(x: np.ndarray, t: Thresholds) -> np.ndarray:
    rule = SpikeRule(len(x), t)
    return np.stack([rule.judge(torch.from_numpy(column.copy())).spikes.numpy() for column in x.T], axis=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), window=st.integers(4, 20), longest=st.integers(1, 6))
def test_the_rule_is_its_twin(seed: int, window: int, longest: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(0, 0.2, (3, 120)))
    x *= np.where(rng.random((3, 120)) < 0.1, rng.uniform(2, 30, (3, 120)), 1)
    x[0, 60:] *= 20  # for good
    x[1] = np.where(rng.random(120) < 0.1, rng.choice([0, np.nan, np.inf], 120), x[1])
    t = Thresholds(window=window, minimum=4, longest=longest, z=3.0)
    np.testing.assert_array_equal(judged(x, t), [twin(row, t) for row in x])
    assert judged(x, t).any()


def test_a_level_that_stays_becomes_the_baseline() -> None:
    x = np.r_[np.ones(40), np.full(60, 9.0), [90.0], np.full(9, 9.0)]
    spikes = judged(x[None], Thresholds(minimum=8, longest=5))[0]
    assert np.flatnonzero(spikes).tolist() == [40, 41, 42, 43, 44, 100]


def test_what_is_not_finite_is_broken_and_no_baseline() -> None:
    rule = SpikeRule(2, Thresholds(minimum=2, window=4))
    for _ in range(4):
        rule.judge(torch.tensor([1.0, math.nan]))
    verdict = rule.judge(torch.tensor([math.inf, math.nan]))
    assert (verdict.broken.tolist(), verdict.spikes.tolist()) == ([True, False], [False, False])
    assert (verdict.ratio[0].item(), math.isnan(verdict.ratio[1].item())) == (math.inf, True)
    assert rule.judge(torch.tensor([3.0, 3.0])).spikes.tolist() == [True, False]


@pytest.mark.parametrize("wrong", [{"ratio": 0.5}, {"minimum": 300}, {"longest": 0}, {"z": 0}, {"window": 8.5}])
def test_thresholds_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"threshold {next(iter(wrong))}="):
        SkipUpdate(**wrong)


def make(name: str, layer: Any = "patch_embed", **options: Any) -> Intervention:
    return intervention_class(name)(layer, **SOON | options)


def optimizer_of(model: nn.Module, kind: str) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.1)
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=kind == "fused")


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    w: Watch | None,
    steps: range,
    *,
    spikes: tuple[int, ...] = SPIKES,
    before: Callable[[int], None] = lambda step: None,
) -> None:
    for step in steps:
        before(step)
        optimizer.zero_grad()
        (model(batch(step, 64)).square().mean() * (300.0 if step in spikes else 1.0)).backward()
        optimizer.step()
        if w is not None:
            w.step()


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    kept = [value for values in optimizer.state_dict()["state"].values() for value in values.values()]
    return [*model.state_dict().values(), *(torch.as_tensor(value) for value in kept)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@every
@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_a_run_without_a_spike_is_the_plain_run_to_the_last_bit(tmp_path, name: str, kind: str) -> None:
    ends = []
    for given_one in (None, make(name), make(name, None)):
        model = Small()
        optimizer = optimizer_of(model, kind)
        with watch(model, optimizer, tmp_path / "run", overwrite=True, intervene=given_one) as w:
            train(model, optimizer, w, range(40), spikes=())
        ends.append([x.clone() for x in state(model, optimizer)])
        assert not open_trace(tmp_path / "run").events
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


@every
def test_it_acts_and_an_event_tells_it(tmp_path, name: str) -> None:
    model = Small()
    optimizer = optimizer_of(model, "adamw")
    intervention = make(name)
    with watch(model, optimizer, tmp_path / "run", intervene=intervention) as w:
        assert w.intervention is intervention
        train(model, optimizer, w, range(40))
    trace = open_trace(tmp_path / "run")
    assert [(e["step"], e["kind"]) for e in trace.events] == [(step, "intervention") for step in SPIKES]
    assert all(e["text"].startswith("patch_embed rose ") for e in trace.events)
    assert intervention.count == len(SPIKES)
    assert "intervention" not in (*trace.series, *trace.scalars)
    assert np.isfinite(trace["grad_norm"]).all()  # what would have been is seen as it was
    plain = Small()
    other = optimizer_of(plain, "adamw")
    train(plain, other, None, range(40))
    assert not same(state(model, optimizer), state(plain, other))


@every
def test_the_host_reads_no_more_than_it_says(name: str) -> None:
    model = Small()
    intervention = make(name, LAYERS).attach(layer_parameters(model), optimizer_of(model, "adamw"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    norms, total = torch.ones(4), torch.tensor(2.0)
    for _ in range(20):
        with HostSyncs() as syncs:
            intervention.act(norms, total)
        assert syncs.counts.total() <= intervention.reads_host
    if not intervention.reads_host:
        with HostSyncs() as syncs:
            intervention.act(10 * norms, 10 * total)
        assert not syncs.counts
    assert intervention.words("x rose 2.0-fold").startswith("x rose 2.0-fold")


@every
@pytest.mark.parametrize("after", [19, 21, 25, 31])
def test_a_run_that_goes_on_does_what_the_whole_run_does(tmp_path, name: str, after: int) -> None:
    def go_on(path: Path, model: nn.Module, optimizer: Any, steps: range, saved: dict | None) -> dict:
        with watch(model, optimizer, path, intervene=make(name), resume_at=steps.start or None) as w:
            assert w.intervention is not None
            if saved is not None:
                w.intervention.load_state_dict(saved)
            train(model, optimizer, w, steps)
            file = io.BytesIO()
            torch.save(w.intervention.state_dict(), file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    model, parted = Small(), Small()
    one, two = optimizer_of(model, "adamw"), optimizer_of(parted, "adamw")
    whole = go_on(tmp_path / "whole", model, one, range(45), None)
    saved = go_on(tmp_path / "parts", parted, two, range(after), None)
    rest = go_on(tmp_path / "parts", parted, two, range(after, 45), saved)
    assert same(state(model, one), state(parted, two))
    assert rest["count"] == whole["count"] == len(SPIKES)
    one, two = ([e for e in open_trace(tmp_path / n).events if e["kind"] != "resume"] for n in ("whole", "parts"))
    assert one == two


@pytest.mark.parametrize("kind", ["sgd", "adamw", "fused"])
def test_a_skipped_update_leaves_everything_as_if_it_had_not_been(tmp_path, kind: str) -> None:
    model, without = Small(), Small()
    one, two = optimizer_of(model, kind), optimizer_of(without, kind)
    with watch(model, one, tmp_path / "run", intervene=make("skip_update")) as w:
        train(model, one, w, range(40))
    for step in range(40):
        if step not in SPIKES:
            train(without, two, None, range(step, step + 1))
    assert same(state(model, one), state(without, two))


def test_a_frozen_layer_and_its_memory_stay_and_the_others_go_on(tmp_path) -> None:
    model = Small()
    optimizer = optimizer_of(model, "adamw")
    seen: list[tuple[list[torch.Tensor], torch.Tensor]] = []

    def look(step: int) -> None:
        own = list(model.patch_embed.parameters())
        memory = [torch.as_tensor(v) for p in own for v in optimizer.state[p].values()]
        seen.append(([x.detach().clone() for x in (*own, *memory)], model.head.weight.detach().clone()))

    with watch(model, optimizer, tmp_path / "run", intervene=make("freeze_layer", steps=4)) as w:
        train(model, optimizer, w, range(40), before=look)
    still = [step for step in range(39) if same(seen[step][0], seen[step + 1][0])]
    assert still == [20, 21, 22, 23, 24, 30, 31, 32, 33]  # the second spike begins anew
    assert not any(torch.equal(seen[step][1], seen[step + 1][1]) for step in range(39))
    assert open_trace(tmp_path / "run").events[0]["text"].endswith("-fold: frozen for 4 steps")


@pytest.mark.parametrize("layer", ["patch_embed", "total", ("patch_embed", "head")])
def test_clip_scales_to_the_baseline_and_leaves_the_other_layers(layer: Any) -> None:
    model = Small()
    layers = layer_parameters(model)
    clip = make("clip", layer, factor=1.5).attach(layers, optimizer_of(model, "adamw"))

    def act(scale: float) -> tuple[dict[str, float], torch.Tensor]:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, scale)
        norms = torch.tensor([math.sqrt(sum(p.numel() for _, p in named)) * scale for named in layers.values()])
        _, after = clip.act(norms, norms.square().sum().sqrt())
        return {n: torch.cat([p.grad.flatten() for _, p in named]).norm().item() for n, named in layers.items()}, after

    for _ in range(9):
        act(1.0)
    calm, after = act(1.0)
    assert after.tolist() == pytest.approx(list(calm.values()), rel=1e-6)
    spiked, after = act(10.0)
    clipped = set(LAYERS) if layer == "total" else {layer} if isinstance(layer, str) else set(layer)
    for name in LAYERS:
        assert spiked[name] == pytest.approx(calm[name] * (1.5 if name in clipped else 10), rel=1e-5)
    assert after.tolist() == pytest.approx(list(spiked.values()), rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_with_a_gradient_scaler(tmp_path, fused: bool, early: bool) -> None:
    """The norms are unscaled ones, so a scale that changes is no spike; an overflow stays the scaler's business."""
    model, plain = Small(), Small()
    ends = []
    for net, intervention in ((model, make("skip_update")), (plain, None)):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=5)
        with watch(net, optimizer, tmp_path / "run", overwrite=True, intervene=intervention) as w:
            for step in range(40):
                if step == 20 and intervention is None:
                    continue
                loss = net(batch(step, 64)).square().mean() * {20: 300.0, 12: math.inf}.get(step, 1.0)
                scaler.scale(loss).backward()
                if early:
                    scaler.unscale_(optimizer)
                    w.observe()
                scaler.step(optimizer)
                if step != 20:
                    scaler.update()
                else:
                    scaler._per_optimizer_states.clear()
                w.step()
                optimizer.zero_grad()
        ends.append(state(net, optimizer))
        if intervention is not None:
            assert [e["step"] for e in open_trace(tmp_path / "run").events] == [12, 20]
    assert same(*ends)


@pytest.mark.parametrize("inside", [False, True])
def test_a_closure_has_to_look_itself(tmp_path, inside: bool) -> None:
    model = Small()
    optimizer = optimizer_of(model, "sgd")
    with watch(model, optimizer, tmp_path / "run", intervene=make("skip_update")) as w:

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(batch(step, 64)).square().mean() * (300.0 if step in SPIKES else 1.0)
            loss.backward()
            if inside:
                w.observe()
            return loss

        for step in range(25):
            before = model.head.weight.detach().clone()
            if not inside:
                with pytest.raises(ValueError, match=r"call w.observe\(\) in the closure"):
                    optimizer.step(closure)
                break
            optimizer.step(closure)
            w.step()
            assert torch.equal(before, model.head.weight) is (step in SPIKES)


@every
def test_what_would_have_no_effect_is_refused(name: str) -> None:
    model = Small()
    layers, optimizer = layer_parameters(model), optimizer_of(model, "adamw")
    with pytest.raises(ValueError, match=r"'patch_embd', which is not there; there are patch_embed, blocks\.00"):
        make(name, "patch_embd").attach(layers, optimizer)
    others = torch.optim.SGD(model.blocks.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the optimizer has none of its weights"):
        make(name).attach(layers, others)
    model.patch_embed.requires_grad_(False)
    with pytest.raises(ValueError, match="'patch_embed' would have no effect, since it is frozen"):
        make(name, None).attach(layers, optimizer)
    once = make(name, "head").attach(layers, optimizer)
    with pytest.raises(ValueError, match="attached already"):
        once.attach(layers, optimizer)
    with pytest.raises(ValueError, match="watched"):
        make(name, "blocks.00").attach(layers, optimizer).load_state_dict(once.state_dict())
    with pytest.raises(ValueError, match="make them the same"):
        make(name, "head", z=9.0).attach(layers, optimizer).load_state_dict(once.state_dict())
    with pytest.raises(ValueError, match="unknown threshold 'ration'"):
        make(name, ration=3.0)
    with pytest.raises(ValueError, match="each once"):
        make(name, ("head", "head"))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown intervention 'skip'; the known ones are clip, freeze_layer"):
        intervention_class("skip")
    with pytest.raises(ValueError, match="steps is 0"):
        FreezeLayer(steps=0)
    with pytest.raises(ValueError, match=r"factor is 3\.0; it must be above 0 and at most the ratio 2\.0"):
        Clip(factor=3.0)
    model = Small()
    with pytest.raises(ValueError, match="would stop the whole model"):
        FreezeLayer("total").attach(layer_parameters(model), optimizer_of(model, "sgd"))


def test_a_refused_intervention_leaves_no_trace_behind(tmp_path) -> None:
    model = Small()
    for wrong in ("skip", SkipUpdate("stem")):
        with pytest.raises(ValueError, match=r"skip|stem"):
            watch(model, optimizer_of(model, "sgd"), tmp_path / "run", intervene=wrong)
    assert not (tmp_path / "run").exists()


def alone_or_together(rank: int, world: int, folder: Path, name: str) -> list[torch.Tensor]:
    model = Small().double()
    parallel = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)
    path = folder / f"{name}{world}"
    with watch(model, optimizer, path, enabled=rank == 0, intervene=make(name)) as w:
        for step in range(35):
            optimizer.zero_grad()
            part = batch(step, 64).double().chunk(world)[rank]
            # One process's part alone spikes, and which one changes: only the mean is the same in both.
            scale = 600.0 if step in SPIKES and rank == step % world else 1.0
            (parallel(part).square().mean() * scale).backward()
            optimizer.step()
            w.step()
        assert w.intervention is not None
        assert w.intervention.count == len(SPIKES)
    return [*model.state_dict().values()]


def worker(rank: int, folder: Path) -> None:
    for name in intervention_names():
        torch.save(alone_or_together(rank, 2, folder, name), folder / f"{name}-rank{rank}.pt")


def test_all_processes_decide_alike(tmp_path: Path) -> None:
    two_processes(worker, tmp_path)
    for name in intervention_names():
        first, second = (torch.load(tmp_path / f"{name}-rank{rank}.pt", weights_only=True) for rank in range(2))
        assert same(first, second)
        assert [e["step"] for e in open_trace(tmp_path / f"{name}2").events] == list(SPIKES)


def test_the_example_skips_its_bad_batch(tmp_path, repo_root, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["skip_spikes.py", str(tmp_path / "run")])
    path = repo_root / "examples" / "skip_spikes.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    runpy.run_path(str(path))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("step 300: conv1 rose ")
    assert line.endswith("-fold: its update was skipped")


def test_a_copy_of_the_state_is_not_the_state() -> None:
    model = Small()
    skip = make("skip_update").attach(layer_parameters(model), optimizer_of(model, "sgd"))
    saved = skip.state_dict()
    before = copy.deepcopy(saved)
    skip.act(torch.ones(4), torch.tensor(2.0))
    assert torch.equal(saved["rule"]["known"], before["rule"]["known"])
