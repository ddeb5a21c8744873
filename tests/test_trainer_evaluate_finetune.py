"""Fine-tuning: the published numbers, the update against a plain loop, and small runs from end to end."""

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_checkpoints import write_checkpoint
from tiny_runs import tiny_config, write_fashion, write_images
from torch import nn

from foreshock.cli.__main__ import main
from foreshock.trainer.batches import generator
from foreshock.trainer.config import ResNetConfig, VitConfig
from foreshock.trainer.evaluate import finetune
from foreshock.trainer.evaluate._source import open_source
from foreshock.trainer.evaluate._tuning import TRANSFER, Tuning, lr_at
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method

PLAIN = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "smoothing": 0.1, "warmup_epochs": 0.5}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("finetune"))


def settings_of(saved: Path, **changes: object) -> finetune.Settings:
    given = {"checkpoint": saved, "epochs": 2, "batch_size": 64, "base_lr": 0.02, "device": "cpu", "warmup_epochs": 0.5}
    return finetune.Settings(**given | changes)  # pyright: ignore[reportArgumentType]


def test_the_published_numbers_of_every_data_set(saved: Path) -> None:
    settings = finetune.Settings(checkpoint=saved)
    assert set(TRANSFER) == {"cifar-10", "cifar-100", "flowers-102", "pets"}
    common = (100, 128, 3e-4)
    for name in TRANSFER:
        tuning = settings.tuning(name, 224)
        assert (tuning.epochs, tuning.batch_size, tuning.base_lr) == common
        assert tuning.rand_augment == 9
    cifar, hundred, flowers, pets = (settings.tuning(name, 224) for name in TRANSFER)
    assert (cifar.mixup, cifar.cutmix, cifar.drop_path, cifar.erasing, cifar.weight_decay) == (0.8, 1, 0.1, 0, 0.1)
    assert hundred == replace(cifar, mixup=0.5)
    assert flowers == replace(cifar, mixup=0, cutmix=0, erasing=0.25, weight_decay=0.3)
    assert pets == replace(cifar, cutmix=0, drop_path=0)
    assert settings.tuning("fashion-mnist", 28) == replace(cifar, rand_augment=0)


def test_what_is_given_wins(saved: Path) -> None:
    settings = finetune.Settings(checkpoint=saved, weight_decay=0.0, rand_augment=5)
    tuning = settings.tuning("flowers-102", 28)
    assert (tuning.weight_decay, tuning.rand_augment, tuning.erasing) == (0.0, 5, 0.0)


def test_the_update_is_that_of_a_plain_loop(saved: Path) -> None:
    given = settings_of(saved, **PLAIN)
    torch.manual_seed(given.seed)
    tuning = given.tuning("fashion-mnist", 28)
    subject = open_source(given)
    torch.manual_seed(0)
    model = finetune._classifier(subject, tuning)
    twin = finetune._classifier(open_source(given), tuning)
    twin.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(
        finetune.parameter_groups(model.named_parameters(), tuning.weight_decay), lr=tuning.lr
    )
    losses = [finetune._train_epoch(model, optimizer, subject, given, tuning, epoch) for epoch in range(2)]

    decayed = [p for n, p in twin.named_parameters() if p.ndim > 1 and not n.endswith(("cls_token", "pos_embed"))]
    free = [p for n, p in twin.named_parameters() if p.ndim <= 1 or n.endswith(("cls_token", "pos_embed"))]
    assert len(decayed) + len(free) == len(list(twin.parameters()))
    plain = torch.optim.AdamW([{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.1}], lr=1.0)
    for epoch in range(2):
        order = torch.randperm(300, generator=generator(0, 8, epoch))
        part = replace(subject.train, index=order, labels=subject.train.labels[order])
        crops = torch.cat(list(replace(subject.reader(part), batch=64).augmented(0, epoch)))
        total = 0.0
        for step, start in enumerate(range(0, 300, 64)):
            peak = 0.02 * 64 / 512
            at = epoch + step / 5
            cosine = 1e-5 + (peak - 1e-5) * 0.5 * (1 + math.cos(math.pi * (at - 0.5) / 1.5))
            for group in plain.param_groups:
                group["lr"] = peak * at / 0.5 if at < 0.5 else cosine
            logits = twin(crops[start : start + 64])
            loss = F.cross_entropy(logits, part.labels[start : start + 64], label_smoothing=0.1)
            plain.zero_grad()
            loss.backward()
            plain.step()
            total += loss.item()
        assert losses[epoch] == pytest.approx(total / 5, rel=1e-5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_every_weight_is_trained_and_a_branch_is_dropped_more_often_in_later_blocks(saved: Path) -> None:
    subject = open_source(settings_of(saved))
    model = finetune._classifier(subject, Tuning(drop_path=0.3))
    assert all(p.requires_grad for p in model.parameters())
    blocks = model[0].blocks  # pyright: ignore[reportAttributeAccessIssue]
    assert [block.drop_path2.drop_prob for block in blocks] == pytest.approx([0.0, 0.3])  # pyright: ignore


def test_mixed_targets_are_distributions() -> None:
    x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
    for tuning in (Tuning(), Tuning(mixup=0.0), Tuning(cutmix=0.0)):
        mix = finetune._mix(tuning, 3)
        assert mix is not None
        mixed, target = mix(x, y)
        assert mixed.shape == x.shape
        assert torch.allclose(target.sum(1), torch.ones(8))
    assert finetune._mix(Tuning(mixup=0.0, cutmix=0.0), 3) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_strong_augmentation_is_drawn_for_each_image_and_repeats_by_seed(saved: Path, channels: int) -> None:
    subject = open_source(settings_of(saved))
    if channels == 3:
        subject = replace(subject, model=replace(subject.model, data=None, network=VitConfig(in_chans=3)))
    reader = subject.reader(subject.train)
    then = finetune._per_image(Tuning(erasing=0.5))
    before = torch.random.get_rng_state()
    first, again, mild = (torch.cat(list(reader.augmented(0, 0, then=t))) for t in (then, then, None))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.random.get_rng_state())
    changed = (first != mild).flatten(1).any(1).float().mean()
    assert changed > 0.5
    assert first.isfinite().all()


def test_a_small_run_learns_and_reports_its_last_epoch(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "finetune", str(saved), "--epochs", "12", "--batch-size", "32", "--base-lr", "0.1"]
    argv += [
        "--warmup-epochs",
        "1",
        "--test-every",
        "5",
        "--mixup",
        "0",
        "--cutmix",
        "0",
        "--device",
        "cpu",
        "--crop-min",
        "0.5",
    ]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["epoch"] for row in found["results"]] == [5, 10, 12]
    assert found["headline"] == found["results"][-1]
    assert found["headline"]["accuracy"] > 0.35  # ten classes
    assert found["protocol"]["base_lr"] == 0.1
    assert found["protocol"]["drop_path"] == 0.1
    assert main([*argv, "--epochs", "2", "--image-size", "56"]) == 0
    assert "whole image at 56x56" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_run(saved: Path) -> None:
    first, again, other = (finetune.evaluate(settings_of(saved, seed=seed)).results for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_photographs_of_ones_own_with_strong_augmentation(tmp_path: Path) -> None:
    root = write_fashion(tmp_path / "data")
    config = tiny_config(
        root,
        vit=VitConfig(image_size=64, patch_size=32, dim=8, depth=1, heads=2),
        checkpoint_dir=str(tmp_path / "saved"),
        steps=4,
    )
    train(config)
    for part in ("train", "val"):
        write_images(tmp_path / "own" / part, [(70, 90), (90, 70)] * 4, classes=2)
    given = {"data": f"folder:{tmp_path / 'own'}", "batch_size": 4, "erasing": 0.5}
    results = [
        finetune.evaluate(settings_of(tmp_path / "saved", workers=workers, **given)).results for workers in (0, 1)
    ]
    assert results[0] == results[1]  # where images are decoded changes nothing
    protocol = finetune.evaluate(settings_of(tmp_path / "saved", **given)).protocol
    assert (protocol["rand_augment"], protocol["erasing"]) == (9, 0.5)


def test_a_resnet_is_tuned_without_dropped_branches(tmp_path: Path) -> None:
    root = write_fashion(tmp_path / "data", 40)
    write_fashion(tmp_path / "data", 20, prefix="t10k")
    config = tiny_config(root, backbone="resnet", vit=VitConfig(), resnet=ResNetConfig("resnet18", 32, 1))
    saved = tmp_path / "resnet.pt"
    torch.save({"config": asdict(config), "model": build_method(config).state_dict(), "step": 0}, saved)
    small = {"epochs": 1, "warmup_epochs": 0.0, "limit_train": 8, "limit_test": 8}
    assert finetune.evaluate(settings_of(saved, **small)).protocol["drop_path"] == 0
    with pytest.raises(ValueError, match="no effect on a ResNet"):
        finetune.evaluate(settings_of(saved, drop_path=0.1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 1, "warmup_epochs": 3.0}, "warmup_epochs 3 must be less than epochs 1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"smoothing": 1.0}, "nothing to learn from"),
        ({"base_lr": 1e30}, "not finite in epoch"),
    ],
)
def test_what_cannot_work_is_one_sentence(saved: Path, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as found:
        finetune.evaluate(settings_of(saved, **changes))
    assert "\n" not in str(found.value)


def test_the_schedule_warms_up_and_falls() -> None:
    tuning = Tuning(epochs=10, warmup_epochs=2)
    rates = [lr_at(i / 10, tuning) for i in range(101)]
    assert rates[0] == 0
    assert max(rates) == rates[20] == tuning.lr
    assert rates[100] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates[20:]))


def test_a_linear_layer_is_all_that_is_new(saved: Path) -> None:
    subject = open_source(settings_of(saved))
    model = finetune._classifier(subject, Tuning())
    assert model[0] is subject.model.backbone
    assert isinstance(model[1], nn.Linear)
    assert model[1].out_features == 10
