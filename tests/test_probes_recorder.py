"""Recorder: every row reaches the writer in order, in few copies, after a crash too; no step waits for the device."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sensed import HostSyncs
from torch import nn

from foreshock.probes import recorder as recorder_module
from foreshock.probes.recorder import Recorder, layer_parameters, series_of
from foreshock.probes.sensors._to_host import OnTheWay
from foreshock.probes.sensors.feature_knn import FeatureKNN
from foreshock.probes.sensors.grad_norm import GradNorm
from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.schema import Series


class Rows:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self.closed: list[tuple[str, str]] = []

    def extend(self, steps: np.ndarray, values: dict[str, np.ndarray]) -> None:
        self.blocks.append((steps.copy(), {name: value.copy() for name, value in values.items()}))

    def close(self, status: str = "finished", message: str = "") -> None:
        self.closed.append((status, message))

    @property
    def steps(self) -> list[int]:
        return [int(step) for steps, _ in self.blocks for step in steps]

    def __getitem__(self, name: str) -> list[Any]:
        return [
            row
            for steps, values in self.blocks
            for row in (values[name].T.tolist() if name in values else [math.nan] * len(steps))
        ]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Count:
    """A layer series of two layers: the number of the call, and its double."""

    series = (Series("count", ("layer", "step")),)
    calls = 0

    def observe(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"count": torch.tensor([1.0, 2.0]) * self.calls}


def test_rows_of_tensors_and_numbers_arrive_in_order() -> None:
    rows = Rows()
    with Recorder(rows, [Count()], flush_steps=3) as recorder:
        for step in range(10, 18):
            recorder.observe(step, loss=torch.tensor(step / 2, dtype=torch.float64), lr=step / 10)
        assert recorder.rows == 8
    assert rows.steps == list(range(10, 18))
    assert rows["loss"] == [step / 2 for step in range(10, 18)]
    assert rows["lr"] == [step / 10 for step in range(10, 18)]
    assert rows["count"] == [[i, 2 * i] for i in range(1, 9)]
    assert [len(steps) for steps, _ in rows.blocks] == [3, 3, 2]
    assert rows.closed == [("finished", "")]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["number", "tensor", "note"])), max_size=20),
    flush_steps=st.integers(1, 7),
    flush_at=st.sets(st.integers(0, 19)),
)
def test_any_names_at_any_step_and_nan_elsewhere(rows, flush_steps, flush_at) -> None:
    got = Rows()
    with Recorder(got, [], flush_steps=flush_steps) as recorder:
        for step, row in enumerate(rows):
            value = {n: step + ord(n) / 1000 for n in row}
            recorder.observe(
                step,
                **{n: value[n] for n, kind in row.items() if kind == "number"},
                **{n: torch.tensor(value[n], dtype=torch.float64) for n, kind in row.items() if kind == "tensor"},
            )
            recorder.note(**{n: torch.tensor([value[n]]).double() for n, kind in row.items() if kind == "note"})
            if step in flush_at:
                recorder.flush()
    assert got.steps == list(range(len(rows)))
    for name in "abcd":
        expected = [step + ord(name) / 1000 if name in row else math.nan for step, row in enumerate(rows)]
        assert got[name] == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_notes_go_into_the_row_just_observed_even_when_the_block_is_full() -> None:
    rows = Rows()
    with Recorder(rows, [], flush_steps=2) as recorder:
        for step in range(5):
            recorder.observe(step, a=torch.tensor(1.0), b=1.0)
            recorder.note(a=float(step), b=torch.tensor(float(-step)), c=step)
    assert rows["a"] == [0, 1, 2, 3, 4]
    assert rows["b"] == [0, -1, -2, -3, -4]
    assert rows["c"] == [0, 1, 2, 3, 4]


def test_flushes_by_time_with_the_clock_given() -> None:
    rows, clock = Rows(), Clock()
    recorder = Recorder(rows, [], flush_seconds=5.0, clock=clock)
    for step in range(12):
        clock.now = float(step)
        recorder.observe(step)
    assert rows.steps == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert len(rows.blocks) == 2
    recorder.close()
    assert rows["step_time"] == pytest.approx([math.nan] + [1.0] * 11, nan_ok=True)


def test_on_a_cpu_a_second_is_the_default() -> None:
    rows, clock = Rows(), Clock()
    recorder = Recorder(rows, [Count()], clock=clock)
    for step in range(4):
        clock.now = step * 0.4
        recorder.observe(step)
    assert rows.steps == [0, 1, 2]


def test_seconds_counts_the_time_inside() -> None:
    rows, clock = Rows(), Clock()

    class Slow(Count):
        def observe(self) -> dict[str, torch.Tensor]:
            clock.now += 2.0
            return super().observe()

    recorder = Recorder(rows, [Slow()], clock=clock)
    for step in range(3):
        clock.now += 10.0
        recorder.observe(step)
    assert recorder.seconds == 6.0


def test_wall_time_is_unix_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module.time, "time", lambda: 1.7e9)
    rows = Rows()
    with Recorder(rows, []) as recorder:
        recorder.observe(0)
        recorder.observe(1, wall_time=3.0)
    assert rows["wall_time"] == [1.7e9, 3.0]


@pytest.mark.parametrize("error", [RuntimeError("the loss\nis gone"), KeyboardInterrupt(), SystemExit(3)])
def test_the_rows_before_a_crash_are_kept(error: BaseException) -> None:
    rows = Rows()
    recorder = Recorder(rows, [Count()])

    def crash() -> None:
        with recorder:
            for step in range(3):
                recorder.observe(step, loss=torch.tensor(1.0))
            raise error

    with pytest.raises(type(error)):
        crash()
    assert rows.steps == [0, 1, 2]
    ((status, message),) = rows.closed
    assert status == "failed"
    assert message.startswith(type(error).__name__)
    assert "\n" not in message


def test_an_interrupt_inside_observe_leaves_no_half_row() -> None:
    class Interrupted(Count):
        def observe(self) -> dict[str, torch.Tensor]:
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().observe()

    rows = Rows()

    def run() -> None:
        with Recorder(rows, [Count(), Interrupted()]) as recorder:
            for step in range(9):
                recorder.observe(step)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert rows.steps == [0, 1]
    assert rows["count"] == [[1, 2], [2, 4]]


def test_a_second_error_on_the_way_out_is_told_beside_the_first() -> None:
    class Broken(Rows):
        def extend(self, steps: np.ndarray, values: dict[str, np.ndarray]) -> None:
            raise OSError("no such device")

    rows = Broken()

    def crash() -> None:
        with Recorder(rows, []) as recorder:
            recorder.observe(0)
            raise ZeroDivisionError("first")

    with pytest.raises(ZeroDivisionError) as caught:
        crash()
    assert caught.value.__notes__ == ["foreshock could not save the last rows: OSError: no such device"]
    assert rows.closed == [("failed", "ZeroDivisionError: first")]
    with pytest.raises(OSError, match="no such device"), Recorder(rows, []) as recorder:
        recorder.observe(0)


class Late:
    """An event of a copy that is done when it is told to be."""

    def __init__(self) -> None:
        self.ready, self.waited = False, 0

    def query(self) -> bool:
        return self.ready

    def synchronize(self) -> None:
        self.waited += not self.ready


def test_no_step_waits_for_a_copy_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Late] = []

    def copy(table: torch.Tensor) -> OnTheWay:
        events.append(Late())
        return OnTheWay(table.clone(), events[-1])  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(recorder_module, "start_copy", copy)
    rows = Rows()
    recorder = Recorder(rows, [Count()], flush_steps=2, flush_seconds=1e9)
    for step in range(7):
        recorder.observe(step)
    assert len(events) == 3
    assert rows.steps == []
    assert not any(event.waited for event in events)
    events[1].ready = True  # the second is done first: rows still go out in order
    recorder.observe(7)
    assert rows.steps == []
    events[0].ready = True
    recorder.observe(8)
    assert rows.steps == [0, 1, 2, 3]
    recorder.close()
    assert rows.steps == list(range(9))
    assert rows["count"] == [[i, 2 * i] for i in range(1, 10)]
    assert events[2].waited == 1


def test_a_block_on_its_way_is_not_overwritten_by_the_next_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # A copy that really happens late: it reads the table when it is waited for.
    class Lazy(Late):
        def __init__(self, table: torch.Tensor, host: torch.Tensor) -> None:
            super().__init__()
            self.table, self.host = table, host

        def synchronize(self) -> None:
            self.host.copy_(self.table)

    def copy(table: torch.Tensor) -> OnTheWay:
        host = torch.empty_like(table)
        return OnTheWay(host, Lazy(table, host))  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(recorder_module, "start_copy", copy)
    rows = Rows()
    with Recorder(rows, [Count()], flush_steps=2, flush_seconds=1e9) as recorder:
        for step in range(7):
            recorder.observe(step, loss=torch.tensor(float(step)))
    assert rows["loss"] == list(range(7))


def test_a_name_may_come_from_two_devices() -> None:
    # As on a machine with two: the ring of the second is told apart by its key alone.
    rows = Rows()
    with Recorder(rows, []) as recorder:
        recorder.observe(0, loss=torch.tensor(1.0))
        (ring,) = recorder._rings.values()
        recorder._rings = {torch.device("cuda:1"): ring}
        recorder.observe(1, loss=torch.tensor(2.0))
        recorder.observe(2, loss=3.0)
        assert len(recorder._rings) == 2
    assert rows["loss"] == [1.0, 2.0, 3.0]


def test_a_loss_with_a_graph_is_detached() -> None:
    rows = Rows()
    w = torch.ones(3, requires_grad=True)
    with Recorder(rows, []) as recorder:
        recorder.observe(0, loss=(w * 2).sum())
        assert not any(ring.table.requires_grad for ring in recorder._rings.values())
    assert rows["loss"] == [6]


def test_nothing_waits_for_the_device_between_flushes() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    knn = FeatureKNN(32, 8, 3, k=4)
    recorder = Recorder(Rows(), [GradNorm(model), knn], flush_seconds=1e9)
    for step in range(20):
        x, y = torch.randn(16, 4), torch.randint(3, (16,))
        hidden = model[1](model[0](x))
        loss = nn.functional.cross_entropy(model[2](hidden), y)
        model.zero_grad()
        loss.backward()
        with HostSyncs() as syncs:
            knn.feed(hidden, y)
            recorder.observe(step, loss=loss, lr=1e-3)
            recorder.note(accuracy=loss.detach() * 2)
        assert not syncs.counts


def test_runs_on_the_meta_device_where_any_look_at_a_value_is_an_error() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.weight.grad = torch.ones(2, 2)
    recorder = Recorder(Rows(), [GradNorm(model)], flush_steps=64)
    for step in range(64):
        recorder.observe(step, loss=torch.ones((), device="meta"))
    assert recorder.rows == 64


def test_steps_must_increase() -> None:
    recorder = Recorder(Rows(), [])
    recorder.observe(5)
    for step in (5, 4):
        with pytest.raises(ValueError, match=f"got step {step} after step 5"):
            recorder.observe(step)
    recorder.observe(9)
    recorder.close()
    with pytest.raises(ValueError, match=r"after close\(\)"):
        recorder.observe(10)


def test_what_a_row_cannot_hold_is_refused_by_name() -> None:
    recorder = Recorder(Rows(), [Count()])
    with pytest.raises(ValueError, match="no open row"):
        recorder.note(loss=1.0)
    with pytest.raises(ValueError, match=r"loss has shape \[3\]; allowed is one element"):
        recorder.observe(0, loss=torch.ones(3))
    with pytest.raises(ValueError, match=r"loss has shape \[2, 2\]"):
        recorder.observe(0, loss=torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"loss has shape \[2\]"):
        recorder.observe(0, loss=np.ones(2))
    with pytest.raises(ValueError, match=r"count has shape \[\]; allowed is its sensor's tensor"):
        recorder.observe(0, count=1.0)
    recorder.observe(0, loss=torch.ones(1, 1), accuracy=np.float32(0.5))
    with pytest.raises(ValueError, match="count has 3 values and had 2 before"):
        recorder.observe(1, count=torch.ones(3))
    recorder.flush()
    with pytest.raises(ValueError, match="no open row"):
        recorder.note(loss=1.0)
    with pytest.raises(ValueError, match="flush_steps is 0"):
        Recorder(Rows(), [], flush_steps=0)


def test_layers_of_the_writer_and_of_a_sensor_must_agree(tmp_path) -> None:
    sensor = GradNorm(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)))
    with TraceWriter(tmp_path / "run", layers=["a", "b"]) as writer, pytest.raises(ValueError, match="layers"):
        Recorder(writer, [sensor])


def test_series_of_sensors_are_theirs_in_order() -> None:
    knn = FeatureKNN(8, 2, 2, k=2)
    assert [series.name for series in series_of([Count(), knn])] == ["count", "knn_accuracy", "knn_queries"]


def test_layer_parameters_group_and_name_tied_weights_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(4, 2)
            self.lm_head = nn.Linear(2, 4, bias=False)
            self.lm_head.weight = self.wte.weight

    layers = layer_parameters(Tied())
    assert [[name for name, _ in parameters] for parameters in layers.values()] == [["wte.weight"]]
    with pytest.raises(ValueError, match="Tanh has no parameters"):
        layer_parameters(nn.Tanh())


def test_a_real_trace_holds_what_was_observed(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    sensor = GradNorm(model)
    expected = []
    writer = TraceWriter(tmp_path / "run", layers=sensor.layers, series=series_of([sensor]))
    with Recorder(writer, [sensor], flush_steps=4) as recorder:
        for step in range(11):
            model.zero_grad()
            loss = model(torch.randn(5, 3)).square().mean()
            loss.backward()
            recorder.observe(step, loss=loss)
            expected.append([math.hypot(*(float(p.grad.norm()) for p in layer.parameters())) for layer in model])
    trace = open_trace(tmp_path / "run")
    np.testing.assert_allclose(trace["grad_norm"].T, expected, rtol=1e-6)
    total = [math.hypot(*row) for row in expected]
    np.testing.assert_allclose(trace["grad_norm_total"], total, rtol=1e-6)
    assert trace.steps.tolist() == list(range(11))
    assert trace.state == "finished"
    assert set(trace.scalars) >= {"loss", "wall_time", "step_time", "grad_norm_total"}
