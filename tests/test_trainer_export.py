"""Exported backbones: the same features from plain timm, the folder for the hub, and what is refused."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from tiny_checkpoints import write_checkpoint
from tiny_runs import tiny_config
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from foreshock.cli.__main__ import main
from foreshock.trainer.config import HeadConfig, MethodConfig, ResNetConfig, TrainConfig, VitConfig
from foreshock.trainer.export import build_timm, save_folder, save_weights, to_timm
from foreshock.trainer.methods import build_method
from foreshock.trainer.pretrained import Pretrained, load_pretrained


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("export"))


def checkpoint(path: Path, config: TrainConfig, step: int = 7) -> Pretrained:
    """A checkpoint whose weights and statistics are all random."""
    torch.manual_seed(0)
    model = build_method(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("pos_embed"):
                tensor.add_(0.1 * torch.rand_like(tensor))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d) and module.running_var is not None:
                module.running_var.uniform_(0.5, 2)
    torch.save({"config": asdict(config), "model": model.state_dict(), "step": step}, path)
    return load_pretrained(path)


NETWORKS = {
    "class token": (VitConfig(), MethodConfig()),
    "not square": (VitConfig(image_size=(28, 42)), MethodConfig()),
    "learned positions": (VitConfig(position="learned"), MethodConfig()),
    "no positions": (VitConfig(position="none"), MethodConfig()),
    "mean pool": (VitConfig(pooling="mean_pool"), MethodConfig()),
    "norm, then mean pool": (VitConfig(pooling="norm_then_mean_pool"), MethodConfig()),
    "frozen": (VitConfig(), MethodConfig(patch_projection="frozen")),
    "BatchNorm folded": (VitConfig(), MethodConfig(patch_projection="batch_norm")),
    "WeightNorm folded": (VitConfig(), MethodConfig(patch_projection="weight_norm")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_timm_gives_the_same_features(name: str, tmp_path: Path) -> None:
    network, method = NETWORKS[name]
    own = checkpoint(tmp_path / "x.pt", TrainConfig(vit=network, method=method, heads=HeadConfig(8, 8)))
    exported = to_timm(own)
    images = torch.randn(4, 1, *network.size)
    built = build_timm(exported)
    with torch.no_grad():
        assert torch.allclose(built(images), own.backbone(images), rtol=1e-5, atol=1e-5)
        # Without the rounding of sums in float32, only that of the folded weights is left.
        expected, found = own.backbone.double()(images.double()), built.double()(images.double())
    assert (found - expected).abs().max() < 1e-6
    assert expected.std(0).mean() > 1e-3  # the images do differ


def test_a_vit_small_keeps_its_twelve_heads(tmp_path: Path) -> None:
    network = VitConfig(image_size=224, in_chans=3, patch_size=16, dim=384, depth=2, heads=12)
    own = checkpoint(tmp_path / "s.pt", TrainConfig(vit=network, heads=HeadConfig(8, 8)))
    save_weights(own, tmp_path / "s.safetensors")
    model = timm.create_model("vit_small_patch16_224", num_heads=12, num_classes=0, depth=2).eval()
    model.load_state_dict(load_file(tmp_path / "s.safetensors"), strict=True)
    plain = VisionTransformer(embed_dim=384, num_heads=12, num_classes=0, depth=2).eval()
    plain.load_state_dict(load_file(tmp_path / "s.safetensors"), strict=True)
    six = timm.create_model("vit_small_patch16_224", num_classes=0, depth=2).eval()
    six.load_state_dict(load_file(tmp_path / "s.safetensors"), strict=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = own.backbone(images)
        for twin in (model, plain):
            assert torch.allclose(twin(images), expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(six(images), expected, atol=1e-3)  # what goes wrong without the argument
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        header = file.metadata()
    assert header["architecture"] == "vit_small_patch16_224"
    assert json.loads(header["model_args"])["num_heads"] == 12


def test_a_resnet_is_timms(tmp_path: Path) -> None:
    config = TrainConfig(backbone="resnet", resnet=ResNetConfig("resnet18", 32, 1), heads=HeadConfig(8, 8))
    own = checkpoint(tmp_path / "r.pt", config)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(build_timm(to_timm(own))(images), own.backbone(images))


def test_what_a_plain_timm_vit_cannot_hold_is_refused(tmp_path: Path) -> None:
    for i, network in enumerate((VitConfig(mlp_norm="batch"), VitConfig(patch_size=4, stem="conv"))):
        own = checkpoint(tmp_path / f"{i}.pt", TrainConfig(vit=network, heads=HeadConfig(8, 8)))
        with pytest.raises(ValueError, match="no plain timm ViT") as found:
            save_folder(own, tmp_path / "out")
        assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_the_printed_line_builds_the_model(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.safetensors"
    assert main(["export", str(saved), str(out), "--encoder", "momentum_encoder"]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("load it: "))
    model = eval(line.removeprefix("load it: "), {"timm": timm}).eval()
    images = torch.randn(2, 1, 28, 28)
    own = load_pretrained(saved, "momentum_encoder").backbone
    with torch.no_grad():
        assert torch.allclose(model(images), own(images), atol=1e-6)
    assert main(["export", str(saved), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(saved), str(out), "--overwrite", "--image-size", "56"]) == 0
    assert load_file(out)["pos_embed"].shape == (1, 17, 8)
    assert list(tmp_path.iterdir()) == [out]


def test_the_folder_is_read_by_timm_and_its_card_says_what_was_measured(saved: Path, tmp_path: Path, capsys) -> None:
    measured = tmp_path / "knn.json"
    assert main(["evaluate", "knn", str(saved), "--k", "5", "--device", "cpu", "--json"]) == 0
    measured.write_text(capsys.readouterr().out)
    out = tmp_path / "hub"
    assert main(["export", str(saved), str(out), "--hf", "--measured", str(measured)]) == 0
    assert "fill in the licence" in capsys.readouterr().out
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.allclose(model(images), load_pretrained(saved).backbone(images), atol=1e-6)
    config = json.loads((out / "config.json").read_text())
    assert config["model_args"]["num_heads"] == 2
    assert config["pretrained_cfg"]["input_size"] == [1, 28, 28]
    assert config["pretrained_cfg"]["mean"] == [0.286]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model), is_training=False)
    image = to_pil_image(torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8))
    seen = transform(image)
    assert torch.allclose(seen, (pil_to_tensor(image) / 255 - 0.286) / 0.353, atol=1e-5)  # as it was trained
    card = (out / "README.md").read_text()
    accuracy = json.loads(measured.read_text())["headline"]["accuracy"]
    for words in (
        "mocov3",
        "fashion-mnist",
        "| optimizer steps | 12 |",
        f"{100 * accuracy:.2f} (",
        "k 5",
        "# license:",
    ):
        assert words in card
    assert "Not chosen yet" in card
    assert main(["export", str(saved), str(out), "--hf"]) == 2


BAD = {
    "absent": (["export", "/nowhere/at/all", "OUT"], "no checkpoint at"),
    "no folder": (["export", "CKPT", "/nowhere/at/all/x.safetensors"], "no folder /nowhere/at/all"),
    "measured without hf": (["export", "CKPT", "OUT", "--measured", "JSON"], "--measured is for"),
    "measured is absent": (["export", "CKPT", "OUT", "--hf", "--measured", "/nowhere/at/all"], "/nowhere/at/all"),
    "not JSON": (["export", "CKPT", "OUT", "--hf", "--measured", "TEXT"], "is not JSON"),
    "no measurement": (["export", "CKPT", "OUT", "--hf", "--measured", "EMPTY"], "not a measurement"),
    "of another": (["export", "CKPT", "OUT", "--hf", "--measured", "JSON"], "another checkpoint (step 3, not 12)"),
    "size": (["export", "CKPT", "OUT", "--image-size", "30"], "multiple of patch_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(name: str, saved: Path, tmp_path: Path, capsys) -> None:
    protocol = {"encoder": "encoder", "step": 3, "method": "mocov3", "dataset": "x", "test_images": 1, "crop": ""}
    row = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    texts = {
        "JSON": json.dumps({"evaluation": "knn", "protocol": protocol, "headline": row}),
        "TEXT": "?",
        "EMPTY": '{"evaluation": 1}',
    }
    names = {"CKPT": str(saved), "OUT": str(tmp_path / "out")}
    for key, text in texts.items():
        (tmp_path / key).write_text(text)
        names[key] = str(tmp_path / key)
    arguments, says = BAD[name]
    assert main([names.get(a, a) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_published_vit_becomes_a_timm_vit(tmp_path: Path) -> None:
    network = VitConfig(image_size=32, in_chans=3, patch_size=16, dim=384, depth=1, heads=12)
    model = build_method(tiny_config(tmp_path, vit=network))
    state = {}
    for key, tensor in model.state_dict().items():
        key = key.replace("encoder.backbone.", "encoder.").replace("encoder.projector.", "encoder.head.")
        state[f"module.base_{key}" if key.startswith("encoder.") else f"module.{key}"] = tensor
    torch.save({"epoch": 300, "state_dict": state}, tmp_path / "vit-s.pth.tar")
    save_folder(load_pretrained(tmp_path / "vit-s.pth.tar"), tmp_path / "hub")
    exported = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(exported(images), model.encoder.backbone.eval()(images), atol=1e-6)  # pyright: ignore
    assert "| epochs | 300 |" in (tmp_path / "hub" / "README.md").read_text()
