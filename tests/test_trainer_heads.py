"""The projection and prediction heads: layers, initial weights, normalised output."""

from math import sqrt

import pytest
import torch
from torch import nn

from foreshock.trainer.heads import predictor, projector

HEADS = [(projector(24, 64, 16), 3), (predictor(24, 64, 16), 2)]


@pytest.mark.parametrize(("head", "depth"), HEADS)
def test_layers(head, depth):
    layers = list(head)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d)]
    assert [type(layer) for layer in layers[:3]] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert (len(linear), len(norms), len(layers)) == (depth, depth, 3 * depth - 1)
    assert all(layer.bias is None for layer in linear)
    assert [norm.affine for norm in norms] == [True] * (depth - 1) + [False]
    assert [layer.in_features for layer in linear] == [24] + [64] * (depth - 1)
    assert linear[-1].out_features == 16


@pytest.mark.parametrize(("head", "depth"), HEADS)
def test_initial_weights_are_pytorchs(head, depth):
    for layer in head:
        if isinstance(layer, nn.Linear):
            bound = 1 / sqrt(layer.in_features)
            assert 0.9 * bound < layer.weight.abs().max().item() <= bound


@pytest.mark.parametrize(("head", "depth"), HEADS)
def test_the_output_of_a_batch_has_mean_0_and_variance_1(head, depth):
    y = head(3 + 5 * torch.randn(256, 24))
    torch.testing.assert_close(y.mean(0), torch.zeros(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(0, unbiased=False), torch.ones(16), rtol=0, atol=1e-2)


def test_the_papers_widths_are_the_defaults():
    assert [layer.weight.shape for layer in projector(384) if isinstance(layer, nn.Linear)] == [
        (4096, 384),
        (4096, 4096),
        (256, 4096),
    ]
    assert [layer.weight.shape for layer in predictor() if isinstance(layer, nn.Linear)] == [
        (4096, 256),
        (256, 4096),
    ]
