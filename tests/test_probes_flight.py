"""The flight recorder: a parameter's norm like its layer's, windows like their slow twin, and training unchanged."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import two_processes
from sensed import HostSyncs, Small, adam, batch, run
from tiny_runs import same, tiny_config, write_fashion
from torch import nn
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from foreshock.probes import find_spikes, flight
from foreshock.probes.alerts import Alerts
from foreshock.probes.flight import BY_PARAMETER, FlightRecorder
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.probes.spikes import Spike
from foreshock.probes.watch import watch
from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.verify import verify
from foreshock.trainer import loop
from foreshock.trainer.loop import train
from foreshock.trainer.optim import set_lr


def slow_norms(model: nn.Module) -> list[float]:
    named = dict(model.named_parameters())
    return [
        math.sqrt(math.fsum(float(g) ** 2 for g in p.grad.double().flatten()))
        if p.requires_grad and p.grad is not None
        else math.nan
        for p in named.values()
    ]


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_the_norm_of_every_parameter(scale: float | None) -> None:
    model = Small()
    sensor = GradNorm(model, by_parameter=True)
    model(batch(0)).square().mean().backward()
    model.blocks[0].mlp.weight.grad = None
    model.head.requires_grad_(False)  # frozen in mid-run: its stale gradient doesn't count
    expected = slow_norms(model)
    for p in model.parameters():
        if scale and p.grad is not None:
            p.grad.mul_(scale)
    sensor.loss_scale = scale
    with HostSyncs() as syncs:
        values = sensor.observe()
    assert not syncs.counts
    assert list(sensor.parameters) == [name for name, _ in model.named_parameters()]
    np.testing.assert_allclose(values[BY_PARAMETER], expected, rtol=1e-5)
    assert values[BY_PARAMETER].isnan().sum() == 3
    plain = GradNorm(model)
    plain.loss_scale = scale
    for name, value in plain.observe().items():
        assert torch.equal(value, values[name]) or value.isnan().any()


def test_a_tied_weight_counts_once_and_names_stay_apart() -> None:
    shared, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    sensor = GradNorm({"a": [("w", shared)], "b": [("v", shared), ("w", own)]}, by_parameter=True)
    shared.grad, own.grad = torch.tensor([3.0, 4.0]), torch.tensor([math.nan, 1.0])
    assert sensor.parameters == {"w": "a", "b/w": "b"}
    assert sensor.observe()[BY_PARAMETER].tolist() == [5.0, math.inf]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Linear(1, 1).to(dtype)
    for p in model.parameters():
        p.grad = torch.full_like(p, 300.0)  # whose square is beyond float16
    assert GradNorm(model, by_parameter=True).observe()[BY_PARAMETER].tolist() == [300.0, 300.0]


def process(rank: int, folder: Path) -> None:
    parallel = DistributedDataParallel(Small())
    parallel(batch(0).chunk(2)[rank]).square().mean().backward()
    whole = GradNorm(parallel, by_parameter=True).observe()[BY_PARAMETER]
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    pieces = []
    for placement in (Shard(0), Replicate()):
        p = nn.Parameter(distribute_tensor(torch.zeros(4), mesh, [placement]))
        p.grad = distribute_tensor(torch.tensor([1.0, 2.0, 4.0, 10.0]), mesh, [placement])
        pieces.append(p)
    split = GradNorm({"a": [(str(i), p) for i, p in enumerate(pieces)]}, by_parameter=True).observe()[BY_PARAMETER]
    torch.save([whole, split], folder / f"{rank}.pt")


def test_two_processes_have_the_norms_of_the_whole_batch_and_of_whole_tensors(tmp_path: Path) -> None:
    two_processes(process, tmp_path)
    model = Small()
    model(batch(0)).square().mean().backward()
    for rank in range(2):
        whole, split = torch.load(tmp_path / f"{rank}.pt")
        np.testing.assert_allclose(whole, slow_norms(model), rtol=1e-4)
        assert split.tolist() == [11.0, 11.0]


class Kept:
    """A writer that remembers the windows as lists."""

    def __init__(self, flight_windows: list[dict[str, Any]] | None = None) -> None:
        self.flight_windows = flight_windows or []
        self.windows: list[dict[str, Any]] = []
        self.events: list[tuple[int, str, str]] = []

    def add_flight(self, steps: np.ndarray, grad_norm: np.ndarray, *, extend: bool, **told: Any) -> None:
        assert (grad_norm == steps).all()
        if not extend:
            self.windows.append({"steps": []})
        self.windows[-1] |= told
        self.windows[-1]["steps"] += steps.tolist()

    def event(self, step: int, kind: str, text: str) -> None:
        self.events.append((step, kind, text))


def spike(layer: str, start: int, length: int = 1, ratio: float = 8.0) -> Spike:
    return Spike(layer, start, start, start, start + length - 1, ratio, 9.0, 5.0, "spike")


def fly(recorder: FlightRecorder, spikes: list[Spike], total: int, pieces: list[int], status: str = "finished") -> None:
    """What the alerts' thread does: spikes are told when they are seen, and again until ten calm steps have passed."""
    done, told, at = set(), 0, 0
    while at < total:
        steps = np.arange(at, min(at + pieces[told % len(pieces)], total))
        at, told, last = int(steps[-1]) + 1, told + 1, int(steps[-1])
        seen = [s for s in spikes if s.start <= last and s not in done]
        done |= {s for s in seen if s.end + 10 <= last}
        recorder.feed(steps, np.broadcast_to(steps, (3, len(steps))), [replace(s, end=min(s.end, last)) for s in seen])
    rest = [replace(s, end=min(s.end, total - 1)) for s in spikes if s.start < total and s not in done]
    recorder.close(status, rest)


def slow_windows(spikes: list[Spike], total: int, status: str) -> list[list[int]]:
    """Step by step: is it within 128 steps of some spike's first 256?"""
    spikes = [s for s in spikes if s.start < total]
    wanted = {
        step
        for s in spikes
        for step in range(total)
        if any(abs(step - flagged) <= 128 for flagged in (s.start, *range(s.start, min(s.end, s.start + 255) + 1)))
    }
    if status == "failed" or any(s.end + 10 >= total for s in spikes):
        wanted |= set(range(max(total - 256, max(wanted, default=-1) + 1), total))
    windows: list[list[int]] = []
    for step in sorted(wanted):
        if not windows or step != windows[-1][-1] + 1 or len(windows[-1]) == 1024:
            windows.append([])
        windows[-1].append(step)
    return windows


@settings(max_examples=60, deadline=None)
@given(
    starts=st.lists(st.tuples(st.integers(0, 1900), st.sampled_from([1, 3, 40, 255, 256, 257, 700])), max_size=6),
    total=st.integers(1, 2000),
    pieces=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    status=st.sampled_from(["finished", "failed"]),
)
def test_windows_are_those_of_the_slow_twin(
    starts: list[tuple[int, int]], total: int, pieces: list[int], status: str
) -> None:
    spikes = [spike(f"layer{i}", start, length) for i, (start, length) in enumerate(starts)]
    kept = Kept()
    fly(FlightRecorder(kept), spikes, total, pieces, status)
    assert [window["steps"] for window in kept.windows] == slow_windows(spikes, total, status)
    for window in kept.windows:
        inside = [s for s in spikes if s.start <= window["steps"][-1] and s.end >= window["steps"][0]]
        assert {s.layer for s in window["spikes"]} <= {s.layer for s in inside}
        assert len(window["spikes"]) == min(4, len(inside))
        assert window["spike_count"] == len(inside)
    if status == "failed":
        assert kept.windows[-1]["cause"] == "error"


def test_a_long_spike_is_cut_and_that_is_said() -> None:
    kept = Kept()
    fly(FlightRecorder(kept), [spike("a", 300, 600), spike("b", 1400, 256)], 2000, [64])
    assert [(w["steps"][0], w["steps"][-1], w["cut"]) for w in kept.windows] == [(172, 683, True), (1272, 1783, False)]


def test_the_strongest_spikes_of_a_window_are_named_and_all_are_counted() -> None:
    kept = Kept()
    fly(FlightRecorder(kept), [spike(f"layer{i}", 300 + i, ratio=i + 2.0) for i in range(20)], 900, [50])
    (window,) = kept.windows
    assert [s.layer for s in window["spikes"]] == [f"layer{i}" for i in range(19, 15, -1)]
    assert window["spike_count"] == 20


def test_a_run_keeps_so_many_windows_and_its_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "MAX_WINDOWS", 3)
    spikes = [spike("a", start) for start in range(200, 3200, 400)]
    kept = Kept(flight_windows=[{"rows": 257}])  # of the run before it was resumed
    fly(FlightRecorder(kept), spikes, 3600, [64], "failed")
    assert [(w["steps"][0], w["steps"][-1]) for w in kept.windows] == [(72, 328), (472, 728), (3344, 3599)]
    assert [(step, kind) for step, kind, _ in kept.events] == [(872, "flight"), (3599, "flight")]
    assert kept.events[1][2].startswith(
        "6 windows of the flight recorder were dropped: a run keeps at most 256 windows"
    )


def test_the_warm_up_makes_no_windows_unless_it_breaks() -> None:
    kept, rise = Kept(), spike("a", 300)
    broken = replace(rise, kind="nonfinite", start=900, onset=900, peak=900, end=900)
    fly(FlightRecorder(kept), [replace(s, warmup=True) for s in (rise, broken)], 1500, [64])
    assert [(w["steps"][0], w["steps"][-1]) for w in kept.windows] == [(772, 1028)]


def test_a_run_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "MAX_BYTES", 4 * 3 * 257 + 1)
    kept = Kept()
    fly(FlightRecorder(kept), [spike("a", start) for start in (200, 600, 1000)], 1400, [64])
    assert len(kept.windows) == 2


def norms(total: int = 1500) -> np.ndarray:
    values = np.exp(np.random.default_rng(0).normal(0, 0.1, (2, total))).astype(np.float32)
    values[0, 400:405] *= 20
    values[1, 407] *= 9
    values[1, 1000] = np.inf
    return values


@pytest.mark.parametrize("block", [1, 64, 1500])
def test_the_detector_of_the_alerts_says_where(tmp_path: Path, block: int) -> None:
    parameters = {"a.weight": "a", "a.bias": "a", "b.weight": "b"}
    writer = TraceWriter(tmp_path / "run", layers=["a", "b"], parameters=parameters)
    alerts = Alerts(writer, (), flight=FlightRecorder(writer))
    detail = norms()[[0, 0, 1]] * np.array([[0.8], [0.6], [1.0]], np.float32)
    for start in range(0, 1500, block):
        at = slice(start, start + block)
        alerts.extend(np.arange(1500)[at], {"grad_norm": norms()[:, at], BY_PARAMETER: detail[:, at]})
    alerts.close()
    trace = open_trace(tmp_path / "run")
    assert [(f.first_step, f.last_step) for f in trace.flights] == [(272, 535), (872, 1128)]
    for window in trace.flights:
        assert window.steps.tolist() == list(range(window.first_step, window.last_step + 1))
        np.testing.assert_array_equal(window.grad_norm, detail[:, window.steps])
    found = {(s.layer, s.start, s.onset, s.peak, s.end, s.kind) for s in find_spikes(trace)}
    told = {(s.layer, s.start, s.onset, s.peak, s.end, s.kind) for f in trace.flights for s in f.spikes}
    assert told == found
    assert math.isinf(trace.flights[1].spikes[0].ratio)
    assert trace.flights[0].parameters == tuple(parameters)
    assert trace.flights[0].layers == ("a", "a", "b")
    assert not verify(tmp_path / "run")


def watched(path: Path | None, steps: int, spikes: tuple[int, ...] = (), **options: Any) -> nn.Module:
    """A run whose loss is 30 times as large in some steps; `path` None trains without a watch."""
    model = Small(dropout=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with watch(model, optimizer, path or "", enabled=path is not None, flight_recorder=True, **options) as w:
        for step in range(steps):
            optimizer.zero_grad()
            (model(batch(step)).square().mean() * (30 if step in spikes else 1)).backward()
            optimizer.step()
            w.step()
    return model


def test_watch_keeps_what_is_around_a_spike(tmp_path: Path) -> None:
    model = watched(tmp_path / "run", 450, (200,))
    trace = open_trace(tmp_path / "run")
    (window,) = trace.flights
    assert (window.first_step, window.last_step, window.cause) == (72, 328, "spike")
    assert window.parameters == tuple(name for name, _ in model.named_parameters())
    for layer, row in zip(trace.layers, trace["grad_norm"], strict=True):
        mine = [owner == layer for owner in window.layers]
        together = np.sqrt((window.grad_norm[mine].astype(float) ** 2).sum(axis=0))
        np.testing.assert_allclose(together, row[window.steps], rtol=1e-5)
    assert {e["kind"] for e in trace.events} == {"spike"}
    assert not verify(tmp_path / "run")


def test_weights_and_random_numbers_are_the_same_without(tmp_path: Path) -> None:
    state = []
    for path in (None, tmp_path / "run"):
        model = watched(path, 100, (80,))
        state.append([*model.parameters(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*state, strict=True))


def test_a_run_that_raises_leaves_its_last_256_steps(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def crash() -> None:
        with watch(model, optimizer, tmp_path / "run", flight_recorder=True) as w:
            for step in range(300):
                model.zero_grad()
                model(torch.ones(1, 1)).sum().backward()
                optimizer.step()
                w.step()
                if step == 298:
                    raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        crash()
    (window,) = open_trace(tmp_path / "run").flights
    assert (window.first_step, window.last_step, window.cause) == (43, 298, "error")
    assert (window.grad_norm == 1).all()


def test_without_it_nothing_is_there(tmp_path: Path) -> None:
    model = Small()
    optimizer = adam(model)
    with watch(model, optimizer, tmp_path / "run") as w:
        run(model, optimizer)
        w.step()
    assert open_trace(tmp_path / "run").flights == ()
    assert not (tmp_path / "run" / "flight").exists()


CHILD = """
import sys, time
import numpy as np
from foreshock.probes.alerts import Alerts
from foreshock.probes.flight import BY_PARAMETER, FlightRecorder
from foreshock.traces import TraceWriter
writer = TraceWriter(sys.argv[1], layers=["a", "b"], parameters={"w": "a", "v": "b"}, flush_seconds=0.01)
alerts = Alerts(writer, (), flight=FlightRecorder(writer))
for start in range(0, 10**9, 30):
    steps = np.arange(start, start + 30)
    norms = np.exp(np.random.default_rng(start).normal(0, 0.1, (2, 30)))
    norms[0] *= np.where(steps % 300 == 200, 20, 1)
    alerts.extend(steps, {"grad_norm": norms, BY_PARAMETER: np.stack([steps, steps])})
    time.sleep(0.002)
"""


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_a_killed_process_leaves_whole_windows_and_is_resumed(tmp_path: Path, windows: int) -> None:
    path = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)])
    try:
        wait_for(lambda: (path / "zarr.json").exists(), "the run is there")
        wait_for(lambda: len(open_trace(path).flights) >= windows, "there are windows")
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not verify(path)
    flights = open_trace(path).flights
    for number, window in enumerate(flights):
        assert window.first_step == 72 + 300 * number
        assert window.last_step == 328 + 300 * number or window is flights[-1]
        assert window.steps.tolist() == list(range(window.first_step, window.last_step + 1))
        assert (window.grad_norm == window.steps).all()
    parameters = {"w": "a", "v": "b"}
    with TraceWriter(path, layers=["a", "b"], parameters=parameters, resume_at=210) as writer:
        kept = FlightRecorder(writer)
        kept.feed(np.arange(210, 230), np.ones((2, 20)), [])
        kept.close("failed", [])
    first, second = open_trace(path).flights
    assert (first.first_step, first.last_step, first.spikes[0].start) == (72, min(209, flights[0].last_step), 200)
    assert first.spikes[0].end <= 209
    assert (second.first_step, second.last_step, second.cause) == (210, 229, "error")
    assert (second.grad_norm == 1).all()
    assert not verify(path)


def test_the_trainer_has_it_too_and_trains_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "data")
    plain = replace(tiny_config(tmp_path / "data"), checkpoint_dir=str(tmp_path / "c"), checkpoint_every=6)
    config = replace(plain, trace=str(tmp_path / "run"), probe=replace(plain.probe, flight_recorder=True))

    def weights() -> Any:
        return torch.load(tmp_path / "c" / "step-00000012.pt", weights_only=True)["model"]

    assert train(plain).status == "finished"
    without = weights()

    def crash(optimizer: Any, lr: float, step: int) -> None:
        if step == 9:
            raise RuntimeError("out of luck")
        set_lr(optimizer, lr, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_lr", crash)
        with pytest.raises(RuntimeError, match="out of luck"):
            train(replace(config, overwrite=True))
    (window,) = open_trace(tmp_path / "run").flights
    assert (window.first_step, window.last_step, window.cause) == (0, 8, "error")
    assert not any(name.startswith("momentum_encoder") for name in window.parameters)
    assert window.grad_norm.shape == (len(window.parameters), 9)
    assert train(replace(config, resume=True)).status == "finished"
    trace = open_trace(tmp_path / "run")
    assert [(f.first_step, f.last_step) for f in trace.flights] == [(0, 5)]  # taken back with the rows
    assert len(trace) == 12
    assert not verify(tmp_path / "run")
    assert same(weights(), without)


def test_the_trainer_refuses_one_without_a_trace(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(ValueError, match="flight_recorder True would have no effect without trace"):
        replace(config, probe=replace(config.probe, flight_recorder=True))
