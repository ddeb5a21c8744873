"""The linear probe: its heads against one plain torch loop each, what chooses the learning rate, and the command."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import write_checkpoint
from torch import Tensor, nn

from foreshock.cli.__main__ import main
from foreshock.trainer.batches import generator
from foreshock.trainer.config import DataConfig, HeadConfig, OptimConfig, TrainConfig, VitConfig
from foreshock.trainer.evaluate import linear
from foreshock.trainer.evaluate._heads import Heads, Recipe, train_heads
from foreshock.trainer.evaluate._source import open_source
from foreshock.trainer.loop import train


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("linear"))


def cached(passes: int, images: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=random)
    centres = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    noise = torch.randn(passes, images, dim, generator=random, dtype=torch.float64)
    return centres[labels] + noise, labels


def slow_head(passes: Tensor, labels: Tensor, classes: int, recipe: Recipe, i: int) -> tuple[nn.Module, nn.Linear]:
    """Learning rate `i` alone, by torch's layers, optimizer and autograd."""
    layer = nn.Linear(passes.shape[-1], classes, dtype=torch.float64)
    start = 0.01 * torch.randn(passes.shape[-1], 1, classes, generator=generator(recipe.seed, 5))
    layer.weight.data.copy_(start[:, 0].T)
    nn.init.zeros_(layer.bias)
    norm = nn.BatchNorm1d(passes.shape[-1], affine=False, dtype=torch.float64)
    before: nn.Module = norm if recipe.head == "batch_norm" else nn.Identity()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=recipe.momentum)
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr(epoch)[i].item()
        order = torch.randperm(len(labels), generator=generator(recipe.seed, 6, epoch))
        for start_of_batch in range(0, len(labels), recipe.batch_size):
            batch = order[start_of_batch : start_of_batch + recipe.batch_size]
            loss = F.cross_entropy(layer(before(passes[epoch % len(passes)][batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return before.eval(), layer


@pytest.mark.parametrize("head", ["linear", "batch_norm"])
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(2, 40), st.integers(1, 6), st.integers(2, 5))
@settings(max_examples=15, deadline=None)
def test_every_head_is_that_of_a_plain_loop(head, seed, passes, images, dim, classes) -> None:
    features, labels = cached(passes, images, dim, classes, seed)
    # BatchNorm of torch refuses a batch of one image.
    batch_size = max(2, images // 2) if images % max(2, images // 2) != 1 else images
    recipe = Recipe((0.03, 0.5, 4.0), epochs=4, batch_size=batch_size, head=head, seed=seed)
    heads = train_heads(features, labels, classes, recipe)
    for i in range(3):
        before, layer = slow_head(features, labels, classes, recipe, i)
        columns = slice(i * classes, (i + 1) * classes)
        assert torch.allclose(heads.weight[:, columns], layer.weight.T, rtol=1e-9, atol=1e-9)
        assert torch.allclose(heads.bias[columns], layer.bias, rtol=1e-9, atol=1e-9)
        assert torch.equal(heads.classes(features[0])[i], layer(before(features[0])).argmax(1))


def test_a_head_trains_the_same_alone_as_beside_others() -> None:
    features, labels = cached(2, 100, 5, 3)
    beside = train_heads(features, labels, 3, Recipe((0.1, 1.0, 30.0), epochs=3, batch_size=32))
    alone = train_heads(features, labels, 3, Recipe((1.0,), epochs=3, batch_size=32))
    assert torch.allclose(beside.weight[:, 3:6], alone.weight, rtol=1e-12, atol=1e-12)


def test_a_diverged_head_is_wrong_everywhere_and_spoils_no_other() -> None:
    features, labels = cached(1, 100, 5, 3)
    heads = train_heads(features, labels, 3, Recipe((0.1, float("inf")), epochs=3, batch_size=32))
    found = heads.classes(features[0])
    alone = train_heads(features, labels, 3, Recipe((0.1,), epochs=3, batch_size=32))
    assert (found[1] == -1).all()
    assert torch.equal(found[0], alone.classes(features[0])[0])


def test_rows_that_are_held_out_have_no_influence() -> None:
    features, labels = cached(2, 60, 4, 3)
    rows = torch.arange(40)
    first = train_heads(features, labels, 3, Recipe((0.1,), epochs=2, batch_size=16), rows=rows)
    features[:, 40:] = 1e9
    second = train_heads(features, labels, 3, Recipe((0.1,), epochs=2, batch_size=16), rows=rows)
    assert torch.equal(first.weight, second.weight)


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    recipe = Recipe((2.0, 8.0), epochs=90)
    assert recipe.lr(0).tolist() == [2.0, 8.0]
    assert recipe.lr(45).tolist() == pytest.approx([1.0, 4.0])
    assert 0 < recipe.lr(89)[0] < 1e-3


def settings_of(saved: Path, **changes: object) -> linear.Settings:
    given = {"checkpoint": saved, "epochs": 6, "passes": 2, "batch_size": 64, "lrs": (0.1, 3.0, 1e6), "device": "cpu"}
    return linear.Settings(**given | changes)  # pyright: ignore[reportArgumentType]


def test_the_cache_holds_the_backbones_features_of_both_passes(saved: Path) -> None:
    given = settings_of(saved, limit_train=50)
    subject = open_source(given)
    cache = linear._fill(given, subject)
    assert cache.passes.shape == (2, 50, 8)
    backbone = subject.model.backbone
    for i in range(2):
        crops = torch.cat(list(subject.reader(subject.train).augmented(0, i)))
        assert torch.allclose(cache.passes[i], backbone(crops), atol=1e-6)
    assert torch.allclose(cache.train, backbone(torch.cat(list(subject.reader(subject.train).plain()))), atol=1e-6)
    assert not torch.allclose(cache.passes[0], cache.passes[1])


def test_the_test_images_choose_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the test labels changed to nonsense, the same learning rate is chosen and the same head reported."""
    chosen, weights = [], []
    fill, refit = linear._fill, linear.train_heads

    def remember(*args, **kwargs) -> Heads:
        heads = refit(*args, **kwargs)
        weights.append(heads.weight)
        return heads

    monkeypatch.setattr(linear, "train_heads", remember)
    for spoil in (False, True):

        def filled(given, subject, spoil=spoil):
            cache = fill(given, subject)
            if spoil:
                cache.test_labels.random_(10)
            return cache

        monkeypatch.setattr(linear, "_fill", filled)
        chosen.append(linear.evaluate(settings_of(saved)).headline)
    assert chosen[0]["base_lr"] == chosen[1]["base_lr"]
    assert chosen[0]["accuracy"] != chosen[1]["accuracy"]
    assert torch.equal(weights[1], weights[3])


def test_the_command_reports_last_and_best_of_every_learning_rate(saved: Path, capsys) -> None:
    argv = ["evaluate", "linear", str(saved), "--epochs", "6", "--passes", "2", "--batch-size", "64"]
    argv += ["--lrs", "0.1", "3", "1000000", "--device", "cpu"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["base_lr"] for row in found["results"]] == [0.1, 3.0, 1e6]
    for row in found["results"]:
        assert row["test_best"] >= row["test_last"]
        assert row["held_out_best"] >= row["held_out_last"]
        assert 1 <= row["test_best_epoch"] <= 6
    (chosen,) = [row for row in found["results"] if row["chosen"]]
    assert chosen["held_out_last"] == max(row["held_out_last"] for row in found["results"])
    assert found["headline"]["base_lr"] == chosen["base_lr"]
    assert found["headline"]["low"] < found["headline"]["accuracy"] < found["headline"]["high"]
    protocol = found["protocol"]
    assert (protocol["cached_passes"], protocol["held_out_images"], protocol["epochs"]) == (2, 30, 6)
    assert protocol["cached_features_mb"] == round(4 * 2 * 300 * 8 / 1e6, 1)
    assert "held-out" in protocol["learning_rate_chosen_on"]
    assert main([*argv, "--head", "batch_norm"]) == 0
    printed = capsys.readouterr().out
    assert "BatchNorm" in printed
    assert "95 % interval" in printed
    assert "with hindsight" in printed


def test_a_choice_at_the_end_of_the_sweep_is_said(saved: Path) -> None:
    assert any("widen --lrs" in note for note in linear.evaluate(settings_of(saved, lrs=(1e-6, 0.3))).notes)
    assert not any("widen --lrs" in note for note in linear.evaluate(settings_of(saved, lrs=(0.3,))).notes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passes": 7}, "passes 7 are more than epochs 6"),
        ({"lrs": ()}, "at least one learning rate"),
        ({"lrs": (0.1, -1.0)}, "lrs"),
        ({"held_out": 0.001}, "leaves none on one side"),
        ({"cache_gb": 1e-6}, r"2 passes of features need 0\.0 GB"),
        ({"head": "mlp"}, "head"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(saved: Path, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as found:
        linear.evaluate(settings_of(saved, **changes))
    assert "\n" not in str(found.value)


@pytest.mark.slow
def test_training_beats_the_untrained_network_on_real_images(tmp_path: Path) -> None:
    """150 steps of a ViT of two blocks on Fashion-MNIST; both probes see 3,000 training images."""
    config = TrainConfig(
        vit=VitConfig(patch_size=7, dim=32, depth=2, heads=4),
        heads=HeadConfig(hidden=64, out=32),
        data=DataConfig(limit=4000),
        optim=OptimConfig(base_lr=8e-3, warmup_steps=20, schedule="cosine"),
        batch_size=128,
        steps=150,
        device="cpu",
        checkpoint_dir=str(tmp_path),
    )
    train(config)
    given = {"limit_train": 3000, "limit_test": 2000, "epochs": 30, "passes": 4, "lrs": (0.1, 0.3, 1.0, 3.0)}
    trained, untrained = (
        linear.evaluate(settings_of(tmp_path, random=random, batch_size=1024, **given)).headline["accuracy"]
        for random in (False, True)
    )
    assert trained > untrained + 0.03
