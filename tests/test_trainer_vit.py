"""The vision transformer: initial weights, position table, sizes, and that images do not see one another."""

from math import cos, sin, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Attention
from torch import nn

from foreshock.trainer.config import VitConfig
from foreshock.trainer.vit import sincos_position, vit

SMALL = VitConfig(image_size=16, in_chans=3, patch_size=4, dim=48, depth=2, heads=4)


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "patch", "millions"),
    [(384, 12, 12, 16, 22), (768, 12, 12, 16, 86), (1024, 24, 16, 16, 304), (1280, 32, 16, 14, 632)],
)
def test_parameter_counts_of_table_2(dim, depth, heads, patch, millions):
    with torch.device("meta"):
        model = vit(VitConfig(224, 3, patch, dim, depth, heads))
    assert trainable(model) / 1e6 == pytest.approx(millions, rel=0.025)


def assert_uniform(weight: torch.Tensor, bound: float) -> None:
    """All within the bound, and so many so near to it as a uniform draw has."""
    assert weight.abs().max() <= bound
    assert (weight.abs() / bound).mean().item() == pytest.approx(0.5, abs=0.05)


def test_initial_weights():
    torch.manual_seed(1)
    model = vit(SMALL)
    for block in model.blocks:
        for part in block.attn.qkv.weight.chunk(3):
            assert_uniform(part, sqrt(6 / (48 + 48)))
        assert_uniform(block.attn.proj.weight, sqrt(6 / (48 + 48)))
        assert_uniform(block.mlp.fc1.weight, sqrt(6 / (48 + 192)))
        assert_uniform(block.mlp.fc2.weight, sqrt(6 / (48 + 192)))
    assert_uniform(model.patch_embed.proj.weight, sqrt(6 / (3 * 4 * 4 + 48)))
    assert 0 < model.cls_token.abs().max() < 6e-6
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 1 + 2 * 6 + 1
    assert not any(bias.any() for bias in biases)


def test_every_layer_norm_starts_neutral_with_eps_1e_6():
    norms = [module for module in vit(SMALL).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 1
    assert all(norm.eps == 1e-6 and bool((norm.weight == 1).all()) for norm in norms)


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    def draw(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in vit(SMALL).parameters()])

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def position_twin(grid_h: int, grid_w: int, dim: int) -> list[list[float]]:
    rows = [[0.0] * dim]
    for y in range(grid_h):
        for x in range(grid_w):
            frequencies = [1 / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
            axes = [[f(axis * w) for w in frequencies] for axis in (y, x) for f in (sin, cos)]
            rows.append(axes[0] + axes[1] + axes[2] + axes[3])
    return rows


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_position_table_is_its_twin_on_any_grid(grid_h, grid_w, quarter):
    table = sincos_position(grid_h, grid_w, 4 * quarter)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, torch.tensor([position_twin(grid_h, grid_w, 4 * quarter)]))


def test_a_dim_that_has_no_quarters_is_refused():
    with pytest.raises(ValueError, match="dim 6 must be a multiple of 4"):
        sincos_position(2, 2, 6)


def test_the_table_is_in_the_model_and_fixed():
    model = vit(VitConfig(image_size=(16, 24), in_chans=2, patch_size=8, dim=16, depth=1, heads=2))
    assert torch.equal(model.pos_embed, sincos_position(2, 3, 16))
    assert not model.pos_embed.requires_grad


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_image_gives_one_feature_vector_and_every_weight_a_gradient(channels):
    model = vit(VitConfig(image_size=(16, 24), in_chans=channels, patch_size=8, dim=16, depth=2, heads=2))
    features = model(torch.randn(5, channels, 16, 24))
    assert features.shape == (5, 16)
    features.square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_the_output_is_the_class_token_after_the_last_norm():
    model = vit(SMALL)
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(model(x), model.forward_features(x)[:, 0])


def test_images_do_not_see_one_another():
    model = vit(SMALL).double()
    x1, x2 = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64)
    together = model(torch.cat([x1, x2]))
    torch.testing.assert_close(together, torch.cat([model(x1), model(x2)]), rtol=1e-12, atol=1e-12)


def test_patches_are_told_apart_by_their_position():
    model = vit(SMALL)
    x = torch.randn(1, 3, 16, 16)
    assert not torch.allclose(model(x), model(x.transpose(2, 3)))


def test_short_sequences_get_the_same_attention_from_either_kernel():
    attention = vit(SMALL).double().blocks[0].attn
    x = torch.randn(3, 17, 48, dtype=torch.float64, requires_grad=True)
    ours, fused = attention(x), Attention.forward(attention, x)
    torch.testing.assert_close(ours, fused, rtol=1e-12, atol=1e-13)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, fused)]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-12)
