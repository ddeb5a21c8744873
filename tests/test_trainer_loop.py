"""What the loop computes, records and stops for."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_runs import BATCH, same, tiny_config, write_fashion, write_images
from torch.utils._python_dispatch import TorchDispatchMode

from foreshock.probes import group_layers
from foreshock.traces import open_trace
from foreshock.trainer.batches import batches
from foreshock.trainer.config import OptimConfig, TrainConfig
from foreshock.trainer.data import DataError
from foreshock.trainer.loop import train
from foreshock.trainer.run import prepare
from foreshock.trainer.schedules import Schedules

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    run = prepare(config)
    train(run, QUIET)
    return run.model.state_dict()


def test_what_is_recorded(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"))
    result = train(config, QUIET)
    assert (result.status, result.exit_code, result.step) == ("finished", 0, 12)
    trace = open_trace(tmp_path / "run")
    assert trace.status == "finished"
    assert trace.steps.tolist() == list(range(12))
    schedules = Schedules(config, 4)
    assert trace["lr"].tolist() == pytest.approx([schedules.lr(step) for step in range(12)])
    assert trace["lr"][0] == 0
    assert set(trace["momentum"]) == {0.99}
    assert trace["chance_loss"].tolist() == pytest.approx([4 * 0.2 * math.log(BATCH)] * 12)
    assert abs(trace["loss"][0] - trace["chance_loss"][0]) < 1
    assert np.isnan(trace["knn_accuracy"]).tolist() == [True] + [False] * 11
    assert set(trace["knn_queries"][1:]) == {BATCH}
    for name in ("contrastive_accuracy", "positive_similarity", "negative_similarity", "grad_norm_total"):
        assert np.isfinite(trace[name]).all(), name
    assert trace.layers[0] == "patch_embed"
    assert not any("momentum" in layer for layer in trace.layers)
    assert trace["grad_norm"].shape == (len(trace.layers), 12)
    assert (trace["grad_norm"] > 0).all()
    assert trace.config["batch_size"] == BATCH
    assert trace.meta["total_steps"] == 12
    assert trace.meta["warmup_steps"] == 3
    assert trace.meta["knn"] == trace.meta["knn"] | {"k": 5, "temperature": 0.07, "queue": 70, "metric": "cosine"}
    assert trace.meta["knn"]["classes"] > 1
    assert result.knn["last"] == trace["knn_accuracy"][-1]
    assert result.knn["best"] == np.nanmax(trace["knn_accuracy"])
    assert result.loss == pytest.approx(trace["loss"][-1])
    assert 0 < result.tracing_seconds < result.seconds


def test_gradients_are_those_before_the_optimizer(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), steps=4)
    train(config, QUIET)
    by_hand = prepare(replace(config, trace=None))
    batch = next(batches(by_hand.data, config, by_hand.device, 0, 1))
    by_hand.model.train()
    by_hand.model(batch.x1, batch.x2, 0.99).loss.backward()
    gradients = {n: p.grad for n, p in by_hand.model.named_parameters() if p.grad is not None}
    trace = open_trace(tmp_path / "run")
    for layer, names in group_layers(gradients).items():
        norm = math.sqrt(sum(float((gradients[n].double() ** 2).sum()) for n in names))
        assert trace["grad_norm"][trace.layers.index(layer), 0] == pytest.approx(norm, rel=1e-5)


def test_tracing_changes_no_weight_and_the_seed_decides_all(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root)
    plain = weights(config)
    assert same(plain, weights(replace(config, trace=str(tmp_path / "run"))))
    assert same(plain, weights(config))
    assert not same(plain, weights(replace(config, seed=1)))


def test_a_frozen_patch_projection_stays_and_reads_nan(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"))
    config = replace(config, method=replace(config.method, patch_projection="frozen"))
    run = prepare(config)
    before = run.model.encoder.backbone.patch_embed.proj.weight.clone()  # pyright: ignore
    train(run, QUIET)
    assert torch.equal(run.model.encoder.backbone.patch_embed.proj.weight, before)  # pyright: ignore
    norms = open_trace(tmp_path / "run")["grad_norm"]
    assert np.isnan(norms[0]).all()
    assert np.isfinite(norms[1:]).all()


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_steps_between_two_lines_never_wait_for_the_device(root: Path) -> None:
    counts = []
    for steps in (6, 12):
        run = prepare(tiny_config(root, steps=steps, log_every=1000))
        with Waits() as waits:
            train(run, QUIET)
        counts.append(waits.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("nonfinite", ["stop", "record"])
def test_a_loss_that_is_not_finite(root: Path, tmp_path: Path, nonfinite) -> None:
    config = tiny_config(
        root,
        trace=str(tmp_path / "run"),
        checkpoint_dir=str(tmp_path / "saved"),
        checkpoint_every=1,
        nonfinite=nonfinite,
        optim=OptimConfig(base_lr=0.05),
    )
    run = prepare(config)
    # The fourth update spoils a weight.
    run.optimizer.register_step_post_hook(Spoil(run.model, after=4))
    result = train(run, QUIET)
    trace = open_trace(tmp_path / "run")
    assert result.bad_since == 4
    assert [(e["step"], e["kind"]) for e in trace.events] == [(4, "nonfinite")]
    assert np.isfinite(trace["loss"]).tolist() == [True] * 4 + [False] * (len(trace) - 4)
    assert [p.name for p in Path(tmp_path / "saved").iterdir()] != []
    assert max(int(p.stem[5:]) for p in (tmp_path / "saved").iterdir()) == 4
    if nonfinite == "stop":
        assert (result.status, result.exit_code) == ("nonfinite", 1)
        assert len(trace) == 5
        assert trace.status == "failed"
        assert "step 4" in trace.attrs["message"]
    else:
        assert (result.status, len(trace)) == ("finished", 12)


class Spoil:
    def __init__(self, model: torch.nn.Module, after: int) -> None:
        self.weight, self.left = next(model.parameters()), after

    def __call__(self, *_) -> None:
        self.left -= 1
        if self.left == 0:
            self.weight.data.view(-1)[0] = math.nan


def test_overflow_steps_are_counted_and_skip_the_update(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), amp="fp16", optim=OptimConfig(base_lr=0.05))
    run = prepare(config)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    start = run.model.encoder.backbone.patch_embed.proj.weight.clone()  # pyright: ignore
    first = Remember(run)
    result = train(run, QUIET)
    trace = open_trace(tmp_path / "run")
    skipped = trace["overflow"]
    assert result.overflows == skipped.sum() >= 2
    assert skipped[0] == 1
    assert torch.equal(first.weight, start)
    assert any(e["kind"] == "overflow" for e in trace.events)
    assert result.status == "finished"
    assert np.isinf(trace["grad_norm_total"][skipped == 1]).all()


class Remember:
    """The patch projection after the first, skipped step."""

    def __init__(self, run) -> None:
        self.run, self.weight = run, torch.empty(0)
        run.model.register_forward_pre_hook(self)
        self.calls = 0

    def __call__(self, *_) -> None:
        self.calls += 1
        if self.calls == 2:
            self.weight = self.run.model.encoder.backbone.patch_embed.proj.weight.detach().clone()


def test_bf16_lars_and_cosine_momentum_run(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), amp="bf16", optim=OptimConfig("lars", base_lr=0.3))
    config = replace(config, method=replace(config.method, momentum_schedule="cosine"))
    assert train(config, QUIET).status == "finished"
    trace = open_trace(tmp_path / "run")
    assert (np.diff(trace["momentum"]) > 0).all()
    assert np.isfinite(trace["loss"]).all()


def test_a_folder_without_classes_trains_without_knn(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [(30, 26 + i) for i in range(20)], classes=0)
    config = tiny_config(tmp_path, trace=str(tmp_path / "run"), steps=4)
    config = replace(config, data=replace(config.data, dataset=f"folder:{folder}", data_root=None), batch_size=8)
    run = prepare(config)
    assert any("no classes" in note for note in run.notes)
    result = train(run, QUIET)
    assert result.knn == {}
    assert "knn_accuracy" not in open_trace(tmp_path / "run").scalars


def test_an_unreadable_image_in_mid_run_fails_the_trace(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [(30, 26 + i) for i in range(20)])
    config = tiny_config(tmp_path, trace=str(tmp_path / "run"), steps=4)
    config = replace(config, data=replace(config.data, dataset=f"folder:{folder}", data_root=None), batch_size=8)
    config = replace(config, probe=replace(config.probe, knn_every=2))
    run = prepare(config)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"\.png"):
        train(run, QUIET)
    trace = open_trace(tmp_path / "run")
    assert trace.status == "failed"
    assert ".png" in trace.attrs["message"]


def test_too_few_images_for_the_neighbours(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="knn_k"):
        prepare(replace(config, probe=replace(config.probe, knn_k=71)))


def test_a_trace_that_vanishes_costs_neither_the_training_nor_its_report(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), checkpoint_dir=str(tmp_path / "saved"), checkpoint_every=5)
    run = prepare(config)
    steps = iter(range(100))

    def vanish(*_) -> None:
        if next(steps) == 6:
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "run").write_text("in the way")

    run.model.register_forward_pre_hook(vanish)
    result = train(run, QUIET)
    assert (result.status, result.step, result.exit_code) == ("finished", 12, 1)
    assert result.checkpoint == tmp_path / "saved" / "step-00000012.pt"
    assert any("last rows" in line for line in result.lines())


def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("in the way")
    config = tiny_config(root, checkpoint_dir=str(tmp_path / "saved"), checkpoint_every=5)
    result = train(config, QUIET)
    assert (result.status, result.step, result.exit_code, result.checkpoint) == ("finished", 12, 1, None)
    assert any("could not be written" in line for line in result.lines())
