"""What makes a large model fit and run fast: a batch in parts, activations made anew, memory layout, compilation.

None of it changes what is learned. Each setting that would do nothing for the network at hand is refused.
"""

__all__ = ["check_fitting", "fit"]

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .config_backbone import ResNetConfig, VitConfig
from .config_checks import without_effect
from .config_scale import ScaleConfig
from .encoder import Encoder


def check_fitting(
    scale: ScaleConfig, network: VitConfig | ResNetConfig, patch_projection: str, batch_size: int
) -> None:
    """Raise ValueError if a setting cannot work, or would do nothing, for this network and batch.

    >>> check_fitting(ScaleConfig(accumulate=4), VitConfig(), "learned", 256)
    """
    if batch_size % scale.accumulate:
        raise ValueError(f"batch_size {batch_size} must be a multiple of scale.accumulate {scale.accumulate}.")
    norms = _batch_norms(network, patch_projection)
    if scale.accumulate > 1 and norms:
        raise ValueError(
            f"scale.accumulate {scale.accumulate} would give {norms} of the backbone a part of the batch at a time, "
            "which changes what it computes: leave it at 1 and lower batch_size, or use more processes."
        )
    convolutions = isinstance(network, ResNetConfig) or network.stem == "conv"
    if scale.checkpoint_activations and norms and (isinstance(network, ResNetConfig) or network.mlp_norm == "batch"):
        raise ValueError(
            f"scale.checkpoint_activations would count every batch twice in the running statistics of {norms}: "
            "leave it off, or lower batch_size."
        )
    if not convolutions:
        without_effect(scale, "on a backbone without convolutions", "channels_last")


def fit(model: nn.Module, scale: ScaleConfig, device: torch.device) -> None:
    """Apply the settings to the encoders of `model`, in place; names of parameters and buffers stay.

    Raises ValueError if it is to be compiled and there is no working compiler.

    >>> from .config import TrainConfig
    >>> from .methods import build_method
    >>> model = build_method(TrainConfig())
    >>> fit(model, ScaleConfig(accumulate=4), torch.device("cpu"))
    >>> model.momentum_encoder.parts
    4
    """
    if scale.compile:
        _try_compiler(device)
    for encoder in (module for module in model.modules() if isinstance(module, Encoder)):
        encoder.parts = scale.accumulate
        if scale.checkpoint_activations and any(p.requires_grad for p in encoder.parameters()):
            _make_blocks_anew(encoder.backbone)
        if scale.channels_last:
            encoder.backbone.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if scale.compile:
            encoder.backbone.compile(dynamic=False)


def _batch_norms(network: VitConfig | ResNetConfig, patch_projection: str) -> str:
    """Where the backbone has BatchNorm, in words; empty if nowhere."""
    if isinstance(network, ResNetConfig):
        return "the BatchNorm"
    if network.mlp_norm == "batch":
        return "the BatchNorm of the blocks"
    if network.stem == "conv":
        return "the BatchNorm of the stem"
    return "the BatchNorm after the patch projection" if patch_projection == "batch_norm" else ""


def _make_blocks_anew(backbone: nn.Module) -> None:
    """Keep only the input of each transformer block for the backward pass, which computes the rest again."""
    blocks = backbone.blocks
    assert isinstance(blocks, nn.Sequential)
    for block in blocks:
        # There is no dropout, so no state of a random generator has to be kept.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(lambda x: x * 2 + 1, dynamic=False)(torch.zeros(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(
            f"scale.compile needs a compiler that works for {device.type} ({lines[0].rstrip('.')}): install one "
            "(a C++ compiler; for CUDA Triton too), or leave it off."
        ) from error
