"""The trainer in float64 against whole runs of the published code: losses, gradients and final tensors."""

from ast import literal_eval
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from foreshock.trainer.authors import from_authors
from foreshock.trainer.config import AugmentConfig, HeadConfig, MethodConfig, OptimConfig, TrainConfig, VitConfig
from foreshock.trainer.methods import build_method
from foreshock.trainer.optim import LARS, build_optimizer, set_lr
from foreshock.trainer.schedules import Schedules, lr_at, momentum_at
from foreshock.trainer.vit import sincos_position


@dataclass
class Run:
    """What the trainer did with the inputs of one fixture."""

    fixture: dict[str, np.ndarray]
    loss: list[float]
    lr: list[float]
    momentum: list[float]
    grad0: dict[str, torch.Tensor]
    grad_norms: list[dict[str, float]]
    final: dict[str, torch.Tensor]

    def expected(self, prefix: str) -> dict[str, np.ndarray]:
        start = f"{prefix}/"
        named = {name.removeprefix(start): v for name, v in self.fixture.items() if name.startswith(start)}
        return from_authors(named)


def config_of(fixture: dict[str, np.ndarray]) -> tuple[TrainConfig, int]:
    c = literal_eval(str(fixture["config"]))
    config = TrainConfig(
        vit=VitConfig(c["img"], 3, c["patch"], c["embed_dim"], c["depth"], c["heads"]),
        heads=HeadConfig(c["mlp_dim"], c["dim"]),
        method=MethodConfig(
            temperature=c["T"],
            momentum=c["moco_m"],
            momentum_schedule="cosine" if c["moco_m_cos"] else "constant",
            patch_projection="frozen" if c["stop_grad_conv1"] else "learned",
        ),
        optim=OptimConfig(c["optimizer"], c["base_lr"], c["weight_decay"], warmup_epochs=c["warmup_epochs"]),
        augment=AugmentConfig(),
        batch_size=c["batch"],
        epochs=c["epochs"],
        steps=None,
    )
    return config, c["iters_per_epoch"]


def replay(path: Path) -> Run:
    fixture = dict(np.load(path))
    config, steps_per_epoch = config_of(fixture)
    schedules = Schedules(config, steps_per_epoch)
    model = build_method(config).double()
    run = Run(fixture, [], [], [], {}, [], {})
    start = {name: torch.from_numpy(value) for name, value in run.expected("init").items()}
    model.load_state_dict(start)
    optimizer = build_optimizer(model, config.optim, config.lr)
    x1, x2 = (torch.from_numpy(fixture[name]).double() for name in ("x1", "x2"))
    for step in range(schedules.total_steps):
        run.lr.append(schedules.lr(step))
        run.momentum.append(schedules.momentum(step))
        set_lr(optimizer, run.lr[-1])
        output = model(x1[step], x2[step], run.momentum[-1])
        optimizer.zero_grad()
        output.loss.backward()
        run.loss.append(output.loss.item())
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        run.grad_norms.append({name: grad.norm().item() for name, grad in grads.items()})
        run.grad0 = run.grad0 or grads
        optimizer.step()
    run.final = model.state_dict()
    return run


@pytest.fixture(scope="module", params=["mocov3_vit_adamw", "mocov3_vit_frozen_lars"])
def run(request, shared_dir) -> Run:
    return replay(shared_dir / "oracles" / f"{request.param}.npz")


def test_losses_agree(run):
    np.testing.assert_allclose(run.loss, run.fixture["loss"], rtol=1e-9)


def test_lr_and_momentum_agree(run):
    np.testing.assert_allclose(run.lr, run.fixture["lr"], rtol=1e-12)
    np.testing.assert_allclose(run.momentum, run.fixture["m"], rtol=1e-12)


def test_the_first_gradients_agree_and_belong_to_the_same_parameters(run):
    expected = run.expected("grad0")
    assert run.grad0.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(run.grad0[name], value, rtol=1e-7, atol=1e-12, err_msg=name)


def test_gradient_norms_agree_at_every_step(run):
    expected = run.expected("gradnorm")
    assert run.grad_norms[0].keys() == expected.keys()
    for name, value in expected.items():
        measured = [norms[name] for norms in run.grad_norms]
        np.testing.assert_allclose(measured, value, rtol=1e-7, atol=1e-12, err_msg=name)


def test_final_tensors_agree(run):
    expected = run.expected("final")
    assert {name for name in run.final if "num_batches" not in name} == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(run.final[name], value, rtol=0, atol=1e-7, err_msg=name)


def test_lars_agrees_over_20_steps_of_a_changing_lr(shared_dir):
    fixture = np.load(shared_dir / "oracles" / "lars_20steps.npz")
    tensors = [torch.nn.Parameter(torch.from_numpy(fixture[f"p{i}_init"])) for i in range(4)]
    optimizer = LARS(tensors, lr=0.0, momentum=0.9, weight_decay=1e-2)
    for step, lr in enumerate(fixture["lr"]):
        for i, tensor in enumerate(tensors):
            tensor.grad = torch.from_numpy(fixture[f"p{i}_grads"][step])
        set_lr(optimizer, float(lr))
        optimizer.step()
    for i, tensor in enumerate(tensors):
        np.testing.assert_allclose(tensor.detach(), fixture[f"p{i}_final"], rtol=1e-12, atol=1e-14)


def test_schedules_agree_over_300_epochs(shared_dir):
    fixture = np.load(shared_dir / "oracles" / "schedules_vit_300ep.npz")
    lr = [lr_at(e, peak=2.4e-3, epochs=300, warmup_epochs=40) for e in fixture["epoch"]]
    momentum = [momentum_at(e, base=0.99, epochs=300, schedule="cosine") for e in fixture["epoch"]]
    np.testing.assert_allclose(lr, fixture["lr"], rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(momentum, fixture["m"], rtol=1e-14)


def test_the_position_table_agrees_on_a_square_grid(shared_dir):
    expected = np.load(shared_dir / "oracles" / "sincos_4x4x16.npz")["pos_embed"]
    np.testing.assert_allclose(sincos_position(4, 4, 16), expected, rtol=0, atol=2e-7)
