"""Where images are looked for, what is said about damaged ones, and which images a step sees."""

import urllib.error
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config, write_fashion, write_images

from foreshock.trainer import data as data_module
from foreshock.trainer import folder as folder_module
from foreshock.trainer.batches import batches, step_indices, steps_per_epoch
from foreshock.trainer.config import AugmentConfig, DataConfig, TrainConfig, VitConfig
from foreshock.trainer.data import DataError, ImageSet, load_dataset
from foreshock.trainer.folder import ImageFolder, load_folder

CPU = torch.device("cpu")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty stand-ins for all usual places, and a download that fails."""
    monkeypatch.setattr(data_module, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("FORESHOCK_DATA", str(tmp_path / "env"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST.__init__", offline)
    return {
        "data_root": tmp_path / "root",
        "env": tmp_path / "env",
        "debian": tmp_path / "debian",
        "cache": tmp_path / "cache" / "foreshock" / "FashionMNIST" / "raw",
    }


def test_places_are_searched_in_their_order(places: dict[str, Path]) -> None:
    for images, name in enumerate(["cache", "debian", "env"], start=5):
        write_fashion(places[name], images, compress=name != "cache")
        assert len(load_dataset(DataConfig())) == images
    write_fashion(places["data_root"], 20)
    assert len(load_dataset(DataConfig())) == 7
    assert len(load_dataset(DataConfig(data_root=str(places["data_root"])))) == 20


def test_without_data_one_sentence_names_the_remedies(places: dict[str, Path]) -> None:
    with pytest.raises(DataError) as found:
        load_dataset(DataConfig())
    text = str(found.value)
    assert all(word in text for word in ("dataset-fashion-mnist", "--data-root", "FORESHOCK_DATA", "no route"))
    assert "\n" not in text
    with pytest.raises(DataError, match="data_root"):
        load_dataset(DataConfig(data_root=str(places["data_root"])))


def test_download_goes_into_the_cache(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self, root, **_):
        write_fashion(Path(root) / "FashionMNIST" / "raw", 9, compress=False)

    monkeypatch.setattr("torchvision.datasets.FashionMNIST.__init__", download)
    assert len(load_dataset(DataConfig())) == 9
    assert places["cache"].is_dir()


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": raw[:-40], "no gzip": b"hello" * 9, "flipped": raw[:60]}[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "no gzip", "flipped"])
@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_damaged_files_are_named(tmp_path: Path, how: str, which: str) -> None:
    write_fashion(tmp_path)
    path = tmp_path / f"train-{which}-ubyte.gz"
    damage(path, how)
    with pytest.raises(DataError) as found:
        load_dataset(DataConfig(data_root=str(tmp_path)))
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_a_plain_file_that_lacks_bytes_or_has_the_wrong_type(tmp_path: Path) -> None:
    write_fashion(tmp_path, compress=False)
    path = tmp_path / "train-images-idx3-ubyte"
    raw = path.read_bytes()
    for bad in (raw[:-1], raw + b"x", raw[:3], raw[:2] + b"\x0d" + raw[3:], raw[:6]):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="IDX"):
            load_dataset(DataConfig(data_root=str(tmp_path)))


def test_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    write_fashion(tmp_path, 70)
    write_fashion(tmp_path / "other", 69)
    (tmp_path / "other" / "train-labels-idx1-ubyte.gz").rename(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match="belong together"):
        load_dataset(DataConfig(data_root=str(tmp_path)))


def test_shapes_limit_and_channels(tmp_path: Path) -> None:
    root = str(write_fashion(tmp_path))
    write_fashion(tmp_path, 11, prefix="t10k")
    data = load_dataset(DataConfig(data_root=root))
    assert isinstance(data, ImageSet)
    assert data.images.shape == (70, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert len(data.classes) == 10
    assert len(load_dataset(DataConfig(data_root=root, limit=30))) == 30
    assert len(load_dataset(DataConfig(data_root=root), split="test")) == 11
    with pytest.raises(DataError, match="in_chans"):
        load_dataset(DataConfig(data_root=root), channels=3)
    with pytest.raises(DataError, match="fashion-mnist"):
        load_dataset(DataConfig("imagenet"))


@pytest.mark.skipif(not data_module.DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist() -> None:
    data = load_dataset(DataConfig(data_root=str(data_module.DEBIAN)))
    assert isinstance(data, ImageSet)
    assert data.labels is not None
    tones = data.images.float() / 255
    assert tones.mean().item() == pytest.approx(data.mean[0], abs=5e-5)
    assert tones.std().item() == pytest.approx(data.std[0], abs=5e-5)
    assert data.labels.bincount().tolist() == [6000] * 10
    assert len(load_dataset(DataConfig(data_root=str(data_module.DEBIAN)), split="test")) == 10_000


def test_a_folder_in_imagenet_layout(tmp_path: Path) -> None:
    write_images(tmp_path / "train", [(20, 24), (30, 18), (16, 16), (9, 50)])
    write_images(tmp_path / "val", [(8, 8)])
    data = load_folder(str(tmp_path))
    assert isinstance(data, ImageFolder)
    assert data.classes == ("class0", "class1")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.decode(0).shape == (3, 20, 24)
    assert load_folder(str(tmp_path), channels=1).channels == 1


def test_a_folder_of_one_small_size_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, [(12, 10)] * 6)
    data = load_folder(str(tmp_path), limit=5)
    assert isinstance(data, ImageSet)
    assert data.images.shape == (5, 3, 12, 10)
    monkeypatch.setattr(folder_module, "IN_MEMORY", 100)
    streamed = load_folder(str(tmp_path))
    assert isinstance(streamed, ImageFolder)
    assert torch.equal(streamed.decode(3), data.images[3])


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_folder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no images"):
        load_folder(str(tmp_path))
    flat = load_folder(str(write_images(tmp_path / "flat", [(8, 8)] * 3, classes=0)))
    assert flat.labels is None
    write_images(tmp_path / "flat", [(8, 8)] * 3, classes=2)
    with pytest.raises(DataError, match=r"000\.png"):
        load_folder(str(tmp_path / "flat"))
    broken = write_images(tmp_path / "broken", [(8, 8)] * 3)
    (broken / "class1" / "001.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"001\.png"):
        load_folder(str(broken))


def test_an_epoch_shows_every_image_at_most_once_and_epochs_differ() -> None:
    config = TrainConfig(batch_size=16)
    epochs = [torch.cat([step_indices(e * 4 + s, 70, config) for s in range(4)]) for e in range(2)]
    for order in epochs:
        assert len(order.unique()) == 64
        assert order.min() >= 0
        assert order.max() < 70
    assert not torch.equal(*epochs)
    assert not torch.equal(step_indices(0, 70, config), step_indices(0, 70, replace(config, seed=1)))
    assert steps_per_epoch(70, 16) == 4
    with pytest.raises(DataError, match="batch_size"):
        steps_per_epoch(15, 16)


def test_a_step_is_the_same_wherever_the_stream_begins(tmp_path: Path) -> None:
    config = tiny_config(write_fashion(tmp_path))
    data = load_dataset(config.data)
    whole = list(batches(data, config, CPU, 0, 7))
    part = list(batches(data, config, CPU, 5, 7))
    assert len(whole) == 7
    for a, b in zip(whole[5:], part, strict=True):
        assert torch.equal(a.x1, b.x1)
        assert torch.equal(a.x2, b.x2)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(whole[0].x1, whole[0].x2)


def test_decoding_processes_change_nothing_and_name_a_broken_image(tmp_path: Path) -> None:
    root = write_images(tmp_path, [(20 + i, 30 - i) for i in range(9)])
    config = TrainConfig(
        vit=VitConfig(image_size=16, in_chans=3, patch_size=8),
        data=DataConfig(f"folder:{root}"),
        augment=AugmentConfig(),
        batch_size=4,
    )
    data = load_dataset(config.data, 3)
    state = torch.get_rng_state()
    alone = list(batches(data, config, CPU, 0, 3))
    helped = list(batches(data, replace(config, data=replace(config.data, workers=2)), CPU, 1, 3))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(alone[1:], helped, strict=True):
        assert torch.equal(a.x1, b.x1)
        assert torch.equal(a.x2, b.x2)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
    assert alone[0].x1.shape == (4, 3, 16, 16)
    for path in root.rglob("*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"\.png cannot be read"):
        list(batches(data, replace(config, data=replace(config.data, workers=1)), CPU, 0, 1))
