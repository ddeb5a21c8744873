"""The vision transformer of MoCo v3: timm's, with the paper's positions, initial weights and variants.

Images are `f32[N, C, H, W]` in any normalisation; the output, by default the class token after the last LayerNorm, is
`[N, D]`.
Source: arXiv 2104.02057, Sec. 5; the bounds of the initial weights are those of the published code.
"""

__all__ = ["init_vit_", "sincos_position", "vit"]

from functools import partial
from math import sqrt

import torch
from timm.layers import Attention, PatchEmbed  # pyright: ignore[reportPrivateImportUsage]
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .config import VitConfig
from .conv_stem import ConvStem
from .token_norm import TokenBatchNorm


def vit(config: VitConfig) -> VisionTransformer:
    """A vision transformer that maps images `[N, C, H, W]` to features `[N, dim]`.

    >>> model = vit(VitConfig(image_size=224, in_chans=3, patch_size=16, dim=384, depth=12, heads=12))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
    21590016
    """
    class_token = config.pooling == "class_token"
    model = VisionTransformer(
        img_size=config.size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=0,
        global_pool="token" if class_token else "avg",
        class_token=class_token,
        final_norm=config.pooling != "mean_pool",
        fc_norm=False,
        pos_embed="none" if config.position == "none" else "learn",
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
        embed_layer=PatchEmbed if config.stem == "patch" else ConvStem,
        attn_layer=_Attention,
    )
    if config.mlp_norm == "batch":
        for block in model.blocks:
            block.norm2 = TokenBatchNorm(config.dim)
    return init_vit_(model, config.position)


def sincos_position(grid_h: int, grid_w: int, dim: int) -> Tensor:
    """Position table `f32[1, 1 + grid_h * grid_w, dim]`; row 0, the class token's, is zero.

    Tokens are in row-major order. A quarter of the channels each holds sin(y w), cos(y w), sin(x w), cos(x w), where
    y counts rows, x columns, and w falls from 1 towards 1/10000. That the vertical position comes first is what the
    published code does on square grids (MAE's table is its transpose); on other grids that code mixes the axes up,
    and this table does not.

    Raises ValueError if dim is not a multiple of 4.

    >>> sincos_position(2, 3, 8)[0, 6].tolist()[4:6]  # the last token is in column 2
    [0.9092974066734314, 0.019998665899038315]
    """
    if dim % 4:
        raise ValueError(f"dim {dim} must be a multiple of 4: a quarter each for sine and cosine of two axes.")
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y = torch.arange(grid_h).repeat_interleave(grid_w)[:, None] * frequency
    x = torch.arange(grid_w).repeat(grid_h)[:, None] * frequency
    table = torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], dim=1)
    return torch.cat([table.new_zeros(1, dim), table])[None].float()


@torch.no_grad()
def init_vit_(model: VisionTransformer, position: str = "sincos") -> VisionTransformer:
    """Draw the initial weights of a ViT in place and fix its position table, unless that is learned; returns the model.

    Query, key and value matrices are drawn as three matrices (bound sqrt(6 / (d + d)) each), all others with their
    own Xavier bound; biases are 0. Convolutions of a stem keep PyTorch's initial weights.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            _uniform_(module, fan_in=module.in_features, fan_out=fan_out)
    projection = model.patch_embed.proj
    if isinstance(projection, nn.Conv2d):
        _uniform_(projection, fan_in=projection.weight[0].numel(), fan_out=projection.out_channels)
    if model.cls_token is not None:
        nn.init.normal_(model.cls_token, std=1e-6)
    if position == "learned":
        assert model.pos_embed is not None
        nn.init.trunc_normal_(model.pos_embed, std=0.02)  # as in arXiv 2010.11929
    elif position == "sincos":
        assert model.pos_embed is not None
        table = sincos_position(*model.patch_embed.grid_size, dim=model.embed_dim)
        model.pos_embed.copy_(table[:, 1 - model.num_prefix_tokens :])
        model.pos_embed.requires_grad_(False)
    return model


class _Attention(Attention):
    """timm's attention, with two plain matrix products where the fused kernel is slower."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        # On a CPU that is the case for sequences as short as 4 x 4 patches: a whole training step of a ViT of depth
        # 8 and width 32 takes 0.19 s instead of 0.22 s on one core.
        if x.device.type != "cpu" or x.shape[1] > 32 or attn_mask is not None or is_causal:
            return super().forward(x, attn_mask, is_causal)
        images, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(images, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        weights = (q * self.scale @ k.mT).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(images, tokens, -1))


def _uniform_(layer: nn.Linear | nn.Conv2d, *, fan_in: int, fan_out: int) -> None:
    bound = sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -bound, bound)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
