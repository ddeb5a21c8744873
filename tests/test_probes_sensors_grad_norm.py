"""GradNorm against the obvious loop, in every precision, for frozen, tied, sparse and diverged gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.tensor import Partial

from foreshock.probes.sensors.grad_norm import GradNorm


def slow_norms(layers: dict[str, list[tuple[str, nn.Parameter]]]) -> list[float]:
    """One number at a time, in Python floats."""
    seen: set[int] = set()
    norms = []
    for parameters in layers.values():
        squares = []
        for _, p in parameters:
            if id(p) not in seen and p.requires_grad and p.grad is not None:
                squares += [float(g) ** 2 for g in p.grad.double().flatten()]
            seen.add(id(p))
        norms.append(math.sqrt(math.fsum(squares)) if squares else math.nan)
    return norms


def layers_of(
    *grads: torch.Tensor | None, dtype: torch.dtype | None = None
) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """One layer a gradient."""
    layers = {}
    for index, grad in enumerate(grads):
        p = nn.Parameter(torch.zeros(3 if grad is None else grad.shape, dtype=dtype or getattr(grad, "dtype", None)))
        p.grad = grad
        layers[f"layer{index}"] = [("weight", p)]
    return layers


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**31),
    absent=st.sets(st.integers(0, 19)),
    frozen=st.sets(st.integers(0, 19)),
    scale=st.sampled_from([1e-6, 1.0, 300.0]),
)
def test_equals_the_slow_loop(shape, dtype, seed, absent, frozen, scale) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers, number = {}, 0
    for index, sizes in enumerate(shape):
        layers[f"layer{index}"] = []
        for size in sizes:
            p = nn.Parameter(torch.zeros(size, 2, dtype=dtype))
            if number not in absent:
                p.grad = (torch.randn(size, 2, generator=generator, dtype=torch.float64) * scale).to(dtype)
            p.requires_grad_(number not in frozen)
            layers[f"layer{index}"].append((f"p{number}", p))
            number += 1
    sensor = GradNorm(layers)
    values = sensor.observe()
    expected = torch.tensor(slow_norms(layers), dtype=torch.float64)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    assert sensor.measured == sum(p.requires_grad and p.grad is not None for ps in layers.values() for _, p in ps)
    torch.testing.assert_close(values["grad_norm"].double(), expected, rtol=tolerance, atol=0, equal_nan=True)
    total = expected.square().nansum().sqrt() if sensor.measured else torch.tensor(math.nan, dtype=torch.float64)
    torch.testing.assert_close(values["grad_norm_total"].double(), total, rtol=tolerance, atol=0, equal_nan=True)


def test_result_is_float32_unless_a_gradient_is_float64() -> None:
    assert GradNorm(layers_of(torch.ones(2))).observe()["grad_norm"].dtype == torch.float32
    assert GradNorm(layers_of(torch.ones(2, dtype=torch.bfloat16))).observe()["grad_norm"].dtype == torch.float32
    mixed = layers_of(torch.ones(2, dtype=torch.float64), torch.full((4,), 3.0, dtype=torch.float16), torch.ones(9))
    values = GradNorm(mixed).observe()["grad_norm"]
    assert values.dtype == torch.float64
    assert values.tolist() == [math.sqrt(2), 6.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_neither_overflows_nor_saturates(dtype: torch.dtype) -> None:
    big = torch.full((10_000,), 60_000.0, dtype=dtype)  # its square is far beyond float16's 65504, and so is the norm
    (norm,) = GradNorm(layers_of(big)).observe()["grad_norm"].tolist()
    assert norm == pytest.approx(100 * float(big[0]), rel=1e-5)
    many = torch.full((100_000,), 2.0**-9, dtype=dtype)  # a running sum in bfloat16 would stop growing at 256 terms
    (norm,) = GradNorm(layers_of(many)).observe()["grad_norm"].tolist()
    assert norm == pytest.approx(math.sqrt(100_000) * 2.0**-9, rel=1e-5)


def test_sums_of_squares_beyond_float32_do_not_overflow() -> None:
    layers = {"a": [(str(i), nn.Parameter(torch.zeros(1))) for i in range(4)]}
    for _, p in layers["a"]:
        p.grad = torch.tensor([1e19])
    assert GradNorm(layers).observe()["grad_norm"].tolist() == pytest.approx([2e19])


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_diverged_layer_is_inf_and_never_looks_unmeasured(bad: float, dtype: torch.dtype) -> None:
    broken = torch.ones(5, dtype=dtype)
    broken[3] = bad
    layers = layers_of(torch.ones(4, dtype=dtype), broken, None)
    values = GradNorm(layers).observe()
    assert values["grad_norm"][:2].tolist() == [2.0, math.inf]
    assert values["grad_norm"][2].isnan()
    assert values["grad_norm_total"] == math.inf


def test_no_gradient_at_all_is_nan_in_the_total_too() -> None:
    sensor = GradNorm(layers_of(None, None))
    values = sensor.observe()
    assert values["grad_norm"].isnan().all()
    assert values["grad_norm_total"].isnan()
    assert sensor.measured == 0


def test_a_gradient_of_zero_is_zero() -> None:
    assert GradNorm(layers_of(torch.zeros(3))).observe()["grad_norm"].tolist() == [0.0]


def test_freezing_and_unfreezing_in_mid_run() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    sensor = GradNorm({"first": list(model[0].named_parameters()), "second": list(model[1].named_parameters())})

    def measured() -> list[bool]:
        model.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        return (~sensor.observe()["grad_norm"].isnan()).tolist()

    assert measured() == [True, True]
    model[0].requires_grad_(False)
    assert sensor.observe()["grad_norm"].isnan().tolist() == [True, False]  # its stale .grad is still there
    assert measured() == [False, True]
    model[0].bias.requires_grad_(True)  # a part of a layer: the norm of that part
    assert measured() == [True, True]
    assert sensor.observe()["grad_norm"][0] == pytest.approx(float(model[0].bias.grad.norm()))
    model[0].requires_grad_(True)
    assert measured() == [True, True]


def test_many_different_sets_of_gradients_are_remembered_in_bounds() -> None:
    layers = layers_of(*[torch.ones(1) for _ in range(8)])
    sensor = GradNorm(layers)
    for bits in range(200):
        for index, ((_, p),) in enumerate(layers.values()):
            p.grad = torch.ones(1) if bits >> index & 1 else None
        expected = [bool(bits >> index & 1) for index in range(8)]
        assert (~sensor.observe()["grad_norm"].isnan()).tolist() == expected
    assert len(sensor._plans) <= 64


def test_tied_weights_count_once() -> None:
    embedding = nn.Parameter(torch.zeros(2, 2))
    embedding.grad = torch.full((2, 2), 2.0)
    other = nn.Parameter(torch.zeros(1))
    other.grad = torch.tensor([3.0])
    values = GradNorm({"wte": [("wte", embedding)], "head": [("lm_head", embedding), ("bias", other)]}).observe()
    assert values["grad_norm"].tolist() == [4.0, 3.0]
    assert values["grad_norm_total"] == 5.0


def test_a_layer_with_only_a_tied_weight_is_not_measured() -> None:
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.ones(1)
    values = GradNorm({"a": [("p", p)], "b": [("p", p)]}).observe()["grad_norm"]
    assert values[0] == 1
    assert values[1].isnan()


def test_sparse_embedding_gradients_add_up_before_they_are_squared() -> None:
    embedding = nn.Embedding(10, 2, sparse=True)
    embedding(torch.tensor([3, 3, 7])).sum().backward()
    values = GradNorm({"wte": list(embedding.named_parameters())}).observe()["grad_norm"]
    assert values.tolist() == pytest.approx([math.sqrt(2 * 2**2 + 2 * 1**2)])


def test_loss_scale_is_divided_out() -> None:
    sensor = GradNorm(layers_of(torch.full((4,), 1024.0)))
    sensor.loss_scale = torch.tensor(1024.0)
    assert sensor.observe()["grad_norm"].tolist() == [2.0]


def test_runs_on_the_meta_device_where_any_look_at_a_value_is_an_error() -> None:
    with torch.device("meta"):
        layers = layers_of(torch.ones(3, 3), None, torch.ones(4, dtype=torch.float16))
    values = GradNorm(layers).observe()
    assert values["grad_norm"].shape == (3,)
    assert values["grad_norm"].device.type == "meta"


def test_gradients_not_yet_summed_up_and_empty_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="without a parameter"):
        GradNorm({"a": []})

    class Unsummed(torch.Tensor):
        placements = (Partial(),)

    layers = layers_of(torch.ones(2))
    layers["layer0"][0][1].grad = torch.ones(2).as_subclass(Unsummed)
    with pytest.raises(ValueError, match="Partial DTensor"):
        GradNorm(layers).observe()
