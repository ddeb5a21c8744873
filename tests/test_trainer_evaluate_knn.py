"""kNN on frozen features: the vote against an obvious twin, the images that it sees, and the command."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision.transforms.v2 as v2
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import write_checkpoint
from tiny_runs import write_fashion, write_images

from foreshock.cli.__main__ import main
from foreshock.trainer.config import DataConfig
from foreshock.trainer.data import DataError, load_dataset
from foreshock.trainer.evaluate import knn, load_protocol
from foreshock.trainer.evaluate._labelled import Part, load_parts
from foreshock.trainer.evaluate._views import Reader
from foreshock.trainer.pretrained import load_pretrained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("knn"))


def slow_knn(query: list[float], bank: list[list[float]], labels: list[int], classes: int, k: int, t: float) -> int:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    near = sorted(((cosine(query, row), label) for row, label in zip(bank, labels, strict=True)), reverse=True)[:k]
    votes = [sum(math.exp(c / t) for c, label in near if label == i) for i in range(classes)]
    return votes.index(max(votes))


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_vote_is_that_of_a_plain_loop_for_any_sizes(seed: int, rows: int, dim: int, classes: int) -> None:
    random = torch.Generator().manual_seed(seed)
    bank = torch.randn(rows, dim + 1, generator=random, dtype=torch.float64)
    queries = torch.randn(7, dim + 1, generator=random, dtype=torch.float64)
    labels = torch.randint(classes, (rows,), generator=random)
    ks, ts = sorted({1, (rows + 1) // 2, rows}), [0.07, 1.0]
    old = knn.QUERIES, knn.BANK
    try:
        knn.QUERIES, knn.BANK = 3, 4
        found = knn.classify(queries, bank, labels, classes, ks, ts)
    finally:
        knn.QUERIES, knn.BANK = old
    assert list(found) == [(k, t) for k in ks for t in ts]
    for (k, t), got in found.items():
        twin = [slow_knn(q, bank.tolist(), labels.tolist(), classes, k, t) for q in queries.tolist()]
        assert got.tolist() == twin


def test_a_tiny_temperature_does_not_overflow() -> None:
    bank = torch.eye(3)
    found = knn.classify(torch.eye(3), bank, torch.arange(3), 3, [3], [1e-4])
    assert found[3, 1e-4].tolist() == [0, 1, 2]


def test_the_command_reports_every_number_with_its_protocol(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", "knn", str(saved), "--k", "5", "20", "--temperature", "0.07", "0.5", "--device", "cpu"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    protocol = found["protocol"]
    assert {protocol[name] for name in ("metric", "encoder", "dataset", "crop")} == {
        "cosine",
        "encoder",
        "fashion-mnist",
        "whole image at 28x28",
    }
    assert (protocol["step"], protocol["train_images"], protocol["test_images"]) == (12, 300, 120)
    assert protocol["split"] == "test"
    assert [(row["k"], row["T"]) for row in found["results"]] == [(5, 0.07), (5, 0.5), (20, 0.07), (20, 0.5)]
    assert found["headline"] == found["results"][0]
    assert found["headline"]["low"] < found["headline"]["accuracy"] < found["headline"]["high"]
    assert found["headline"]["accuracy"] > 0.3  # ten classes that differ in tone
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "step: 12" in printed
    assert f"accuracy {100 * found['headline']['accuracy']:.2f} %" in printed


def test_the_command_agrees_with_the_twin_on_the_models_features(saved: Path) -> None:
    measured = knn.evaluate(knn.Settings(checkpoint=saved, k=(7,), temperature=(0.2,), limit_test=40, device="cpu"))
    model = load_pretrained(saved)
    train, test = load_parts("fashion-mnist", str(saved.parent / "data"), 1, _Limits())
    mean, std = (x[0] for x in model.tones)
    with torch.no_grad():
        features = [model.backbone((p.images.images[p.index] / 255 - mean) / std).tolist() for p in (train, test)]  # pyright: ignore
    right = [
        slow_knn(query, features[0], train.labels.tolist(), 10, 7, 0.2) == label
        for query, label in zip(features[1], test.labels.tolist(), strict=True)
    ]
    assert measured.headline["accuracy"] == pytest.approx(sum(right) / 40)


class _Limits:
    limit_train: int | None = None
    limit_test: int | None = 40
    download: bool = False
    seed: int = 0


def test_other_encoder_control_and_size_are_recorded(saved: Path) -> None:
    def protocol(**changes: object) -> dict:
        given = {"checkpoint": saved, "k": (5,), "limit_test": 10, "device": "cpu", **changes}
        return dict(knn.evaluate(knn.Settings(**given)).protocol)  # pyright: ignore[reportArgumentType]

    assert protocol(encoder="momentum_encoder")["encoder"] == "momentum_encoder"
    assert "untrained" in protocol(random=True)["encoder"]
    assert protocol(image_size=56)["crop"] == "whole image at 56x56"
    assert protocol(crop="centre")["crop"] == "resized to 32, centre 28x28"
    assert protocol(limit_train=50)["train_images"] == 50


def test_a_limit_draws_from_all_classes(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_images(tmp_path / part, [(8, 8)] * 40, channels=1)
    limits = _Limits()
    limits.limit_train = 20
    train, _ = load_parts(f"folder:{tmp_path}", None, 1, limits)
    assert len(train) == 20
    assert set(train.labels.tolist()) == {0, 1}
    assert torch.equal(train.labels, train.images.labels[train.index])  # pyright: ignore[reportOptionalSubscript]


def test_photographs_are_resized_and_cropped_in_the_centre(tmp_path: Path) -> None:
    write_images(tmp_path, [(50, 40), (64, 80)], classes=1)
    images = load_dataset(DataConfig(dataset=f"folder:{tmp_path}"), 3)
    part = Part(images, torch.arange(2), images.labels, images.classes, "val")  # pyright: ignore
    tones = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    for workers in (0, 1):
        (found,) = Reader(part, (28, 28), tones, CPU, workers=workers).plain()
        for i in range(2):
            twin = v2.Compose([v2.Resize(32), v2.CenterCrop(28), v2.ToDtype(torch.float32, scale=True)])
            expected = (twin(images.decode(i)) - 0.5) / 0.25  # pyright: ignore[reportAttributeAccessIssue]
            assert found[i].shape == (3, 28, 28)
            # torchvision's twin rounds to whole tones between the two.
            assert (found[i] - expected).abs().max() < 0.02


def test_gray_images_serve_a_network_for_colours(tmp_path: Path) -> None:
    write_fashion(tmp_path, 6)
    write_fashion(tmp_path, 4, prefix="t10k")
    part, _ = load_parts("fashion-mnist", str(tmp_path), 3, _Limits())
    (found,) = Reader(part, (28, 28), ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0)), CPU).plain()
    assert found.shape == (6, 3, 28, 28)
    assert torch.allclose(found[:, 0] - found[:, 2], torch.tensor(0.2))
    assert torch.allclose(found[:, 0] + 0.1, part.images.images[:, 0] / 255)  # pyright: ignore[reportAttributeAccessIssue]


def test_random_crops_differ_by_pass_and_repeat_by_seed(saved: Path) -> None:
    part, _ = load_parts("fashion-mnist", str(saved.parent / "data"), 1, _Limits())
    reader = Reader(part, (28, 28), ((0.0,), (1.0,)), CPU, batch=128)
    first, again, second, whole = (
        torch.cat(list(batches))
        for batches in (reader.augmented(0, 0), reader.augmented(0, 0), reader.augmented(0, 1), reader.plain())
    )
    assert torch.equal(first, again)
    assert (first != second).flatten(1).any(1).float().mean() > 0.99
    assert (first.mean((1, 2, 3)) - whole.mean((1, 2, 3))).abs().max() < 0.1  # the same images, in the same order


BAD = {
    "protocol": (["foo", "CKPT"], "no protocol 'foo'"),
    "no checkpoint": (["knn", "/nowhere/at/all"], "no checkpoint at /nowhere/at/all"),
    "torn": (["knn", "TORN"], "damaged"),
    "data": (["knn", "CKPT", "--data", "cifar"], "unknown data 'cifar'"),
    "absent data": (["knn", "CKPT", "--data", "cifar-10", "--data-root", "/nowhere/at/all"], "/nowhere/at/all"),
    "absent Fashion-MNIST": (["knn", "CKPT", "--data-root", "/nowhere/at/all"], "/nowhere/at/all"),
    "no val": (["knn", "CKPT", "--data", "folder:/usr"], "must hold the folders train and val"),
    "no labels": (["knn", "CKPT", "--data", "folder:LOOSE"], "has no classes"),
    "classes": (["knn", "CKPT", "--data", "folder:ODD"], "differ in their classes"),
    "k": (["knn", "CKPT", "--k", "500"], "k 500 is more than the 300 training images"),
    "k 0": (["knn", "CKPT", "--k", "0"], "k (0,) must be greater than 0"),
    "size": (["knn", "CKPT", "--image-size", "30"], "multiple of patch_size"),
    "heads": (["knn", "CKPT", "--heads", "3"], "published files"),
    "device": (["knn", "CKPT", "--device", "cuda:99"], "cuda:99"),
    "option": (["knn", "CKPT", "--kk", "3"], "--kk"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    name: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    torn = tmp_path / "torn.pt"
    torn.write_bytes((saved / "step-00000012.pt").read_bytes()[:999])
    for part, classes in (("train", 2), ("val", 3)):
        write_images(tmp_path / "odd" / part, [(8, 8)] * 6, channels=1, classes=classes)
        write_images(tmp_path / "loose" / part, [(8, 8)] * 6, channels=1, classes=0)
    names = {"CKPT": str(saved), "TORN": str(torn)}
    folders = {"folder:LOOSE": f"folder:{tmp_path / 'loose'}", "folder:ODD": f"folder:{tmp_path / 'odd'}"}
    arguments, says = BAD[name]
    try:
        code = main(["evaluate", *((names | folders).get(a, a) for a in arguments)])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_diverged_checkpoint_is_refused(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(saved / "step-00000012.pt", weights_only=True)
    state["model"]["encoder.backbone.norm.weight"][0] = math.nan
    torch.save(state, tmp_path / "nan.pt")
    assert main(["evaluate", "knn", str(tmp_path / "nan.pt"), "--device", "cpu", "--k", "5"]) == 2
    assert "not finite" in capsys.readouterr().err


def test_nothing_is_downloaded_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("foreshock.trainer.data.DEBIAN", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FORESHOCK_DATA", raising=False)
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.__init__", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(DataError, match="--download"):
        load_parts("fashion-mnist", None, 1, _Limits())


def test_every_protocol_has_settings_and_a_summary() -> None:
    from foreshock.trainer.evaluate import protocols

    for name, summary in protocols().items():
        assert summary.endswith(".")
        assert callable(load_protocol(name).evaluate)
        assert issubclass(load_protocol(name).Settings, knn.Source)
