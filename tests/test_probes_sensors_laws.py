"""Laws of every file in probes/sensors: nothing waits, nothing is touched, NaN for frozen, what is declared comes."""

import copy
import doctest
import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import two_processes
from sensed import LAYERS, HostSyncs, Small, adam, batch, build, run
from torch.nn.parallel import DistributedDataParallel

from foreshock.probes.sensors import attach, layer_parameters, sensor_class, sensor_names
from foreshock.traces.schema import Series

pytestmark = pytest.mark.filterwarnings("ignore:foreshock. no")  # steps without a forward pass
HOSTS_OWN = ("throughput", "memory")  # of the host's clock and memory: never the same twice
OF_GRADIENTS = ("grad_norm", "grad_max", "grad_cosine", "update_rms", "grad_to_variance", "update_ratio")
every_sensor = pytest.mark.parametrize("name", sensor_names())
of_gradients = pytest.mark.parametrize("name", OF_GRADIENTS)


def has_value(name: str, layer: str) -> bool:
    return name != "attention" or layer.startswith("blocks")


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=tolerance, atol=1e-6, equal_nan=True, msg=f"{key}: {a} {b}")


@every_sensor
def test_declared_series_are_returned(name: str) -> None:
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    values = run(model, optimizer, sensor)[-1]
    assert all(isinstance(series, Series) and series.doc for series in sensor.series)
    assert set(values) == {series.name for series in sensor.series}
    for series in sensor.series:
        assert values[series.name].dtype in (torch.float32, torch.float64)
        if series.per_layer:
            assert sensor.layers == tuple(layer_parameters(model))
            measured = dict(zip(LAYERS, values[series.name].isfinite().tolist(), strict=True))
            assert measured == {layer: has_value(name, layer) for layer in LAYERS}
        else:
            assert values[series.name].shape == ()
            assert values[series.name].isfinite()


@every_sensor
def test_it_tells_its_cost_and_whether_it_waits(name: str) -> None:
    cls = sensor_class(name)
    assert cls.cost
    assert cls.syncs is False
    assert isinstance(cls.of_frozen, bool)


@every_sensor
def test_nothing_waits_for_the_device(name: str) -> None:
    model = Small()
    optimizer = adam(model, foreach=True)  # an optimizer that waits for nothing itself
    sensor = build(name, model, optimizer)
    run(model, optimizer, sensor)
    sensor.observe()
    with HostSyncs() as syncs:
        for _ in range(2):
            model(torch.ones(2, 5, 4)).sum().backward()  # the hooks' share
            sensor.observe()
            getattr(sensor, "after_step", dict)()
    assert not syncs.counts


@every_sensor
def test_a_run_with_it_is_the_run_without_to_the_last_bit(name: str) -> None:
    def weights(with_sensor: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        model = Small(dropout=0.3)
        optimizer = adam(model)
        run(model, optimizer, build(name, model, optimizer) if with_sensor else None, steps=5, clip=0.01)
        return [p.detach() for p in model.parameters()], torch.get_rng_state()

    (without, random), (with_sensor, random_with) = weights(False), weights(True)
    assert all(torch.equal(a, b) for a, b in zip(without, with_sensor, strict=True))
    assert torch.equal(random, random_with)


@every_sensor
def test_no_gradient_or_weight_is_touched_and_no_graph_kept(name: str) -> None:
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    run(model, optimizer, sensor)
    before = [(p.detach().clone(), p.grad.clone(), p._version, p.grad._version) for p in model.parameters()]
    values = sensor.observe() | getattr(sensor, "after_step", dict)()
    for p, (weight, grad, weight_version, grad_version) in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(p.grad, grad)
        assert (p._version, p.grad._version) == (weight_version, grad_version)
    assert not any(value.requires_grad for value in values.values())


@every_sensor
def test_a_layer_that_is_frozen_in_mid_run_and_thawed(name: str) -> None:
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)

    def before(step: int) -> None:
        model.patch_embed.requires_grad_(step not in (3, 4))

    seen = run(model, optimizer, sensor, steps=8, before=before)
    for series in sensor.series:
        if series.per_layer:
            rows = torch.stack([values[series.name] for values in seen]).isnan()
            missing = not sensor.of_frozen or not has_value(name, "patch_embed")
            assert rows[3:5, 0].tolist() == [missing] * 2
            assert not rows[-1, 1:3].any()
            assert rows[-1, 0] == (not has_value(name, "patch_embed"))
            assert not rows[3:5, 1:3].any()


@of_gradients
def test_a_stale_gradient_of_a_frozen_layer_does_not_count(name: str) -> None:
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    run(model, optimizer, sensor)
    model.patch_embed.requires_grad_(False)
    values = sensor.observe() | getattr(sensor, "after_step", dict)()
    assert values[name][0].isnan()


@of_gradients
def test_a_parameter_that_joins_the_optimizer_in_mid_run(name: str) -> None:
    model = Small()
    model.head.requires_grad_(False)
    optimizer = adam(model)
    sensor = build(name, model, optimizer)

    def before(step: int) -> None:
        if step == 2:
            model.head.requires_grad_(True)
            optimizer.add_param_group({"params": list(model.head.parameters())})

    rows = torch.stack([values[name] for values in run(model, optimizer, sensor, steps=5, before=before)])
    assert rows[:2, 3].isnan().all()
    assert rows[3:, 3].isfinite().all()
    assert rows[1:, :3].isfinite().all()


@every_sensor
def test_accumulated_parts_are_one_batch(name: str) -> None:
    if name in (*HOSTS_OWN, "feature_knn"):
        return  # a clock, and a monitor that has its own test of parts
    seen = []
    for parts in (1, 2):
        model = Small()
        optimizer = adam(model, eps=1e-3)  # so that rounding doesn't turn the sign of a first update
        sensor = build(name, model, optimizer)
        seen.append(run(model, optimizer, sensor, parts=parts, steps=4))
    for once, accumulated in zip(*seen, strict=True):
        close(once, accumulated, 1e-3)


@of_gradients
def test_an_overflow_is_never_taken_for_not_measured(name: str) -> None:
    if name == "grad_cosine":
        return  # a broken gradient has no direction
    for broken in (math.inf, -math.inf, math.nan):
        model = Small()
        optimizer = adam(model)
        sensor = build(name, model, optimizer)

        def spoil(step: int, model: Small = model, broken: float = broken) -> None:
            if step == 2:
                model.blocks[0].mlp.weight.grad[0, 0] = broken

        rows = [values[name] for values in run(model, optimizer, sensor, gradients=spoil)]
        assert torch.equal(rows[2].isinf(), torch.tensor([False, True, False, False]))
        assert rows[2][[0, 2, 3]].isfinite().all()


@of_gradients
def test_a_clip_after_the_look_changes_nothing(name: str) -> None:
    rows = []
    for clip in (None, 1e-3):
        model = Small()
        optimizer = adam(model)
        sensor = build(name, model, optimizer)
        run(model, optimizer, sensor, steps=2)
        rows.append(run(model, optimizer, sensor, steps=1, clip=clip)[0][name])
    # update_ratio tells what the optimizer did, and so what the clip did.
    assert torch.equal(*rows) == (name != "update_ratio")


@of_gradients
def test_a_weight_of_two_layers_counts_once_in_the_first(name: str) -> None:
    model = Small()
    model.blocks[1].mlp.weight = model.blocks[0].mlp.weight
    model.blocks[1].mlp.bias = model.blocks[0].mlp.bias
    model.blocks[1].qkv = model.blocks[0].qkv
    optimizer = adam(model)
    layers = {"first": list(model.blocks[0].named_parameters()), "second": list(model.blocks[1].named_parameters())}
    sensor = sensor_class(name).attach(model, optimizer, layers)
    sensor.every = 1
    rows = [values[name] for values in run(model, optimizer, sensor)]
    assert rows[-1].isnan().tolist() == [False, True]


@pytest.mark.parametrize("name", ["grad_norm", "grad_max", "update_rms", "grad_to_variance"])
def test_gradients_that_are_still_scaled(name: str) -> None:
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    run(model, optimizer, sensor)
    plain = sensor.observe()
    for p in model.parameters():
        p.grad.mul_(1024)
    sensor.loss_scale = torch.tensor(1024.0)
    close(sensor.observe(), plain, 1e-6)


@pytest.mark.parametrize("name", [name for name in OF_GRADIENTS if name != "update_ratio"] + ["weight_norm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(name: str, dtype: torch.dtype) -> None:
    model = Small().to(dtype)
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    for step in range(3):
        for i, p in enumerate(model.parameters()):
            p.grad = torch.full_like(p, 300.0 * (1 + i + step))  # whose square is beyond float16
        values = sensor.observe()
        optimizer.step()
    assert values[sensor.series[0].name].isfinite().all()


@pytest.mark.parametrize("name", ["activation", "attention"])
def test_hooks_are_gone_after_close(name: str) -> None:
    model = Small()
    sensor = build(name, model, adam(model))

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    assert hooks()
    sensor.close()
    assert not hooks()


def shared_rows(rank: int, world: int, name: str) -> list[dict[str, torch.Tensor]]:
    model = Small()
    parallel = DistributedDataParallel(model) if world > 1 else model
    optimizer = adam(parallel, eps=1e-3)
    sensor = build(name, parallel, optimizer)
    seen = []
    for step in range(3):
        optimizer.zero_grad()
        images = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(step))
        parallel(images.chunk(world)[rank]).square().mean().backward()
        seen.append(dict(sensor.observe()))
        optimizer.step()
        if hasattr(sensor, "after_step"):
            seen[-1] |= sensor.after_step()
    return seen


def process(rank: int, folder: Path) -> None:
    rows = {name: shared_rows(rank, 2, name) for name in (*OF_GRADIENTS, "weight_norm")}
    torch.save(rows, folder / f"rows{rank}.pt")


def test_two_processes_see_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    two_processes(process, tmp_path)
    for rank in range(2):
        rows: dict[str, Any] = torch.load(tmp_path / f"rows{rank}.pt", weights_only=True)
        for name, seen in rows.items():
            for shared, alone in zip(seen, shared_rows(0, 1, name), strict=True):
                close(shared, alone, 1e-3)


@every_sensor
def test_one_file_is_one_sensor_that_explains_itself(name: str) -> None:
    cls = sensor_class(name)
    assert cls.__doc__
    module = importlib.import_module(cls.__module__)
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_folder_is_the_registry() -> None:
    assert {"grad_norm", "feature_knn"} <= set(sensor_names())
    assert not any(name.startswith("_") for name in sensor_names())
    with pytest.raises(ValueError, match=r"unknown sensor 'grad_nrm'; the known ones are activation, attention, coll"):
        sensor_class("grad_nrm")


def test_sensors_by_name() -> None:
    model = Small()
    built = attach(["update_rms", "collapse"], model, adam(model), layer_parameters(model))
    assert {name: type(sensor).__name__ for name, sensor in built.items()} == {
        "update_rms": "UpdateRMS",
        "collapse": "Collapse",
    }
    with pytest.raises(ValueError, match=r"'feature_knn' needs more than a model: build a FeatureKNN"):
        attach(["feature_knn"], model, adam(model), layer_parameters(model))
    with pytest.raises(ValueError, match=r"update_rms needs the second moment of Adam \(exp_avg_sq\), and SGD has no"):
        attach(["update_rms"], model, torch.optim.SGD(model.parameters()), layer_parameters(model))


@pytest.mark.parametrize("name", ["activation", "attention"])
def test_a_copied_model_is_another_model(name: str) -> None:
    # A copy made after the sensor has the same hooks, and its outputs are not those of the model.
    model = Small()
    optimizer = adam(model)
    sensor = build(name, model, optimizer)
    twin = copy.deepcopy(model)
    model(batch(0))
    expected = sensor.observe()
    model(batch(0))
    twin(100 * batch(1))
    close(sensor.observe(), expected, 1e-6)


@pytest.mark.parametrize("module", ["sensors", "recorder", "watch"])
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"foreshock.probes.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
