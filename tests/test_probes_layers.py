"""Parameter names group into layers in the order of the forward pass."""

import random

import pytest

from foreshock.probes import group_layers
from foreshock.probes.layers import first_layer, last_block, middle_block

MOCO = [
    "encoder.backbone.cls_token",
    "encoder.backbone.pos_embed",
    "encoder.backbone.patch_embed.proj.weight",
    "encoder.backbone.patch_embed.proj.bias",
    *[f"encoder.backbone.blocks.{i}.{p}" for i in range(12) for p in ("norm1.weight", "attn.qkv.bias")],
    "encoder.backbone.norm.weight",
    "encoder.backbone.norm.bias",
    *[f"encoder.projector.{i}.weight" for i in (0, 3, 6)],
    *[f"predictor.{i}.weight" for i in (0, 3)],
]
BLOCKS = [f"blocks.{i:02d}" for i in range(12)]
ORDER = ["patch_embed", "tokens", *BLOCKS, "norm", "projector", "predictor"]


def test_moco_vit_in_order_with_every_parameter_once():
    groups = group_layers(MOCO)
    assert list(groups) == ORDER
    assert sorted(name for names in groups.values() for name in names) == sorted(MOCO)
    assert groups["tokens"] == ["encoder.backbone.cls_token", "encoder.backbone.pos_embed"]
    assert groups["blocks.10"] == [name for name in MOCO if ".blocks.10." in name]


def test_wrappers_change_nothing_but_the_parameter_names():
    wrapped = group_layers(f"module._orig_mod.{name}" for name in MOCO)
    assert list(wrapped) == ORDER
    assert wrapped["norm"] == [f"module._orig_mod.encoder.backbone.norm.{part}" for part in ("weight", "bias")]


def test_order_of_blocks_is_depth_not_order_of_names():
    names = list(MOCO)
    random.Random(0).shuffle(names)
    order = list(group_layers(names))
    assert order[:15] == ORDER[:15]
    assert sorted(order[15:]) == sorted(ORDER[15:])


def test_landmarks():
    groups = group_layers(MOCO)
    assert first_layer(groups) == "patch_embed"
    assert middle_block(groups) == "blocks.06"
    assert last_block(groups) == "blocks.11"


def test_a_momentum_encoder_keeps_its_own_layers():
    groups = group_layers([*MOCO, "momentum_encoder.backbone.blocks.0.norm1.weight"])
    assert groups["momentum_encoder.blocks.00"] == ["momentum_encoder.backbone.blocks.0.norm1.weight"]
    assert last_block(groups) == "blocks.11"


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (
            "transformer.wte.weight transformer.wpe.weight transformer.h.0.ln_1.weight transformer.h.11.mlp.c_fc.bias "
            "transformer.ln_f.weight lm_head.weight",
            ["embed", "position", "blocks.00", "blocks.11", "norm", "lm_head"],
        ),
        (
            "model.embed_tokens.weight model.layers.0.self_attn.q_proj.weight model.layers.1.mlp.up_proj.weight "
            "model.norm.weight lm_head.weight",
            ["embed", "blocks.00", "blocks.01", "norm", "lm_head"],
        ),
        (
            "conv1.weight bn1.weight layer1.0.conv1.weight layer1.0.bn1.weight layer4.1.conv2.weight fc.bias",
            ["stem", "layer1.00", "layer4.01", "fc"],
        ),
        (
            "class_token conv_proj.weight encoder.pos_embedding encoder.layers.encoder_layer_0.ln_1.weight "
            "encoder.ln.weight heads.head.weight",
            ["patch_embed", "tokens", "blocks.00", "norm", "heads"],
        ),
        (
            "vit.embeddings.cls_token vit.embeddings.patch_embeddings.projection.weight "
            "vit.encoder.layer.3.output.dense.bias vit.layernorm.weight classifier.weight",
            ["patch_embed", "tokens", "blocks.03", "norm", "classifier"],
        ),
        ("0.weight 0.bias 2.weight 10.weight", ["0", "2", "10"]),
        ("net.0.weight net.2.weight head.weight", ["net.00", "net.02", "head"]),
        ("conv1.weight conv2.weight fc1.weight fc2.weight", ["conv1", "conv2", "fc1", "fc2"]),
        ("mlp.fc1.weight mlp.fc2.weight", ["fc1", "fc2"]),
        ("encoder.0.weight encoder.2.weight decoder.0.weight", ["encoder.00", "encoder.02", "decoder.00"]),
        ("encoder.layers.0.a.w decoder.layers.0.a.w", ["blocks.00", "decoder.blocks.00"]),
        ("patch_embed.proj.weight", ["patch_embed"]),
        ("weight bias", ["weight", "bias"]),
        ("", []),
    ],
)
def test_known_and_unknown_models(names, layers):
    names = names.split()
    groups = group_layers(names)
    assert list(groups) == layers
    assert sorted(name for group in groups.values() for name in group) == sorted(names)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "resnet18"])
def test_real_timm_models(name):
    timm = pytest.importorskip("timm")
    names = [name for name, _ in timm.create_model(name).named_parameters()]
    groups = group_layers(names)
    assert sorted(name for group in groups.values() for name in group) == sorted(names)
    assert first_layer(groups) == ("stem" if name == "resnet18" else "patch_embed")
    assert last_block(groups) == ("layer4.01" if name == "resnet18" else "blocks.11")


def test_landmarks_of_a_net_without_blocks():
    assert first_layer(["fc1", "fc2", "head"]) == "fc1"
    assert last_block(["fc1", "fc2", "head"]) == "fc2"
    assert last_block(["0", "2", "10"]) == "10"


def test_errors():
    with pytest.raises(ValueError, match=r"'a\.weight' is given twice"):
        group_layers(["a.weight", "b.weight", "a.weight"])
    with pytest.raises(ValueError, match="no layers are given"):
        last_block([])
