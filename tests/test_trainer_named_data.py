"""The data sets in torchvision's layout, from small files in that layout."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as tv
from PIL import Image

from foreshock.trainer.config import DataConfig
from foreshock.trainer.data import DataError, ImageSet, load_dataset
from foreshock.trainer.folder import ImageFolder
from foreshock.trainer.named_data import NAMED, load_named, tones


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One training and one test file of five images, which torchvision takes for the real ones."""
    base = tmp_path / tv.CIFAR10.base_folder
    base.mkdir()
    rng = np.random.default_rng(0)
    for name in ("data_batch_1", "test_batch"):
        content = {"data": rng.integers(0, 256, (5, 3072), dtype=np.uint8), "labels": [3, 1, 4, 1, 5]}
        (base / name).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(tv.CIFAR10, "train_list", [["data_batch_1", md5(base / "data_batch_1")]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test_batch", md5(base / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(base / "batches.meta")}
    monkeypatch.setattr(tv.CIFAR10, "meta", meta)
    return tmp_path


def test_cifar_is_read_in_colour_and_in_gray(cifar: Path) -> None:
    data = load_named("cifar-10", str(cifar))
    assert isinstance(data, ImageSet)
    raw = pickle.loads((cifar / tv.CIFAR10.base_folder / "data_batch_1").read_bytes())["data"].reshape(5, 3, 32, 32)
    assert torch.equal(data.images, torch.from_numpy(raw))
    assert data.labels is not None
    assert data.labels.tolist() == [3, 1, 4, 1, 5]
    assert data.classes[3] == "class 3"
    gray = load_named("cifar-10", str(cifar), 1, "test")
    assert isinstance(gray, ImageSet)
    assert gray.images.shape == (5, 1, 32, 32)


def test_a_run_may_train_on_it(cifar: Path) -> None:
    data = load_dataset(DataConfig(dataset="cifar-10", data_root=str(cifar), limit=2), 3)
    assert len(data) == 2
    assert data.mean == tones("cifar-10", 3)[0]


@pytest.mark.parametrize("download", [False, True])
def test_a_run_downloads_only_when_asked(monkeypatch: pytest.MonkeyPatch, download: bool) -> None:
    asked = []

    def loader(name: str, root: str, channels: int, split: str, download: bool) -> ImageSet:
        asked.append(download)
        return ImageSet(name, torch.zeros(4, 3, 8, 8, dtype=torch.uint8), None, (), (0.5,) * 3, (0.5,) * 3)

    monkeypatch.setitem(NAMED, "stl-10", loader)
    assert len(load_dataset(DataConfig("stl-10", download=download), 3)) == 4
    assert asked == [download]


@pytest.mark.parametrize("dataset", ["fashion-mnist", "folder:somewhere"])
def test_a_download_without_effect_is_refused(dataset: str) -> None:
    with pytest.raises(ValueError, match="download True would have no effect"):
        DataConfig(dataset, download=True)


def test_damaged_files_are_not_unpickled(cifar: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (cifar / "ran",))

    (cifar / tv.CIFAR10.base_folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="no cifar-10 in"):
        load_named("cifar-10", str(cifar))
    assert not (cifar / "ran").exists()


def test_pets_are_read_from_their_lists(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    (base / "images").mkdir()
    rows = ["Maine_Coon_1 2 1 1", "beagle_3 1 2 1", "Maine_Coon_2 2 1 1"]
    (base / "annotations" / "trainval.txt").write_text("\n".join(rows) + "\n")
    for row in rows:
        Image.new("RGB", (20, 30)).save(base / "images" / f"{row.split()[0]}.jpg")
    data = load_named("pets", str(tmp_path))
    assert isinstance(data, ImageFolder)
    assert data.classes == ("beagle", "Maine Coon")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1]
    assert data.decode(1).shape == (3, 30, 20)
    (base / "images" / "beagle_3.jpg").unlink()
    with pytest.raises(DataError, match="beagle_3"):
        load_named("pets", str(tmp_path))
    (base / "annotations" / "trainval.txt").write_text("<html>")
    with pytest.raises(DataError, match="not a list of the Pets data"):
        load_named("pets", str(tmp_path))


def test_flowers_train_on_train_and_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    base = tmp_path / "flowers-102"
    (base / "jpg").mkdir(parents=True)
    for i in range(1, 7):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(base / "jpg" / f"image_{i:05d}.jpg")
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2, 3, 102, 1, 2]])})
    savemat(base / "setid.mat", {"trnid": np.array([[1, 3]]), "valid": np.array([[4, 2]]), "tstid": np.array([[5, 6]])})
    files = {"image": ("102flowers.tgz", ""), "label": ("imagelabels.mat", md5(base / "imagelabels.mat"))}
    monkeypatch.setattr(tv.Flowers102, "_file_dict", files | {"setid": ("setid.mat", md5(base / "setid.mat"))})
    data = load_named("flowers-102", str(tmp_path))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2, 101, 1]
    assert len(data.classes) == 102
    test = load_named("flowers-102", str(tmp_path), split="test")
    assert len(test) == 2


@pytest.mark.parametrize("name", sorted(NAMED))
def test_what_is_not_there_is_said_in_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no {name} in .*--data-root.*--download") as found:
        load_named(name, str(tmp_path / "none"))
    assert "\n" not in str(found.value)
