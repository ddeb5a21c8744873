"""Laws of every file in probes/sensors: nothing waits, nothing is touched, NaN for frozen, what is declared comes."""

import doctest
import importlib
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes.sensors import layer_parameters, sensor_class, sensor_names
from foreshock.traces.schema import Series

# Ops that make the host wait for the device, or whose result's shape depends on the data.
WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
    "_unique2",
    "repeat_interleave",
    "bincount",
)


class HostSyncs(TorchDispatchMode):
    """Counts the ops in which the host waits for the device; a CPU is enough for that."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        if name in WAITS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.patch_embed(x).tanh())


def trained_once(frozen: bool = False) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = TwoLayers()
    model.patch_embed.requires_grad_(not frozen)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
    return model, optimizer


every_sensor = pytest.mark.parametrize("name", sensor_names())


@every_sensor
def test_declared_series_are_returned(name: str) -> None:
    model, optimizer = trained_once()
    sensor = sensor_class(name).example(model, optimizer)
    values = sensor.observe()
    assert all(isinstance(series, Series) for series in sensor.series)
    assert set(values) == {series.name for series in sensor.series}
    for series in sensor.series:
        expected = (len(layer_parameters(model)),) if series.per_layer else ()
        assert values[series.name].shape == expected
        assert values[series.name].dtype in (torch.float32, torch.float64)
        assert values[series.name].isfinite().all(), "an example must have something to measure"


@every_sensor
def test_nothing_waits_for_the_device(name: str) -> None:
    model, optimizer = trained_once()
    sensor = sensor_class(name).example(model, optimizer)
    with HostSyncs() as syncs:
        sensor.observe()
        sensor.observe()
    assert not syncs.counts


@every_sensor
def test_no_random_number_gradient_or_weight_is_touched(name: str) -> None:
    model, optimizer = trained_once()
    sensor = sensor_class(name).example(model, optimizer)
    before = [(p.detach().clone(), p.grad.clone(), p._version, p.grad._version) for p in model.parameters()]
    random = torch.get_rng_state()
    values = sensor.observe()
    assert torch.equal(torch.get_rng_state(), random)
    for p, (weight, grad, weight_version, grad_version) in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(p.grad, grad)
        assert (p._version, p.grad._version) == (weight_version, grad_version)
    assert not any(value.requires_grad for value in values.values())


@every_sensor
def test_a_frozen_layer_is_nan_and_the_others_are_not(name: str) -> None:
    model, optimizer = trained_once(frozen=True)
    sensor = sensor_class(name).example(model, optimizer)
    values = sensor.observe()
    layers = list(layer_parameters(model))
    for series in sensor.series:
        if series.per_layer:
            row = dict(zip(layers, values[series.name].isnan().tolist(), strict=True))
            assert row == {layer: layer == "patch_embed" for layer in layers}


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
    with pytest.raises(ValueError, match=r"unknown sensor 'grad_nrm'; the known ones are feature_knn, grad_norm"):
        sensor_class("grad_nrm")


@pytest.mark.parametrize("module", ["sensors", "recorder", "watch"])
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"foreshock.probes.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
