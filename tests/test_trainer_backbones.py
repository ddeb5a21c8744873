"""Backbones: sizes and operations of the paper's tables, the variants of ViT, ResNets, and what they refuse."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foreshock.trainer.backbone import build_backbone
from foreshock.trainer.config import HeadConfig, MethodConfig, OptimConfig, ResNetConfig, TrainConfig, VitConfig
from foreshock.trainer.config_backbone import SIZES, vit_of_size
from foreshock.trainer.methods import build_method
from foreshock.trainer.observed import observed_layers
from foreshock.trainer.resnet import resnet
from foreshock.trainer.token_norm import TokenBatchNorm
from foreshock.trainer.vit import vit

SMALL = {"image_size": 16, "in_chans": 3, "patch_size": 4, "dim": 32, "depth": 2, "heads": 4}


def parameters(model: nn.Module) -> float:
    """Millions, the position table apart."""
    return sum(p.numel() for n, p in model.named_parameters() if n != "pos_embed") / 1e6


def multiply_adds(model: nn.Module) -> float:
    """Thousand millions for one crop of 224 x 224."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224))
    return counter.get_total_flops() / 2e9


def of_size(name: str) -> nn.Module:
    with torch.device("meta"):
        return vit(vit_of_size(name, VitConfig(image_size=224, in_chans=3)))


@pytest.mark.parametrize(
    ("name", "millions", "operations"),
    [("vit-s/16", 22, 4.6), ("vit-b/16", 86, 17.5), ("vit-l/16", 304, 61.3), ("vit-h/14", 632, 166.7)],
)
def test_parameters_of_table_2_and_operations_of_table_3(name, millions, operations):
    model = of_size(name)
    assert parameters(model) == pytest.approx(millions, rel=0.02)
    assert multiply_adds(model) == pytest.approx(operations, rel=0.01)


def test_patches_of_7_keep_the_size_and_take_6_times_the_operations():
    large, small = of_size("vit-b/16"), of_size("vit-b/7")
    assert parameters(small) == pytest.approx(parameters(large), rel=0.01)
    assert multiply_adds(small) / multiply_adds(large) == pytest.approx(6, rel=0.05)


def test_resnet_50_has_the_published_size_and_operations():
    with torch.device("meta"):
        model = resnet(ResNetConfig())
    assert parameters(model) == pytest.approx(23.5, rel=0.01)
    assert multiply_adds(model) == pytest.approx(4.1, rel=0.01)


def test_every_size_has_heads_of_the_papers_width():
    assert {name: dim // heads for name, (dim, _, heads) in SIZES.items()} == {
        "vit-s": 32,
        "vit-b": 64,
        "vit-l": 64,
        "vit-h": 80,
    }
    with pytest.raises(ValueError, match="'vit-g/14' is unknown: give one of vit-s"):
        vit_of_size("vit-g/14")


VARIANTS = [
    {"stem": "conv"},
    {"mlp_norm": "batch"},
    {"position": "learned"},
    {"position": "none"},
    {"pooling": "mean_pool"},
    {"pooling": "norm_then_mean_pool"},
    {"stem": "conv", "mlp_norm": "batch", "position": "none", "pooling": "mean_pool"},
    {"image_size": (16, 24)},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_law_every_variant_gives_features_and_every_weight_a_gradient(variant):
    torch.manual_seed(0)
    config = VitConfig(**SMALL | variant)
    model = vit(config)
    features = model(torch.randn(5, 3, *config.size))
    assert features.shape == (5, 32)
    features.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters() if p.requires_grad)


def test_without_positions_patches_are_a_set():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4)  # [2, 3, 4, 4, 4, 4]
    order = torch.randperm(16)
    shuffled = patches.flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    y = shuffled.permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 16, 16)
    for position, alike in (("none", True), ("sincos", False), ("learned", False)):
        model = vit(VitConfig(**SMALL, position=position))
        assert torch.allclose(model(x), model(y), atol=1e-5) == alike


def test_a_learned_position_is_trained_and_a_fixed_one_is_not():
    trained = {
        position: vit(VitConfig(**SMALL, position=position)).pos_embed.requires_grad
        for position in ("learned", "sincos")
    }
    assert trained == {"learned": True, "sincos": False}
    assert vit(VitConfig(**SMALL, position="none")).pos_embed is None


def test_pooling_means_the_tokens_with_or_without_the_last_norm():
    x = torch.randn(2, 3, 16, 16)
    with_norm, without = (vit(VitConfig(**SMALL, pooling=p)) for p in ("norm_then_mean_pool", "mean_pool"))
    assert with_norm.cls_token is None
    torch.testing.assert_close(with_norm(x), with_norm.forward_features(x).mean(1))
    assert isinstance(with_norm.norm, nn.LayerNorm)
    assert isinstance(without.norm, nn.Identity)
    torch.testing.assert_close(without(x), without.forward_features(x).mean(1))


def test_vit_bn_has_batch_norm_in_the_mlp_blocks_only():
    model = vit(VitConfig(**SMALL, mlp_norm="batch"))
    for block in model.blocks:
        assert isinstance(block.norm1, nn.LayerNorm)
        assert isinstance(block.norm2, TokenBatchNorm)
    assert isinstance(model.norm, nn.LayerNorm)


def test_a_token_batch_norm_is_batch_norm_of_every_channel():
    norm, tokens = TokenBatchNorm(6), torch.randn(3, 5, 6) * 4 + 2
    out = norm(tokens)
    for channel in range(6):
        x = tokens[..., channel]
        expected = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(out[..., channel], expected)


def test_the_layers_of_every_backbone_are_in_order():
    conv = TrainConfig(vit=VitConfig(**SMALL, stem="conv"), augment=TrainConfig().augment)
    assert list(observed_layers(build_method(conv)))[:3] == ["patch_embed", "tokens", "blocks.00"]
    config = TrainConfig(backbone="resnet", resnet=ResNetConfig("resnet18", 32, 1))
    assert list(observed_layers(build_method(config)))[:2] == ["stem", "layer1.00"]
    swav = TrainConfig(method=MethodConfig("swav", temperature=0.1, prototypes=10))
    assert list(observed_layers(build_method(swav)))[-2:] == ["projector", "prototypes"]


REFUSED = [
    (lambda: VitConfig(**SMALL | {"patch_size": 16, "dim": 36, "heads": 3}, stem="conv"), "a power of 2"),
    (lambda: VitConfig(image_size=30, patch_size=6, dim=48, stem="conv"), "a power of 2"),
    (lambda: VitConfig(**SMALL, position="relative"), "one of sincos, learned, none"),
    (lambda: ResNetConfig("resnet9"), "one of resnet18"),  # type: ignore[arg-type]
    (lambda: ResNetConfig(image_size=28), "too small for five halvings"),
    (lambda: TrainConfig(backbone="resnet", vit=VitConfig(depth=3)), "settings of vit would have no effect"),
    (lambda: TrainConfig(resnet=ResNetConfig("resnet18")), "settings of resnet would have no effect"),
    (
        lambda: TrainConfig(backbone="resnet", method=MethodConfig(patch_projection="frozen")),
        "'frozen' would have no effect on a ResNet",
    ),
    (
        lambda: TrainConfig(vit=VitConfig(**SMALL, stem="conv"), method=MethodConfig(patch_projection="clip")),
        "'clip' would have no effect on a ViT with a convolutional stem",
    ),
    (lambda: MethodConfig(patch_clip=0.1), "patch_clip 0.1 would have no effect with patch_projection 'learned'"),
    (lambda: MethodConfig(patch_projection="slow", patch_lr_scale=1.0), "patch_lr_scale 1.0 would have no effect"),
    (lambda: MethodConfig(momentum=1.0, momentum_schedule="cosine"), "start below it"),
    (lambda: HeadConfig(predictor=False, predictor_last_bn=False), "predictor_last_bn"),
    (lambda: OptimConfig(clip_norm=2.0), "clip_norm 2.0 would have no effect with clip 'off'"),
    (lambda: OptimConfig("lamb", momentum=0.5), "momentum 0.5 would have no effect with optimizer 'lamb'"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert str(error.value).endswith(".")


def test_a_backbone_without_patches_refuses_a_treatment_by_itself_too():
    with pytest.raises(ValueError, match="needs a patch projection, which this backbone lacks"):
        build_backbone(ResNetConfig("resnet18", 32, 1), MethodConfig(patch_projection="frozen"))
