"""Backbones out of checkpoints: this trainer's, published ones, and files that are neither."""

import pickle
from ast import literal_eval
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config, write_fashion

from foreshock.trainer.authors import network_of
from foreshock.trainer.checkpoint import CheckpointError
from foreshock.trainer.config import HeadConfig, MethodConfig, ResNetConfig, TrainConfig, VitConfig
from foreshock.trainer.config_saved import config_from
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method
from foreshock.trainer.pretrained import load_pretrained, resized
from foreshock.trainer.vit import sincos_position, vit


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run of 12 steps, every 6."""
    root = tmp_path_factory.mktemp("run")
    config = tiny_config(write_fashion(root / "data"), checkpoint_dir=str(root / "saved"), checkpoint_every=6)
    train(config)
    return root / "saved"


def published(model: torch.nn.Module, head: str = "head") -> dict[str, torch.Tensor]:
    """The names that the published files have."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("encoder.backbone.", "encoder.").replace("encoder.projector.", f"encoder.{head}.")
        renamed["module." + (f"base_{name}" if name.startswith("encoder.") else name)] = tensor
    return renamed


def write_published(path: Path, config: TrainConfig, head: str = "head") -> torch.nn.Module:
    torch.manual_seed(1)
    model = build_method(config)
    torch.save({"epoch": 300, "arch": "vit_small", "state_dict": published(model, head), "optimizer": {}}, path)
    return model


@pytest.mark.parametrize("which", ["encoder", "momentum_encoder"])
def test_the_features_are_those_of_the_trained_model(run_dir: Path, which: str) -> None:
    state = torch.load(run_dir / "step-00000012.pt", weights_only=True)
    model = build_method(config_from(state["config"]))
    model.load_state_dict(state["model"])
    images = torch.randn(3, 1, 28, 28)
    loaded = load_pretrained(run_dir, which)  # pyright: ignore[reportArgumentType]
    assert loaded.step == 12
    assert loaded.tones == ((0.286,), (0.353,))
    expected = getattr(model, which).backbone.eval()(images)
    assert torch.equal(loaded.backbone(images), expected)
    assert not loaded.backbone.training
    assert not any(p.requires_grad for p in loaded.backbone.parameters())


def test_a_folder_means_its_newest_checkpoint_that_can_be_read(run_dir: Path, tmp_path: Path) -> None:
    for name in ("step-00000006.pt", "step-00000012.pt"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    (tmp_path / "step-00000018.pt").write_bytes((run_dir / "step-00000012.pt").read_bytes()[:-200])
    loaded = load_pretrained(tmp_path)
    assert loaded.step == 12
    assert "step-00000018.pt is damaged" in loaded.notes[0]
    assert load_pretrained(tmp_path / "step-00000006.pt").step == 6


def test_an_untrained_control_has_the_same_shape_and_follows_its_seed(run_dir: Path) -> None:
    images = torch.randn(2, 1, 28, 28)
    trained = load_pretrained(run_dir).backbone(images)
    first, again, other = (load_pretrained(run_dir, untrained=True, seed=s).backbone(images) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape == trained.shape
    assert not torch.equal(first, other)
    assert not torch.equal(first, trained)


def test_what_is_no_checkpoint_gets_one_sentence(run_dir: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torn = tmp_path / "torn.pt"
    torn.write_bytes((run_dir / "step-00000006.pt").read_bytes()[:3000])
    code = tmp_path / "code.pt"
    torch.save({"state_dict": Evil()}, code)
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Evil()))
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {"fc.weight": torch.ones(1)}}, other)
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {torn: "damaged", code: "damaged", bare: "damaged", other: "not a name of MoCo v3", empty: "no checkpoint"}
    cases[tmp_path / "absent.pt"] = "no checkpoint at"
    for path, says in cases.items():
        with pytest.raises(CheckpointError, match=says) as found:
            load_pretrained(path)
        assert "\n" not in str(found.value)
        assert path.name in str(found.value)
    assert not (tmp_path / "ran").exists()


def test_a_method_without_momentum_encoder_says_so(tmp_path: Path) -> None:
    config = tiny_config(
        write_fashion(tmp_path / "data"),
        method=MethodConfig(name="simclr", temperature=0.5),
        checkpoint_dir=str(tmp_path / "saved"),
        steps=4,
    )
    train(config)
    assert load_pretrained(tmp_path / "saved").method.name == "simclr"
    with pytest.raises(CheckpointError, match="holds no momentum_encoder"):
        load_pretrained(tmp_path / "saved", "momentum_encoder")


def test_a_published_vit_is_read_by_its_shapes(tmp_path: Path) -> None:
    network = VitConfig(image_size=64, in_chans=3, patch_size=16, dim=384, depth=2, heads=12)
    config = TrainConfig(vit=network, heads=HeadConfig(8, 8))
    model = write_published(tmp_path / "vit.pth.tar", config)
    loaded = load_pretrained(tmp_path / "vit.pth.tar")
    assert loaded.network == network
    assert (loaded.step, loaded.epoch, loaded.notes) == (None, 300, ())
    assert loaded.tones[0] == (0.485, 0.456, 0.406)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.backbone(images), model.encoder.backbone.eval()(images))
    assert load_pretrained(tmp_path / "vit.pth.tar", arch="vit-s").network == network
    with pytest.raises(CheckpointError, match="vit-b"):
        load_pretrained(tmp_path / "vit.pth.tar", arch="vit-b")


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_a_published_position_table_is_checked(tmp_path: Path, stem: str) -> None:
    network = VitConfig(image_size=32, in_chans=3, patch_size=8, dim=32, depth=1, heads=4, stem=stem)  # pyright: ignore
    model = build_method(TrainConfig(vit=network, heads=HeadConfig(8, 8)))
    state = published(model)
    path = tmp_path / "x.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="--heads"):
        load_pretrained(path)
    assert load_pretrained(path, heads=4).network == network
    state["module.base_encoder.pos_embed"] = state["module.base_encoder.pos_embed"] + 0.01
    torch.save(state, path)
    loaded = load_pretrained(path, heads=4)
    assert isinstance(loaded.network, VitConfig)
    assert loaded.network.position == "learned"
    assert "position table" in loaded.notes[0]
    assert torch.equal(loaded.backbone.pos_embed.data, state["module.base_encoder.pos_embed"])  # pyright: ignore


def test_the_fixtures_of_the_published_code_load(shared_dir: Path, tmp_path: Path) -> None:
    fixture = np.load(shared_dir / "oracles" / "mocov3_vit_adamw.npz")
    names = [name for name in fixture if name.startswith("init/")]
    state = {f"module.{name.removeprefix('init/')}": torch.from_numpy(fixture[name]) for name in names}
    torch.save({"state_dict": state}, tmp_path / "authors.pth.tar")
    config = literal_eval(str(fixture["config"]))
    loaded = load_pretrained(tmp_path / "authors.pth.tar", heads=config["heads"])
    assert isinstance(loaded.network, VitConfig)
    assert loaded.network.position == "sincos"
    assert (loaded.network.dim, loaded.network.depth) == (config["embed_dim"], config["depth"])
    assert (loaded.network.image_size, loaded.network.patch_size) == (config["img"], config["patch"])
    assert loaded.backbone(torch.from_numpy(fixture["x1"][0])).isfinite().all()


def test_a_published_resnet_has_its_head_at_fc(tmp_path: Path) -> None:
    network = ResNetConfig(name="resnet18", image_size=32)
    config = TrainConfig(backbone="resnet", resnet=network, heads=HeadConfig(8, 8, projector_layers=2))
    model = write_published(tmp_path / "r18.pth.tar", config, head="fc")
    loaded = load_pretrained(tmp_path / "r18.pth.tar")
    assert isinstance(loaded.network, ResNetConfig)
    assert loaded.network.name == "resnet18"
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.backbone(images), model.encoder.backbone.eval()(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_every_resnet_is_told_apart(name: str) -> None:
    from foreshock.trainer.resnet import resnet

    with torch.device("meta"):
        tensors = resnet(ResNetConfig(name=name)).state_dict()  # pyright: ignore[reportArgumentType]
    assert network_of(tensors) == ResNetConfig(name=name)  # pyright: ignore[reportArgumentType]


def test_another_image_size_recomputes_sines_and_interpolates_a_learned_table(run_dir: Path) -> None:
    loaded = load_pretrained(run_dir)
    assert resized(loaded, 28) is loaded
    larger = resized(loaded, 42)
    assert torch.equal(larger.backbone.pos_embed.data, sincos_position(3, 3, 8))  # pyright: ignore
    assert torch.equal(larger.backbone.blocks[0].attn.qkv.weight, loaded.backbone.blocks[0].attn.qkv.weight)  # pyright: ignore
    network = VitConfig(patch_size=14, dim=8, depth=2, heads=2, position="learned")
    backbone = vit(network).requires_grad_(False)
    assert backbone.pos_embed is not None
    backbone.pos_embed[:, 1:] = 2.5  # a constant table stays constant under any interpolation
    table = resized(replace(loaded, backbone=backbone, network=network), 56).backbone.pos_embed
    assert table.shape == (1, 17, 8)
    assert torch.allclose(table[:, 1:], torch.tensor(2.5))  # pyright: ignore
    assert torch.equal(table[:, 0], backbone.pos_embed[:, 0])  # pyright: ignore
    with pytest.raises(ValueError, match="multiple of patch_size"):
        resized(loaded, 30)


def test_a_configuration_survives_a_checkpoint_and_an_unknown_field_is_named() -> None:
    config = tiny_config(Path("x"), method=MethodConfig(patch_projection="frozen"))
    assert config_from(asdict(config)) == config
    with pytest.raises(ValueError, match=r"vit\.colour"):
        config_from({"vit": {"colour": 1}})
