"""What the sensors measure, each against a slow and obvious twin or a number worked out by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis
from sensed import Small, adam, batch, run
from torch import nn

from foreshock.probes.sensors import collapse as collapse_module
from foreshock.probes.sensors import layer_parameters
from foreshock.probes.sensors._to_host import OnTheWay
from foreshock.probes.sensors.activation import Activation
from foreshock.probes.sensors.attention import Attention, attention_statistics
from foreshock.probes.sensors.collapse import Collapse, effective_rank
from foreshock.probes.sensors.grad_cosine import GradCosine
from foreshock.probes.sensors.grad_max import GradMax
from foreshock.probes.sensors.grad_to_variance import GradToVariance
from foreshock.probes.sensors.memory import Memory
from foreshock.probes.sensors.throughput import Throughput
from foreshock.probes.sensors.update_ratio import UpdateRatio
from foreshock.probes.sensors.update_rms import UpdateRMS
from foreshock.probes.sensors.weight_norm import WeightNorm
from foreshock.traces import TraceWriter, open_trace


def adams() -> dict[str, Callable[[Any], torch.optim.Optimizer]]:
    from timm.optim import AdamP, Lamb

    from foreshock.trainer.stable_adamw import StableAdamW

    return {
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        "foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True, betas=(0.8, 0.95)),
        "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
        "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
        "stableadamw": lambda p: StableAdamW(p, lr=0.01),
        "lamb": lambda p: Lamb(p, lr=0.01, max_grad_norm=None),
        "adamp": lambda p: AdamP(p, lr=0.01),
    }


def variance(p: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
    """v̂ after a step, from the optimizer's own state."""
    beta2 = optimizer.param_groups[0]["betas"][1]
    return optimizer.state[p]["exp_avg_sq"].double() / (1 - beta2**steps)


@pytest.mark.parametrize("name", ["adam", "fused", "foreach", "nadam", "radam", "stableadamw", "lamb", "adamp"])
def test_update_rms_and_grad_to_variance_are_those_of_the_moment_that_the_step_makes(name: str) -> None:
    model = Small()
    optimizer = adams()[name](model.parameters())
    rms, ratio = UpdateRMS(model, optimizer), GradToVariance(model, optimizer)
    for step in range(6):
        optimizer.zero_grad()
        (model(batch(step)) * (20 if step == 4 else 1)).square().mean().backward()
        seen, seen_ratio = rms.observe()["update_rms"], ratio.observe()["grad_to_variance"]
        optimizer.step()  # only now is v_t there to compare with
        if step == 0:
            assert seen.isnan().all()
            assert seen_ratio.isnan().all()
            continue
        for at, parameters in enumerate(layer_parameters(model).values()):
            own = [p for _, p in parameters]
            squares = [(p.grad.double() ** 2, variance(p, optimizer, step + 1)) for p in own]
            each = torch.cat([(g2 / v.clamp(min=1e-12)).flatten() for g2, v in squares])
            assert seen[at].item() == pytest.approx(each.mean().sqrt().item(), rel=1e-4)
            top, bottom = (sum(pair[i].sum().item() for pair in squares) for i in (0, 1))
            assert seen_ratio[at].item() == pytest.approx(top / bottom, rel=1e-4)
        assert (seen.max() > 2) == (step == 4)


def test_update_rms_holds_a_vanishing_second_moment_at_eps() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    sensor = UpdateRMS(model, optimizer)
    for _ in range(2):
        model.weight.grad = torch.full((1, 1), 1e-8)
        values = sensor.observe()
        optimizer.step()
    assert values["update_rms"].item() == pytest.approx(0.01)  # 1e-8 / 1e-6


def test_counts_on_the_device_are_used_there() -> None:
    # capturable=True keeps the count on the device, which a CPU can only pretend.
    model = Small()
    optimizer = adam(model)
    sensor = UpdateRMS(model, optimizer)
    run(model, optimizer, sensor)
    expected = sensor.observe()["update_rms"]
    for p in model.parameters():
        optimizer.state[p]["step"] = nn.Parameter(optimizer.state[p]["step"], requires_grad=False)  # not a plain tensor
    torch.testing.assert_close(sensor.observe()["update_rms"], expected)


def test_optimizers_without_a_second_moment_are_named() -> None:
    model = Small()
    with pytest.raises(ValueError, match=r"update_rms needs .* and SGD has no betas"):
        UpdateRMS(model, torch.optim.SGD(model.parameters()))
    from timm.optim import Lion

    optimizer = Lion(model.parameters())
    sensor = GradToVariance(model, optimizer)
    with pytest.raises(ValueError, match=r"grad_to_variance needs .* and Lion has only exp_avg in its state"):
        run(model, optimizer, sensor)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "lamb"])
def test_update_ratio_is_what_the_step_did(name: str) -> None:
    from timm.optim import Lamb

    from foreshock.trainer.lars import LARS

    model = Small().double()
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
        "lars": lambda p: LARS(p, 0.1, 0.9, 0.1, 0.001),
        "lamb": lambda p: Lamb(p, lr=0.1),
    }[name](list(model.parameters()))
    sensor = UpdateRatio(model, every=2)
    for step in range(5):
        optimizer.zero_grad()
        model(batch(step).double()).square().mean().backward()
        before = [p.detach().clone() for p in model.parameters()]
        assert sensor.observe()["update_ratio"].isnan().all()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        values = sensor.after_step()
        if step % 2:
            assert values == {}
            continue
        was = dict(zip(model.parameters(), before, strict=True))
        for at, parameters in enumerate(layer_parameters(model).values()):
            moved = torch.cat([(p.detach() - was[p]).flatten() for _, p in parameters]).norm()
            expected = moved / torch.cat([was[p].flatten() for _, p in parameters]).norm()
            assert values["update_ratio"][at].item() == pytest.approx(expected.item(), rel=1e-6)


def test_update_ratio_of_a_step_that_was_not_taken() -> None:
    model = Small()
    sensor = UpdateRatio(model, every=1)
    sensor.observe()
    assert sensor.after_step()["update_ratio"].tolist() == [0.0] * 4  # called, and nothing moved
    assert sensor.after_step() == {}


def test_weight_norm_and_its_samples() -> None:
    model = Small()
    sensor = WeightNorm(model, every=3)
    seen = [values["weight_norm"] for values in run(model, adam(model), sensor, steps=7)]
    assert [bool(row.isnan().all()) for row in seen] == [False, True, True, False, True, True, False]
    sensor.observed = 0
    for norm, parameters in zip(sensor.observe()["weight_norm"], layer_parameters(model).values(), strict=True):
        assert norm.item() == pytest.approx(math.sqrt(sum(w**2 for _, p in parameters for w in p.flatten().tolist())))


def test_a_resumed_run_samples_the_same_steps() -> None:
    model = Small()
    sensor = WeightNorm(model, every=3)
    sensor.observed = 5
    seen = [bool(sensor.observe()["weight_norm"].isnan().all()) for _ in range(4)]
    assert seen == [True, False, True, True]  # steps 5, 6, 7, 8


def test_grad_max() -> None:
    model = Small()
    sensor = GradMax(model)
    values = run(model, adam(model), sensor)[-1]["grad_max"]
    for value, parameters in zip(values, layer_parameters(model).values(), strict=True):
        assert value.item() == max(abs(float(g)) for _, p in parameters for g in p.grad.flatten())


@pytest.mark.parametrize("every", [1, 3])
def test_grad_cosine_is_against_the_step_right_before(every: int) -> None:
    model = Small().double()
    optimizer = adam(model)
    sensor = GradCosine(model, every=every)
    last: list[torch.Tensor] = []
    for step in range(8):
        optimizer.zero_grad()
        model(batch(step).double()).square().mean().backward()
        values = sensor.observe()["grad_cosine"]
        now = [torch.cat([p.grad.flatten() for _, p in own]) for own in layer_parameters(model).values()]
        if step and step % every == 0:
            for value, a, b in zip(values, now, last, strict=True):
                assert value.item() == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), abs=1e-6)
        else:
            assert values.isnan().all()
        last = now
        optimizer.step()


def test_grad_cosine_of_the_same_and_the_opposite_direction() -> None:
    model = Small()
    sensor = GradCosine(model, every=1)
    seen = []
    for factor in (1.0, 3.0, -2.0):
        generator = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.grad = factor * torch.randn(p.shape, generator=generator)
        seen.append(sensor.observe()["grad_cosine"])
    torch.testing.assert_close(seen[1], torch.ones(4))
    torch.testing.assert_close(seen[2], -torch.ones(4))


def test_activation_is_that_of_all_calls_of_the_step() -> None:
    model = Small()
    outputs: dict[str, list[np.ndarray]] = {}
    for name, module in {"patch_embed": model.patch_embed, "blocks.01": model.blocks[1], "head": model.head}.items():
        module.register_forward_hook(
            lambda m, a, out, name=name: outputs.setdefault(name, []).append(out.detach().double().numpy().ravel())
        )
    sensor = Activation(model, every=1)
    model(batch(0))
    model(3 * batch(1, 4) + 2)  # another mean and scale, and another size
    values = {name: dict(zip(sensor.layers, row.tolist(), strict=True)) for name, row in sensor.observe().items()}
    for layer, parts in outputs.items():
        x = np.concatenate(parts)
        assert values["activation_rms"][layer] == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-5)
        assert values["activation_max"][layer] == pytest.approx(np.abs(x).max(), rel=1e-6)
        assert values["activation_kurtosis"][layer] == pytest.approx(kurtosis(x, fisher=False), rel=1e-4)


def test_activation_leaves_out_evaluations_and_steps_between_samples() -> None:
    model = Small()
    sensor = Activation(model, every=2)
    model.eval()
    model(100 * batch(0))
    model.train()
    with torch.no_grad():
        model(100 * batch(0))
    model(batch(0))
    first = sensor.observe()
    model(batch(1))
    assert sensor.observe()["activation_rms"].isnan().all()
    assert first["activation_max"].max() < 20


def test_a_layer_without_a_module_of_its_own_has_no_activation() -> None:
    model = nn.Sequential()
    model.trunk = Small()
    model.trunk.cls_token = nn.Parameter(torch.ones(1))
    sensor = Activation(model, every=1)
    model.trunk(batch(0))
    missing = sensor.observe()["activation_rms"].isnan().tolist()
    assert [layer for layer, nan in zip(sensor.layers, missing, strict=True) if nan] == ["trunk.tokens"]


def test_activation_that_is_not_finite_is_inf_and_a_constant_one_has_no_kurtosis() -> None:
    model = Small()
    sensor = Activation(model, every=1)
    x = batch(0)
    x[0, 0, 0] = math.nan
    model(x)
    assert all(row.isinf().all() for row in sensor.observe().values())
    with torch.no_grad():
        model.patch_embed.weight.zero_()
        model.patch_embed.bias.zero_()
    model(batch(0))
    values = sensor.observe()
    assert (values["activation_rms"][0], values["activation_kurtosis"][0]) == (0, 0)


@pytest.mark.parametrize("cls", [Activation, Attention])
def test_compiled_models_are_refused_or_told_of(cls: Any) -> None:
    model = Small()
    with pytest.raises(ValueError, match=r"by forward hooks, which torch\.compile leaves out"):
        cls(torch.compile(model, backend="eager"))
    sensor = cls(model, every=1)
    compiled = torch.compile(model, backend="eager")
    compiled(batch(0))
    with pytest.warns(UserWarning, match="compiled after watch"):
        values = sensor.observe()
    assert all(row.isnan().all() for row in values.values())
    torch.compiler.reset()


def plain_attention(q, k, mask=None, scale=None) -> tuple[float, float]:
    """One row at a time."""
    largest, entropies = -math.inf, []
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    for b in np.ndindex(*q.shape[:-2]):
        for i in range(q.shape[-2]):
            logits = [float(q[b][i] @ k[b][j]) * scale for j in range(k.shape[-2])]
            if mask is not None:
                row = mask.expand(*q.shape[:-1], k.shape[-2])[b][i]
                allowed = row.tolist() if row.dtype == torch.bool else [True] * len(logits)
                added = [0.0] * len(logits) if row.dtype == torch.bool else row.tolist()
                logits = [x + a for x, a, ok in zip(logits, added, allowed, strict=True) if ok]
            largest = max([largest, *logits])
            weights = [math.exp(x - max(logits)) for x in logits]
            p = [w / sum(weights) for w in weights]
            entropies.append(-sum(x * math.log(x) for x in p if x > 0))
    return largest, sum(entropies) / len(entropies)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 5), m=st.integers(1, 6), mask=st.sampled_from(["none", "bool", "float"]),
    max_bytes=st.sampled_from([1, 200, 2**26]), scale=st.sampled_from([None, 2.0]), seed=st.integers(0, 999),
)  # fmt: skip
def test_attention_statistics_equal_the_plain_softmax(n, m, mask, max_bytes, scale, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = (3 * torch.randn(2, 3, size, 4, generator=generator) for size in (n, m))
    masks = {"none": None, "bool": torch.rand(3, n, m, generator=generator) > 0.4, "float": torch.randn(n, m)}
    chosen = masks[mask]
    if mask == "bool":
        chosen[..., 0] = True
    largest, entropy = attention_statistics(q, k, chosen, scale=scale, max_bytes=max_bytes)
    expected = plain_attention(q.double(), k.double(), chosen, scale)
    assert largest.item() == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
    assert entropy.item() == pytest.approx(expected[1], rel=1e-3, abs=1e-5)


def seen_by(model: nn.Module, *inputs: torch.Tensor, layer: str, **options: Any) -> list[float]:
    sensor = Attention(model, every=1, **options)
    for x in inputs:
        model(x)
    values = sensor.observe()
    sensor.close()
    return [row[sensor.layers.index(layer)].item() for row in values.values()]


def test_attention_of_timm() -> None:
    timm = pytest.importorskip("timm")
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **options)
    inside: dict[str, torch.Tensor] = {}
    attn = model.blocks[1].attn
    attn.qkv.register_forward_hook(lambda m, a, out: inside.update(qkv=out.detach()))
    images = torch.randn(6, 3, 16, 16)
    seen = seen_by(model, images, layer="blocks.01", images=4)
    q, k, _ = inside["qkv"][:4].unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
    assert seen == pytest.approx(plain_attention(q.double(), k.double()), rel=1e-4)
    for block in model.blocks:
        block.attn.fused_attn = False  # written out as softmax(q @ k)
    assert seen_by(model, images, layer="blocks.01", images=4) == pytest.approx(seen, rel=1e-4)


def test_attention_that_keeps_its_weights_is_not_seen() -> None:
    model = nn.Sequential()
    model.embed, model.attend = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
    sensor = Attention(model, every=1)
    x = model.embed(torch.randn(2, 3, 4))
    model.attend(x, x, x)
    with pytest.warns(UserWarning, match="nn.MultiheadAttention with need_weights"):
        assert sensor.observe()["attention_entropy"].isnan().all()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_torch(causal: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0))
    block = model[1]
    x = torch.randn(2, 5, 3)
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    sensor = Attention(model, every=1)
    block(model[0](x), src_mask=mask, is_causal=causal)
    values = [row[1].item() for row in sensor.observe().values()]
    qkv = nn.functional.linear(model[0](x), block.self_attn.in_proj_weight, block.self_attn.in_proj_bias)
    q, k, _ = (part.unflatten(-1, (2, 4)).transpose(1, 2).detach().double() for part in qkv.chunk(3, -1))
    allowed = torch.ones(5, 5, dtype=torch.bool).tril() if causal else None
    assert values == pytest.approx(plain_attention(q, k, allowed), rel=1e-4)


def test_attention_with_shared_keys_and_several_calls() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(4, 16), nn.Linear(4, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k = self.q(x).unflatten(-1, (4, 4)).transpose(1, 2), self.k(x).unflatten(-1, (2, 4)).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)

    model = nn.Sequential()
    model.embed, model.blocks = nn.Identity(), nn.ModuleList([Grouped()])
    model.forward = lambda x: model.blocks[0](x)  # pyright: ignore
    x, y = torch.randn(2, 3, 4), 2 * torch.randn(1, 5, 4)
    largest, entropy = seen_by(model, x, y, layer="blocks.00")
    told = []
    for part in (x, y):
        q, k = model.blocks[0].q(part), model.blocks[0].k(part)
        q = q.unflatten(-1, (4, 4)).transpose(1, 2).detach().double()
        k = k.unflatten(-1, (2, 4)).transpose(1, 2).detach().double().repeat_interleave(2, 1)
        n = part.shape[1]
        told.append((*plain_attention(q, k, torch.ones(n, n, dtype=torch.bool).tril()), len(part) * n))
    assert largest == pytest.approx(max(m for m, _, _ in told), rel=1e-4)
    assert entropy == pytest.approx(sum(e * n for _, e, n in told) / sum(n for _, _, n in told), rel=1e-4)


def test_a_layer_that_raises_leaves_no_mode_behind() -> None:
    model = Small()
    sensor = Attention(model, every=1)
    with pytest.raises(RuntimeError):
        model.blocks[0](torch.ones(2, 5, 7))
    assert sensor._open == []
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.parametrize(("n", "d"), [(50, 6), (6, 50), (1, 4)])
def test_collapse_equals_the_singular_values(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator) @ torch.diag(torch.logspace(0, -2, d)) + 0.3
    sensor = Collapse(every=1)
    for part in x.split(4):
        sensor.feed(part)
    values = sensor.observe()
    singular = np.linalg.svd(x.double().numpy(), compute_uv=False)
    p = singular / singular.sum()
    assert values["effective_rank"].item() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    assert values["feature_std"].item() == pytest.approx(unit.std(0).mean() * math.sqrt(d), rel=1e-4, abs=1e-6)


def test_collapse_from_nothing_to_everything() -> None:
    generator = torch.Generator().manual_seed(0)

    def of(features: torch.Tensor) -> tuple[float, float]:
        sensor = Collapse(every=1)
        sensor.feed(features)
        values = sensor.observe()
        return values["feature_std"].item(), values["effective_rank"].item()

    assert of(torch.ones(64, 16)) == pytest.approx((0, 1), abs=1e-6)  # one point
    line = of(torch.randn(64, 1, generator=generator) * torch.ones(1, 16))
    assert line == pytest.approx((1, 1), abs=0.02)  # two opposite points: spread out, in one direction
    std, rank = of(torch.randn(4096, 16, generator=generator))
    assert (std, rank) == (pytest.approx(1, abs=0.02), pytest.approx(16, abs=0.1))
    assert of(torch.zeros(8, 4)) == (0, 0)
    assert of(torch.full((8, 4), math.nan)) == (math.inf, math.inf)


def test_collapse_takes_evenly_spaced_rows_of_a_long_batch() -> None:
    sensor = Collapse(every=1, samples=4)
    features = torch.eye(8)[torch.arange(8)]
    sensor.feed(features)
    assert sensor.observe()["effective_rank"].item() == pytest.approx(4)


def test_collapse_never_waits_for_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        ready = False

        def query(self) -> bool:
            return self.ready

        def synchronize(self) -> None:
            assert self.ready, "waited"

    late = Late()
    monkeypatch.setattr(collapse_module, "start_copy", lambda gram: OnTheWay(gram.clone(), late))  # type: ignore
    sensor = Collapse(every=3)
    ranks = []
    for step in range(4):
        sensor.feed(torch.eye(4))
        late.ready = step == 2
        ranks.append(sensor.observe()["effective_rank"].item())
    assert [math.isnan(rank) for rank in ranks] == [True, True, False, True]
    assert ranks[2] == pytest.approx(4)


def test_collapse_refuses_other_shapes() -> None:
    sensor = Collapse()
    with pytest.raises(ValueError, match=r"got features \[4\]; allowed are \[N, D\]"):
        sensor.feed(torch.ones(4))
    sensor.feed(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got features \[2, 4\]; allowed are \[N, 3\]"):
        sensor.feed(torch.ones(2, 4))


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12), zeros=st.integers(0, 5))
def test_effective_rank_lies_between_one_and_the_number_of_values(values: list[float], zeros: int) -> None:
    rank = effective_rank(np.diag(np.array([*values, *[0.0] * zeros]) ** 2))
    assert 1 - 1e-9 <= rank <= len(values) + 1e-9
    p = np.array(values) / sum(values)
    assert rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_throughput_over_a_window() -> None:
    times = iter([0.0, 1.0, 3.0, 4.0, 4.0])
    sensor = Throughput(window=2, clock=lambda: next(times))
    seen = []
    for items in (10, 10, 30, 40, 0):
        sensor.feed(items / 2)
        sensor.feed(items / 2)
        seen.append(sensor.observe()["items_per_second"].item())
    assert seen[1:] == [10, 40 / 3, 70 / 3, 40]
    with pytest.raises(ValueError, match="items is -1"):
        sensor.feed(-1)


def test_throughput_counts_steps_until_it_is_fed() -> None:
    times = iter([0.0, 0.25])
    sensor = Throughput(clock=lambda: next(times))
    assert [sensor.observe()["items_per_second"].item() for _ in range(2)][1] == 4


def test_memory_of_the_process() -> None:
    sensor = Memory("cpu", every=1)
    before = sensor.observe()
    ballast = torch.ones(2**27)  # 512 MiB, more than what earlier tests left for the taking
    after = sensor.observe()
    assert after["memory_allocated"] - before["memory_allocated"] > 0.5 * 4 * len(ballast)
    assert after["memory_peak"] >= after["memory_allocated"] > 0


@pytest.mark.parametrize("cls", [WeightNorm, UpdateRatio, GradCosine, Activation, Attention])
def test_every_is_at_least_one(cls: Any) -> None:
    with pytest.raises(ValueError, match="every is 0; it must be at least 1"):
        cls(Small(), every=0)


def test_all_of_them_in_one_trace(tmp_path) -> None:
    from foreshock.probes.recorder import Recorder
    from foreshock.probes.sensors import attach, sensor_names, series_of

    model = Small()
    optimizer = adam(model)
    names = [name for name in sensor_names() if name != "feature_knn"]
    sensors = attach(names, model, optimizer, layer_parameters(model))
    layers = list(layer_parameters(model))
    with (
        TraceWriter(tmp_path / "run", layers=layers, series=series_of(sensors.values())) as writer,
        Recorder(writer, list(sensors.values())) as recorder,
    ):
        for step in range(21):
            optimizer.zero_grad()
            features = model(batch(step))
            features.square().mean().backward()
            sensors["collapse"].feed(features)
            recorder.observe(step)
            optimizer.step()
            recorder.after_step()
    trace = open_trace(tmp_path / "run")
    assert np.isfinite(trace["update_rms"]).sum(1).tolist() == [20] * 4
    assert np.isfinite(trace["update_ratio"]).sum(1).tolist() == [3] * 4
    assert np.isfinite(trace["attention_entropy"]).sum(1).tolist() == [0, 1, 1, 0]
    assert np.isfinite(trace["effective_rank"]).sum() == 1
    assert trace.units["memory_peak"] == "bytes"
    assert not any(m._forward_hooks for m in model.modules())
