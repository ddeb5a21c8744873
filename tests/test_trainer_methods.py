"""SimCLR, BYOL and SwAV against slow twins; every method by every treatment of the patch projection; refusals."""

import copy
from dataclasses import replace
from itertools import product
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tiny_runs import tiny_config, write_fashion
from torch import nn

from foreshock.traces import open_trace
from foreshock.trainer.config import HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig
from foreshock.trainer.encoder import Encoder
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method, chance, method_names
from foreshock.trainer.methods.byol import byol_loss
from foreshock.trainer.methods.mocov3 import info_nce
from foreshock.trainer.methods.simclr import nt_xent
from foreshock.trainer.methods.swav import sinkhorn, swav_loss
from foreshock.trainer.optim import build_optimizer, set_lr
from foreshock.trainer.result import Result

VIT = VitConfig(image_size=8, in_chans=1, patch_size=4, dim=16, depth=2, heads=2)
HEADS = HeadConfig(hidden=24, out=12)
TREATMENTS = ("learned", "frozen", "slow", "clip", "batch_norm", "weight_norm")


def small(name: str, **method) -> TrainConfig:
    own = {"prototypes": 30, "prototype_frozen_steps": 0, "temperature": 0.1} if name == "swav" else {}
    return TrainConfig(vit=VIT, heads=HEADS, method=MethodConfig(name, **own | method))


def views(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def nt_xent_twin(z1, z2, temperature: float) -> float:
    crops, count, total = [*z1, *z2], len(z1), 0.0
    for i, crop in enumerate(crops):
        weights = {j: exp(cosine(crop, other) / temperature) for j, other in enumerate(crops) if j != i}
        total -= log(weights[(i + count) % (2 * count)] / sum(weights.values()))
    return total / len(crops)


@given(st.integers(2, 6), st.integers(1, 4), st.floats(0.1, 2.0), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_nt_xent_is_its_twin(count, dim, temperature, seed):
    torch.manual_seed(seed)
    z1, z2 = torch.randn(2, count, dim, dtype=torch.float64)
    expected = nt_xent_twin(z1.tolist(), z2.tolist(), temperature)
    assert nt_xent(z1, z2, temperature, loss_scale=False)[0].item() == pytest.approx(expected, rel=1e-9)
    assert nt_xent(z1, z2, temperature)[0].item() == pytest.approx(2 * temperature * expected, rel=1e-9)


def test_simclr_has_a_gradient_into_both_crops():
    z1, z2 = (torch.randn(4, 3).requires_grad_() for _ in range(2))
    nt_xent(z1, z2, 0.2)[0].backward()
    assert z1.grad is not None
    assert z2.grad is not None
    assert z2.grad.abs().sum() > 0


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_byol_loss_is_the_squared_distance_of_unit_vectors(count, dim, seed):
    torch.manual_seed(seed)
    q, k = torch.randn(2, count, dim, dtype=torch.float64)
    total = 0.0
    for a, b in zip(q.tolist(), k.tolist(), strict=True):
        la, lb = sqrt(sum(x * x for x in a)), sqrt(sum(x * x for x in b))
        total += sum((x / la - y / lb) ** 2 for x, y in zip(a, b, strict=True))
    if count > 1:
        assert byol_loss(q, k)[0].item() == pytest.approx(total / count, rel=1e-9, abs=1e-12)


def sinkhorn_twin(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    codes = [[exp(s / epsilon) for s in row] for row in scores]
    for _ in range(iterations):
        sums = [sum(column) for column in zip(*codes, strict=True)]
        codes = [[c / s for c, s in zip(row, sums, strict=True)] for row in codes]
        codes = [[c / sum(row) for c in row] for row in codes]
    return codes


def test_sinkhorn_is_its_twin_and_spreads_evenly():
    scores = torch.rand(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = torch.tensor(sinkhorn_twin(scores.tolist(), 0.05, 3), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), expected, rtol=1e-9, atol=1e-12)
    codes = sinkhorn(scores, 0.05, 500)
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 12 / 5, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_swav_loss_predicts_the_other_crops_codes():
    s1, s2 = torch.randn(2, 7, 4, dtype=torch.float64).clamp(-1, 1)
    codes1, codes2 = (sinkhorn(s, 0.05, 3) for s in (s1, s2))
    expected = 0.0
    for codes, scores in ((codes1, s2), (codes2, s1)):
        for row, score in zip(codes.tolist(), scores.tolist(), strict=True):
            weights = [exp(s / 0.1) for s in score]
            expected -= sum(c * log(w / sum(weights)) for c, w in zip(row, weights, strict=True)) / 7 / 2
    assert swav_loss(s1, s2, 0.1)[0].item() == pytest.approx(expected, rel=1e-9)


def test_swav_prototypes_are_unit_vectors_and_frozen_at_first():
    torch.manual_seed(0)
    model = build_method(small("swav", prototype_frozen_steps=3))
    optimizer = build_optimizer(model, OptimConfig(), lr=0.1)
    start = model.prototypes.weight.detach().clone()
    for step in range(5):
        set_lr(optimizer, 0.1, step)
        optimizer.zero_grad()
        model(*views(seed=step), 0.0).loss.backward()
        moved = not torch.allclose(model.prototypes.weight, start, atol=1e-6)
        assert moved == (step > 3)  # step 3 is the first that moves them, seen in the pass after it
        assert torch.allclose(model.prototypes.weight.norm(dim=1), torch.ones(30), atol=1e-5)
        optimizer.step()


def test_a_diverged_swav_is_recorded_not_hidden(tmp_path: Path):
    config = replace(
        tiny_config(write_fashion(tmp_path)),
        method=MethodConfig("swav", temperature=0.1, prototypes=20, prototype_frozen_steps=0),
        optim=OptimConfig(base_lr=1e12),
        trace=str(tmp_path / "run"),
        nonfinite="record",
    )
    assert train(config, Console(quiet=True)).status == "finished"
    assert not torch.from_numpy(open_trace(tmp_path / "run")["loss"]).isfinite().all()


@pytest.mark.parametrize(
    ("name", "formula", "loss"),
    [
        ("mocov3", "4 x 0.2 x ln 256", 0.8 * log(256)),
        ("simclr", "2 x 0.2 x ln 511", 0.4 * log(511)),
        ("swav", "ln 30", log(30)),
    ],
)
def test_the_chance_line_is_the_loss_of_a_guess(name, formula, loss):
    line = chance(small(name))
    assert line is not None
    assert line.formula == formula
    assert line.loss == pytest.approx(loss)


def test_the_ideal_line_is_the_loss_of_coinciding_pairs_among_orthogonal_others():
    eye = torch.eye(256)
    one_direction = info_nce(eye, eye, 0.2)[0].item()
    ideal = {name: chance(small(name)) for name in ("mocov3", "simclr", "byol")}
    assert ideal["mocov3"] is not None
    assert ideal["mocov3"].ideal == pytest.approx(2 * one_direction, rel=1e-5)
    assert ideal["simclr"] is not None
    assert ideal["simclr"].ideal == pytest.approx(nt_xent(eye, eye, 0.2)[0].item(), rel=1e-5)
    assert ideal["byol"] is None


def test_alike_embeddings_have_the_loss_of_chance():
    same = torch.ones(16, 4)
    assert nt_xent(same, same, 0.2)[0].item() == pytest.approx(0.4 * log(31), rel=1e-5)
    assert swav_loss(torch.zeros(8, 30), torch.zeros(8, 30), 0.1)[0].item() == pytest.approx(log(30), rel=1e-5)


def test_byol_has_no_chance_line_and_its_report_says_none():
    config = small("byol")
    assert chance(config) is None
    result = Result(config=config, status="finished", step=2, start=0, seconds=1.0, loss=1.5)
    assert "loss 1.500" in result.lines()


def test_loss_without_scale_is_in_nats():
    q, k = torch.randn(2, 5, 4)
    assert info_nce(q, k, 0.2)[0].item() == pytest.approx(0.4 * info_nce(q, k, 0.2, loss_scale=False)[0].item())
    line = chance(small("mocov3", loss_scale=False))
    assert line is not None
    assert line.loss == pytest.approx(2 * log(256))


def test_momentum_0_takes_the_keys_from_the_encoder_itself():
    torch.manual_seed(0)
    model = build_method(small("mocov3", momentum=0.0))
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1)
    model(*views(), 0.0)
    for key, query in zip(model.momentum_encoder.parameters(), model.encoder.parameters(), strict=True):
        assert torch.equal(key, query)


REFUSED = [
    ("simclr", {"momentum": 0.9}, {}, "momentum 0.9 would have no effect with method 'simclr'"),
    ("byol", {"temperature": 0.1}, {}, "temperature 0.1 would have no effect with method 'byol'"),
    ("byol", {"loss_scale": False}, {}, "loss_scale"),
    ("mocov3", {"prototypes": 10}, {}, "prototypes 10 would have no effect with method 'mocov3'"),
    ("swav", {"loss_scale": False}, {}, "loss_scale"),
    ("simclr", {}, {"predictor": True}, "has no prediction head"),
    ("swav", {}, {"predictor_last_bn": False}, "predictor_last_bn"),
    ("byol", {}, {"predictor_last_bn": False}, "predictor_last_bn"),
]


@pytest.mark.parametrize(("name", "method", "heads", "message"), REFUSED)
def test_a_switch_without_effect_is_refused(name, method, heads, message):
    with pytest.raises(ValueError, match=message) as error:
        build_method(replace(small(name, **method), heads=HeadConfig(24, 12, **heads)))
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("heads", "norms"),
    [
        ({}, 5),  # two hidden and the last of the projector, two of the predictor
        ({"batch_norm": "hidden"}, 3),
        ({"batch_norm": "none"}, 0),
        ({"predictor": False}, 3),
        ({"predictor_last_bn": False}, 4),
        ({"projector_layers": 2}, 4),
    ],
)
def test_head_switches_change_the_number_of_batch_norms(heads, norms):
    model = build_method(replace(small("mocov3"), heads=HeadConfig(24, 12, **heads)))
    found = sum(
        isinstance(m, nn.BatchNorm1d) for part in (model.encoder.projector, model.predictor) for m in part.modules()
    )
    assert found == norms


@pytest.mark.parametrize(("name", "treatment"), list(product(method_names(), TREATMENTS)))
def test_law_every_treatment_of_the_patch_projection_in_every_method(name, treatment):
    torch.manual_seed(0)
    model = build_method(small(name, patch_projection=treatment))
    patch = model.encoder.backbone.patch_embed
    start = copy.deepcopy(patch.state_dict())
    optimizer = build_optimizer(model, OptimConfig(), lr=1e-3)
    for step in range(3):
        set_lr(optimizer, 1e-3, step)
        optimizer.zero_grad()
        loss = model(*views(seed=step), 0.99).loss
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    moved = [n for n, value in patch.state_dict().items() if not torch.equal(value, start[n])]
    assert bool(moved) == (treatment != "frozen")
    assert any("norm" in n for n in moved) == (treatment == "batch_norm")
    assert any("parametrizations" in n for n in moved) == (treatment == "weight_norm")


def test_a_slow_patch_projection_moves_a_fifth_as_far():
    """One step of AdamW without decay moves every weight by its learning rate."""
    moves = {}
    for treatment in ("learned", "slow"):
        torch.manual_seed(0)
        model = build_method(small("mocov3", patch_projection=treatment))
        start = model.encoder.backbone.patch_embed.proj.weight.detach().clone()
        optimizer = build_optimizer(model, OptimConfig(weight_decay=0.0), lr=1e-3)
        set_lr(optimizer, 1e-3, 0)
        model(*views(), 0.99).loss.backward()
        optimizer.step()
        moves[treatment] = (model.encoder.backbone.patch_embed.proj.weight.detach() - start).abs().mean().item()
    assert moves["slow"] / moves["learned"] == pytest.approx(0.2, rel=1e-3)


def test_weight_norm_starts_as_the_same_function():
    torch.manual_seed(0)
    plain = build_method(small("mocov3"))
    torch.manual_seed(0)
    normed = build_method(small("mocov3", patch_projection="weight_norm"))
    x = views()[0]
    torch.testing.assert_close(plain.encoder.backbone(x), normed.encoder.backbone(x), rtol=1e-5, atol=1e-6)


def test_batch_norm_in_a_backbone_sees_the_two_crops_apart():
    """As for the heads (appendix): the features of a crop do not depend on the other crop."""
    model = build_method(small("mocov3", patch_projection="batch_norm"))
    assert isinstance(model.encoder, Encoder)
    x1, x2 = views()
    _, _, features = model.encoder(torch.cat([x1, x2]))
    _, _, other = model.encoder(torch.cat([x1, 3 * x2 + 1]))
    torch.testing.assert_close(features[:6], other[:6])
    assert F.mse_loss(features[6:], other[6:]) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "treatment"), list(product(method_names(), TREATMENTS)))
def test_300_steps_on_real_images(name, treatment, tmp_path: Path):
    """Every method by every treatment on Fashion-MNIST: the trace is whole and kNN beats chance clearly."""
    from foreshock.trainer.recipes import load_recipe

    recipe = load_recipe("fashion-vit-tiny" if name == "mocov3" else f"fashion-vit-{name}")
    config = replace(
        recipe,
        method=replace(recipe.method, patch_projection=treatment),
        optim=replace(recipe.optim, warmup_steps=50),
        batch_size=128,
        steps=300,
        trace=str(tmp_path / "run"),
        device="cpu",
    )
    result = train(config, Console(quiet=True))
    trace = open_trace(tmp_path / "run")
    assert (result.status, len(trace)) == ("finished", 300)
    measured = torch.from_numpy(trace["grad_norm"]).isfinite().all(dim=1)
    assert [trace.layers[i] for i in range(len(measured)) if not measured[i]] == (
        ["patch_embed"] if treatment == "frozen" else []
    )
    assert result.knn["last"] > 0.25
