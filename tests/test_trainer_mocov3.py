"""MoCo v3: the loss against a twin, the two encoders, batching of the crops, several processes; laws of all methods."""

import copy
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import two_processes
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.trainer.authors import from_authors
from foreshock.trainer.config import HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig
from foreshock.trainer.methods import build_method, method_names
from foreshock.trainer.methods.mocov3 import MoCoV3, build, info_nce
from foreshock.trainer.optim import build_optimizer

VIT = VitConfig(image_size=8, in_chans=1, patch_size=4, dim=16, depth=2, heads=2)
HEADS = HeadConfig(hidden=24, out=12)


def small(patch_projection="learned", name="mocov3") -> TrainConfig:
    return TrainConfig(vit=VIT, heads=HEADS, method=MethodConfig(name, patch_projection=patch_projection))


def views(count=6, seed=0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(2, count, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def info_nce_twin(q: list[list[float]], k: list[list[float]], temperature: float) -> float:
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    total = 0.0
    for i, query in enumerate(q):
        weights = [exp(cosine(query, key) / temperature) for key in k]
        total -= log(weights[i] / sum(weights))
    return 2 * temperature * total / len(q)


@given(st.integers(2, 7), st.integers(1, 5), st.floats(0.1, 2.0), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_info_nce_is_its_twin(count, dim, temperature, seed):
    torch.manual_seed(seed)
    q, k = torch.randn(2, count, dim, dtype=torch.float64)
    loss, _ = info_nce(q, k, temperature)
    assert loss.item() == pytest.approx(info_nce_twin(q.tolist(), k.tolist(), temperature), rel=1e-9)


def test_alike_images_give_the_loss_of_chance():
    same = torch.ones(16, 4)
    loss, logs = info_nce(same, same, 0.2)
    assert loss.item() == pytest.approx(2 * 0.2 * log(16))
    assert logs["contrastive_accuracy"].item() == pytest.approx(1 / 16)
    assert logs["negative_similarity"].item() == pytest.approx(1.0)


def test_logs_say_how_near_the_own_key_and_the_others_are():
    q = torch.eye(3)
    k = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])  # the third query's key is orthogonal to it
    _, logs = info_nce(q, 5 * k, 0.2)
    assert logs["contrastive_accuracy"].item() == pytest.approx(2 / 3)
    assert logs["positive_similarity"].item() == pytest.approx(2 / 3)
    assert logs["negative_similarity"].item() == pytest.approx(1 / 6)


def test_no_gradient_into_the_keys():
    q, k = (half.requires_grad_() for half in torch.randn(2, 5, 4))
    info_nce(q, k, 0.2)[0].backward()
    assert q.grad is not None
    assert k.grad is None


def test_the_loss_is_in_float32_even_under_autocast():
    q, k = torch.randn(2, 64, 32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, logs = info_nce(q, k, 0.2)
    expected, _ = info_nce(q.float(), k.float(), 0.2)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert all(value.dtype == torch.float32 for value in logs.values())


def gather_worker(rank: int, folder: Path, q: torch.Tensor, k: torch.Tensor) -> None:
    mine = q.chunk(2)[rank].clone().requires_grad_()
    loss, logs = info_nce(mine, k.chunk(2)[rank], 0.2)
    loss.backward()
    torch.save((loss.detach(), logs, mine.grad), folder / f"seen.{rank}")


def test_two_processes_contrast_with_the_keys_of_both(tmp_path):
    torch.manual_seed(0)
    q, k = torch.randn(2, 10, 6, dtype=torch.float64)
    two_processes(gather_worker, tmp_path, q, k)
    parts = [torch.load(tmp_path / f"seen.{rank}") for rank in range(2)]
    q.requires_grad_()
    loss, logs = info_nce(q, k, 0.2)
    loss.backward()
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, loss.detach())
    for name, value in logs.items():
        torch.testing.assert_close((parts[0][1][name] + parts[1][1][name]) / 2, value)
    torch.testing.assert_close(torch.cat([parts[0][2], parts[1][2]]) / 2, q.grad)


def plain_forward(model: MoCoV3, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    """Crop by crop through everything, as in the pseudo-code of the paper."""

    def f_q(x):
        return model.predictor(model.encoder.projector(model.encoder.backbone(x)))

    def f_k(x):
        return model.momentum_encoder.projector(model.momentum_encoder.backbone(x))

    q1, q2 = f_q(x1), f_q(x2)
    k1, k2 = f_k(x1), f_k(x2)
    return info_nce(q1, k2, model.temperature)[0] + info_nce(q2, k1, model.temperature)[0]


def test_one_backbone_pass_for_both_crops_gives_what_two_passes_give():
    torch.manual_seed(0)
    model = build(VIT, HEADS, MethodConfig()).double()
    twin = copy.deepcopy(model)
    x1, x2 = views(dtype=torch.float64)
    loss, expected = model(x1, x2, 1.0).loss, plain_forward(twin, x1, x2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-13)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=name)


def test_the_heads_see_each_crop_as_its_own_batch():
    model = build(VIT, HEADS, MethodConfig())
    x1, x2 = views()
    model(x1, x2, 0.99)
    counts = [b.item() for name, b in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [2] * len(counts)
    z1, _, _ = model.encoder(torch.cat([x1, x2]))
    torch.testing.assert_close(z1.mean(0), torch.zeros(12), rtol=0, atol=1e-5)


def test_features_are_the_class_tokens_of_the_first_and_then_of_the_second_view():
    model = build(VIT, HEADS, MethodConfig())
    x1, x2 = views()
    features = model(x1, x2, 0.99).features
    assert features.shape == (12, 16)
    torch.testing.assert_close(features, torch.cat([model.encoder.backbone(x1), model.encoder.backbone(x2)]).detach())


def test_the_encoders_start_alike_and_the_second_has_no_predictor():
    model = build(VIT, HEADS, MethodConfig())
    own, other = model.encoder.state_dict(), model.momentum_encoder.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not any(p.requires_grad for p in model.momentum_encoder.parameters())
    assert {id(p) for p in model.encoder.parameters()}.isdisjoint(map(id, model.momentum_encoder.parameters()))


@given(st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_momentum_update_is_its_twin_and_spares_the_statistics(momentum):
    torch.manual_seed(0)
    model = build(VIT, HEADS, MethodConfig()).double()
    for p in model.encoder.parameters():
        p.data += torch.randn_like(p)
    for buffer in model.encoder.buffers():
        buffer += 1
    before, statistics = copy.deepcopy(model.momentum_encoder), dict(model.momentum_encoder.named_buffers())
    statistics = {name: b.clone() for name, b in statistics.items()}
    model.update_momentum_encoder(momentum)
    triples = zip(model.momentum_encoder.parameters(), before.parameters(), model.encoder.parameters(), strict=True)
    for new, old, own in triples:
        torch.testing.assert_close(new, old * momentum + own.detach() * (1 - momentum), rtol=1e-12, atol=1e-14)
    assert all(torch.equal(b, statistics[name]) for name, b in model.momentum_encoder.named_buffers())


def test_tensors_that_do_not_change_do_not_drift_in_2000_updates():
    model = build(VIT, HEADS, MethodConfig())
    for step in range(2000):
        model.update_momentum_encoder(0.99 + 0.01 * step / 2000)
    for own, other in zip(model.encoder.parameters(), model.momentum_encoder.parameters(), strict=True):
        assert torch.equal(own, other)


def test_keys_come_from_the_updated_momentum_encoder():
    torch.manual_seed(0)
    model = build(VIT, HEADS, MethodConfig())
    with torch.no_grad():
        for p in model.encoder.parameters():
            p += 0.1 * torch.randn_like(p)
    expected = copy.deepcopy(model)
    expected.update_momentum_encoder(0.5)
    x1, x2 = views()
    torch.testing.assert_close(model(x1, x2, 0.5).loss, plain_forward(expected, x1, x2))


def train(model: nn.Module, steps: int, config: OptimConfig) -> None:
    optimizer = build_optimizer(model, config, lr=0.05)
    for step in range(steps):
        x1, x2 = views(seed=step)
        optimizer.zero_grad()
        model(x1, x2, 0.9).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_a_frozen_patch_projection_is_untouched_in_both_encoders(name):
    model = build(VIT, HEADS, MethodConfig(patch_projection="frozen"))
    start = copy.deepcopy(model.state_dict())
    train(model, 5, OptimConfig(name, weight_decay=0.5))
    frozen = [name for name in start if "patch_embed" in name]
    assert len(frozen) == 4
    assert all(torch.equal(start[name], model.state_dict()[name]) for name in frozen)
    assert model.encoder.backbone.patch_embed.proj.weight.grad is None
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert not any(torch.equal(start[name], p) for name, p in trained.items())


def test_a_learned_patch_projection_moves():
    model = build(VIT, HEADS, MethodConfig())
    start = model.encoder.backbone.patch_embed.proj.weight.detach().clone()
    train(model, 2, OptimConfig())
    assert not torch.equal(model.encoder.backbone.patch_embed.proj.weight, start)


def test_views_of_different_size_are_refused():
    model = build(VIT, HEADS, MethodConfig())
    with pytest.raises(ValueError, match="crop both to one size"):
        model(torch.randn(4, 1, 8, 8), torch.randn(6, 1, 8, 8), 0.99)


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ValueError, match=r"method 'mocov4' is unknown: choose one of .*mocov3"):
        build_method(small(name="mocov4"))


def test_a_name_that_is_not_the_authors_is_refused():
    with pytest.raises(ValueError, match=r"'fc\.weight' is not a name of MoCo v3"):
        from_authors({"fc.weight": 0})


@pytest.fixture(params=method_names())
def method(request) -> nn.Module:
    torch.manual_seed(0)
    return build_method(small(name=request.param))


def test_law_output(method):
    output = method(*views(), 0.99)
    assert output.loss.shape == ()
    assert output.loss.requires_grad
    assert output.features.shape == (12, 16)
    assert not output.features.requires_grad
    assert {"contrastive_accuracy", "positive_similarity", "negative_similarity"} <= output.logs.keys()
    assert all(value.shape == () and not value.requires_grad for value in output.logs.values())


def test_law_every_trainable_parameter_has_a_finite_gradient_and_a_known_name(method):
    method(*views(), 0.99).loss.backward()
    named = {name: p for name, p in method.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in named.values())
    parts = ("encoder.backbone.", "encoder.projector.", "predictor.", "prototypes.")
    assert all(name.startswith(parts) for name in named)


class NoReads(TorchDispatchMode):
    """Refuses `.item()`, `float()`, `if tensor:` and all else that makes the host wait for a number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a number was read from the device"
        return func(*args, **(kwargs or {}))


def test_law_a_step_never_reads_a_number_from_the_device(method):
    x1, x2 = views()
    with NoReads():
        with pytest.raises(AssertionError, match="a number was read"):
            x1.sum().item()
        method(x1, x2, 0.99).loss.backward()


def test_law_mixed_precision_keeps_the_loss_in_float32(method):
    with torch.autocast("cpu", torch.bfloat16):
        output = method(*views(), 0.99)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in output.logs.values())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)


def test_law_learns_to_tell_images_apart(method):
    optimizer = build_optimizer(method, OptimConfig(), lr=3e-3)
    x1 = views(32)[0]
    x2 = x1 + 0.1 * torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    losses = []
    for _ in range(60):
        output = method(x1, x2, 0.9)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.7 * losses[0]
