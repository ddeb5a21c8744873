"""Parts of a batch, activations made anew, memory layout and compilation change no gradient."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from foreshock.trainer.config import HeadConfig, MethodConfig, ResNetConfig, ScaleConfig, TrainConfig, VitConfig
from foreshock.trainer.fitting import fit
from foreshock.trainer.loop import train
from foreshock.trainer.methods import build_method, method_names
from foreshock.trainer.run import prepare

CPU = torch.device("cpu")
VIT = VitConfig(image_size=8, patch_size=4, dim=16, depth=2, heads=2)
RESNET = ResNetConfig("resnet18", image_size=32, in_chans=1)
SETTINGS = {"swav": {"prototypes": 12}}


def config_of(name: str, **changes: Any) -> TrainConfig:
    method = MethodConfig(name, **SETTINGS.get(name, {}), **changes)
    return TrainConfig(vit=VIT, heads=HeadConfig(hidden=24, out=12), method=method)


def gradients(
    config: TrainConfig, scale: ScaleConfig, side: int = 8, count: int = 12
) -> tuple[torch.Tensor, dict, dict, int]:
    """Loss, gradients, statistics, and how many numbers the forward pass kept for the backward pass."""
    torch.manual_seed(0)
    model = build_method(config).double()
    fit(model, scale, CPU)
    x1, x2 = torch.randn(2, count, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x1, x2, 0.9).loss
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), grads, dict(model.named_buffers()), kept


def assert_close(a: Any, b: Any) -> None:
    for one, two in zip(a[:3], b[:3], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("patch", ["learned", "frozen"])
@pytest.mark.parametrize("name", method_names())
def test_a_batch_in_parts_has_the_gradients_of_the_whole(name: str, patch: str) -> None:
    config = config_of(name, patch_projection=patch)
    whole = gradients(config, ScaleConfig())
    parts = gradients(config, ScaleConfig(accumulate=4))
    anew = gradients(config, ScaleConfig(checkpoint_activations=True))
    both = gradients(config, ScaleConfig(accumulate=3, checkpoint_activations=True))
    for other in (parts, anew, both):
        assert_close(whole, other)
        assert other[3] < whole[3] / 2


def test_parts_of_a_batch_keep_the_activations_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest number of images that the backbone ever sees with gradients on is one part."""
    seen = []
    config = config_of("mocov3")
    model = build_method(config)
    model.encoder.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))  # pyright: ignore
    fit(model, ScaleConfig(accumulate=4), CPU)
    model(*torch.randn(2, 12, 1, 8, 8), 0.9).loss.backward()
    assert seen == [6] * 8


def test_channels_last_changes_the_layout_alone() -> None:
    config = replace(TrainConfig(), backbone="resnet", resnet=RESNET, heads=HeadConfig(hidden=24, out=12))
    assert_close(gradients(config, ScaleConfig(), 32, 3), gradients(config, ScaleConfig(channels_last=True), 32, 3))
    model = build_method(config)
    fit(model, ScaleConfig(channels_last=True), CPU)
    for encoder in (model.encoder, model.momentum_encoder):
        weight = encoder.backbone.conv1.weight  # pyright: ignore
        assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_a_compiled_backbone_computes_the_same() -> None:
    config = replace(config_of("mocov3"), vit=replace(VIT, depth=1))
    plain, compiled = gradients(config, ScaleConfig()), gradients(config, ScaleConfig(compile=True))
    torch.testing.assert_close(plain[:3], compiled[:3], rtol=1e-8, atol=1e-10)


def test_without_a_compiler_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to find C++ compiler. Please specify.\nmany more lines")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ValueError, match=r"scale\.compile needs a compiler that works for cpu \(Failed to find C\+\+"):
        fit(build_method(config_of("mocov3")), ScaleConfig(compile=True), CPU)


def test_whole_runs_agree_and_go_on_with_other_settings(tmp_path: Path) -> None:
    root = write_fashion(tmp_path / "fashion")
    config = tiny_config(root, amp="float64", checkpoint_dir=str(tmp_path / "saved"), checkpoint_every=6)
    run = prepare(replace(config, checkpoint_dir=None, checkpoint_every=1000))
    train(run, Console(quiet=True))
    parts = replace(config, scale=ScaleConfig(accumulate=2, checkpoint_activations=True))
    assert train(prepare(parts), Console(quiet=True)).status == "finished"
    newest = max((tmp_path / "saved").iterdir())
    state = torch.load(newest)
    torch.testing.assert_close(run.model.state_dict(), state["model"], rtol=1e-7, atol=1e-9)
    assert state["model"].keys() == run.model.state_dict().keys()
    newest.unlink()
    again = prepare(replace(config, resume=True))
    assert again.start == 6
    train(again, Console(quiet=True))
    torch.testing.assert_close(again.model.state_dict(), state["model"], rtol=1e-7, atol=1e-9)


def test_a_run_in_parts_repeats_to_the_last_bit(tmp_path: Path) -> None:
    root = write_fashion(tmp_path / "fashion")
    states = []
    for _ in range(2):
        run = prepare(tiny_config(root, scale=ScaleConfig(accumulate=4), steps=4))
        train(run, Console(quiet=True))
        states.append(run.model.state_dict())
    assert same(*states)


REFUSED = {
    "a part that is no divisor": (ScaleConfig(accumulate=3), {}, r"batch_size 16 must be a multiple of .*accumulate 3"),
    "channels of a ViT": (ScaleConfig(channels_last=True), {}, "no effect on a backbone without convolutions"),
    "parts of a stem": (ScaleConfig(accumulate=2), {"stem": "conv", "patch_size": 4}, "BatchNorm of the stem"),
    "parts of a ViT-BN": (ScaleConfig(accumulate=2), {"mlp_norm": "batch"}, "BatchNorm of the blocks"),
    "a ViT-BN made anew": (ScaleConfig(checkpoint_activations=True), {"mlp_norm": "batch"}, "count every batch twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_or_does_nothing_is_refused(tmp_path: Path, name: str) -> None:
    scale, vit, said = REFUSED[name]
    config = tiny_config(write_fashion(tmp_path), scale=scale)
    with pytest.raises(ValueError, match=said):
        prepare(replace(config, vit=replace(config.vit, **vit)))


@pytest.mark.parametrize("setting", ["accumulate", "checkpoint_activations"])
def test_a_resnet_has_batch_norm_everywhere(tmp_path: Path, setting: str) -> None:
    config = replace(TrainConfig(), backbone="resnet", resnet=RESNET, scale=ScaleConfig(**{setting: 2}))
    with pytest.raises(ValueError, match="BatchNorm"):
        prepare(config)


def test_a_patch_projection_with_batch_norm_too(tmp_path: Path) -> None:
    config = tiny_config(write_fashion(tmp_path), scale=ScaleConfig(accumulate=2))
    with pytest.raises(ValueError, match="BatchNorm after the patch projection"):
        prepare(replace(config, method=MethodConfig(patch_projection="batch_norm")))


def test_blocks_are_made_anew_in_the_trained_encoder_only() -> None:
    model = build_method(config_of("mocov3"))
    fit(model, ScaleConfig(checkpoint_activations=True), CPU)
    changed = [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert changed == ["encoder.backbone.blocks.0", "encoder.backbone.blocks.1"]
    assert isinstance(model, nn.Module)
