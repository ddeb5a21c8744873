"""AdamW over everything that is trained, and LARS against a slow and obvious twin."""

import copy
from math import sqrt

import pytest
import torch
from torch import nn

from foreshock.trainer.config import OptimConfig
from foreshock.trainer.lars import LARS
from foreshock.trainer.optim import build_optimizer, set_lr

SHAPES = [(6, 5), (6,), (1, 1, 5), (4, 3), ()]


def draw(seed: int, dtype=torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def give_gradients(parameters, step: int) -> None:
    for parameter, gradient in zip(parameters, draw(100 + step), strict=True):
        parameter.grad = gradient.detach().clone().to(parameter.dtype)


def lars_twin(parameters, lrs, *, momentum, weight_decay, trust):
    """One number at a time, in the words of the docstring."""
    values = [p.detach().flatten().tolist() for p in parameters]
    buffers = [[0.0] * len(v) for v in values]
    for step, lr in enumerate(lrs):
        give_gradients(parameters, step)
        for value, buffer, p in zip(values, buffers, parameters, strict=True):
            update = p.grad.flatten().tolist()
            if p.ndim > 1:
                update = [g + weight_decay * w for g, w in zip(update, value, strict=True)]
                norm, length = sqrt(sum(w * w for w in value)), sqrt(sum(u * u for u in update))
                scale = trust * norm / length if norm > 0 and length > 0 else 1.0
                update = [scale * u for u in update]
            for i, u in enumerate(update):
                buffer[i] = momentum * buffer[i] + u
                value[i] -= lr * buffer[i]
    return values


def test_lars_is_its_twin():
    parameters = draw(0)
    with torch.no_grad():
        parameters[3].zero_()
    lrs = [0.3 * (1 - step / 20) for step in range(20)]
    settings = {"momentum": 0.8, "weight_decay": 0.02}
    expected = lars_twin(parameters, lrs, **settings, trust=0.01)
    optimizer = LARS(parameters, lr=1.0, trust_coefficient=0.01, **settings)
    for step, lr in enumerate(lrs):
        give_gradients(parameters, step)
        set_lr(optimizer, lr)
        optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(
            parameter.detach().flatten(), torch.tensor(value, dtype=torch.float64), rtol=1e-12, atol=1e-14
        )


def test_lars_leaves_a_matrix_alone_whose_gradient_and_decay_are_zero():
    matrix = nn.Parameter(torch.ones(3, 3))
    matrix.grad = torch.zeros(3, 3)
    LARS([matrix], lr=1.0, weight_decay=0.0).step()
    assert torch.equal(matrix.detach(), torch.ones(3, 3))


def test_lars_never_leaves_the_device():
    parameters = [nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    LARS(parameters, lr=0.1, weight_decay=0.1).step()  # a number read from a meta tensor would raise


def test_lars_passes_over_parameters_without_gradient_and_calls_the_closure():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([used, unused], lr=1.0, weight_decay=0.5)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4.0
    assert torch.equal(unused.detach(), torch.ones(2, 2))
    assert not torch.equal(used.detach(), torch.ones(2, 2))


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_a_restored_optimizer_continues_to_the_last_bit(name):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))

    def steps(model, optimizer, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(7, 5)).square().sum().backward()
            optimizer.step()

    straight = build_optimizer(model, OptimConfig(name), lr=0.1)
    steps(model, straight, 0, 5)
    resumed = copy.deepcopy(model)
    restored = build_optimizer(resumed, OptimConfig(name), lr=9.0)
    restored.load_state_dict(copy.deepcopy(straight.state_dict()))
    steps(model, straight, 5, 10)
    steps(resumed, restored, 5, 10)
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def adamw_twin(p, gradients, lr, wd, beta1, beta2):
    mean = square = torch.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        p = p - lr * wd * p
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g * g
        p = p - lr * (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + 1e-8)
    return p


def test_adamw_decays_every_parameter():
    model = nn.ParameterList(draw(0))
    start = [p.detach().clone() for p in model]
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.3, betas=(0.8, 0.95)), lr=0.02)
    gradients = []
    for step in range(10):
        give_gradients(list(model), step)
        gradients.append([p.grad for p in model])
        optimizer.step()
    for i, (p, p0) in enumerate(zip(model, start, strict=True)):
        expected = adamw_twin(p0, [g[i] for g in gradients], 0.02, 0.3, 0.8, 0.95)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


def test_frozen_parameters_are_not_in_the_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    held = [p for group in build_optimizer(model, OptimConfig(), lr=0.1).param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[1].parameters()}


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig(), lr=0.1)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"trust_coefficient": 0.0}])
def test_lars_refuses_settings_out_of_range(bad):
    with pytest.raises(ValueError, match="must not be negative"):
        LARS([nn.Parameter(torch.ones(1))], **({"lr": 1.0} | bad))
