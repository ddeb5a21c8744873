"""watch(): three lines in anybody's loop record what the optimizer was about to use, and change nothing."""

import gc
import math
import runpy
import sys
import warnings
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sensed import HostSyncs
from torch import nn

from foreshock.probes import find_spikes
from foreshock.probes.sensors.feature_knn import FeatureKNN
from foreshock.probes.sensors.update_ratio import UpdateRatio
from foreshock.probes.watch import Watch, watch
from foreshock.traces import open_trace
from foreshock.traces.errors import TraceExistsError
from foreshock.traces.schema import Series


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))


def slow_norms(model: nn.Sequential) -> list[float]:
    """Of the two linear layers of `mlp`."""
    return [
        math.sqrt(math.fsum(float(g) ** 2 for p in layer.parameters() for g in p.grad.flatten()))
        for layer in (model[0], model[3])
    ]


def batch(step: int) -> torch.Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("order", ["step, zero_grad", "zero_grad, step"])
def test_three_lines_in_either_order(tmp_path, order: str) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    expected, losses = [], []
    with watch(model, optimizer, tmp_path / "run", config={"depth": 2}) as w:
        for step in range(9):
            loss = model(batch(step)).square().mean()
            loss.backward()
            expected.append(slow_norms(model))
            losses.append(loss.item())
            optimizer.step()
            if order == "step, zero_grad":
                w.step(loss=loss, mine=step * 2)
                optimizer.zero_grad()
            else:
                optimizer.zero_grad()
                w.step(loss=loss, mine=step * 2)
    trace = open_trace(tmp_path / "run")
    np.testing.assert_allclose(trace["grad_norm"].T, expected, rtol=1e-5)
    np.testing.assert_allclose(trace["loss"], losses, rtol=1e-6)
    assert trace["mine"].tolist() == list(range(0, 18, 2))
    assert trace["lr"].tolist() == [0.01] * 9
    assert trace.steps.tolist() == list(range(9))
    assert trace.config == {"depth": 2}
    assert trace.state == "finished"


class Block(nn.Module):
    """A pre-norm GPT block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(11, 8), "h": nn.ModuleList(Block(8) for _ in range(3)), "ln_f": nn.LayerNorm(8)}
        )
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # tied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](x)
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def cnn() -> tuple[nn.Module, torch.Tensor]:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    return nn.Sequential(*conv, nn.Linear(64, 5)), torch.randn(2, 3, 8, 8)


def gpt() -> tuple[nn.Module, torch.Tensor]:
    return GPT(), torch.randint(11, (2, 5))


def timm_vit() -> tuple[nn.Module, torch.Tensor]:
    timm = pytest.importorskip("timm")
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **options), torch.randn(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("build", "some_layers"),
    [
        (cnn, {"0", "3"}),
        (gpt, {"embed", "blocks.00", "blocks.02"}),
        (timm_vit, {"patch_embed", "blocks.00", "blocks.01"}),
    ],
)
def test_works_on(tmp_path, build: Callable[[], tuple[nn.Module, torch.Tensor]], some_layers: set[str]) -> None:
    torch.manual_seed(0)
    model, x = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, tmp_path / "run") as w:
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            total = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
            optimizer.step()
            w.step()
    trace = open_trace(tmp_path / "run")
    assert some_layers <= set(trace.layers)
    assert np.isfinite(trace["grad_norm"]).all()
    assert np.sqrt((trace["grad_norm"][:, -1].astype(float) ** 2).sum()) == pytest.approx(total, rel=1e-5)
    assert trace["grad_norm_total"][-1] == pytest.approx(total, rel=1e-5)


def test_training_is_bit_identical_with_and_without(tmp_path) -> None:
    def train(watched: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        knn = FeatureKNN(32, 4, 2, k=4)
        with watch(model, optimizer, tmp_path / "run", sensors=[knn], flush_steps=3, enabled=watched) as w:
            for step in range(10):
                x = batch(step)
                knn.feed(x, (x[:, 0] > 0).long())
                loss = model(x).square().mean()
                loss.backward()
                w.observe()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                w.step(loss=loss)
                optimizer.zero_grad()
        return [p.detach() for p in model.parameters()], torch.get_rng_state()

    (plain, random), (watched, random_watched) = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert torch.equal(random, random_watched)
    trace = open_trace(tmp_path / "run")
    assert len(trace) == 10
    assert np.isfinite(trace["knn_accuracy"][1:]).all()


def test_the_hook_sees_clipped_gradients_and_observe_does_not(tmp_path) -> None:
    for name, early in (("late", False), ("early", True)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        whole = []
        with watch(model, optimizer, tmp_path / name) as w:
            for step in range(4):
                optimizer.zero_grad()
                (1000 * model(batch(step)).square().mean()).backward()
                whole.append(math.hypot(*slow_norms(model)))
                if early:
                    w.observe()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                w.step()
        total = open_trace(tmp_path / name)["grad_norm_total"]
        np.testing.assert_allclose(total, whole if early else [1.0] * 4, rtol=1e-4)


def test_accumulated_gradients_are_seen_whole(tmp_path) -> None:
    model = mlp().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, tmp_path / "run") as w:
        for _ in range(2):
            optimizer.zero_grad()
            for part in batch(0).split(4):
                (model(part).square().sum() / 16).backward()
            optimizer.step()
            w.step()
    optimizer.zero_grad()
    model(batch(0)).square().mean().backward()
    np.testing.assert_allclose(open_trace(tmp_path / "run")["grad_norm"].T, [slow_norms(model)] * 2, rtol=1e-5)


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_is_seen_at_its_last_evaluation(tmp_path, cls: type[torch.optim.Optimizer]) -> None:
    model = mlp().eval()
    optimizer = cls(model.parameters(), lr=0.1)
    last: list[list[float]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch(0)).square().mean()
        loss.backward()
        last.append(slow_norms(model))
        return loss

    expected = []
    with watch(model, optimizer, tmp_path / "run") as w:
        for step in range(3):
            loss = optimizer.step(closure) if step else optimizer.step(closure=closure)
            expected.append(last[-1])
            optimizer.zero_grad()
            w.step(loss=loss)
    np.testing.assert_allclose(open_trace(tmp_path / "run")["grad_norm"].T, expected, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_amp_gradients_are_recorded_unscaled_and_an_overflow_is_seen(tmp_path, fused: bool, early: bool) -> None:
    model = mlp().eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with watch(model, optimizer, tmp_path / "run") as w:
        for step in range(5):
            loss = model(batch(0)).square().mean() * (math.inf if step == 2 else 1.0)
            scaler.scale(loss).backward()
            if early:
                scaler.unscale_(optimizer)
                w.observe()
            scaler.step(optimizer)
            scaler.update()
            w.step(loss=loss)
            optimizer.zero_grad()
    model(batch(0)).square().mean().backward()
    trace = open_trace(tmp_path / "run")
    expected = np.array([slow_norms(model)] * 5)
    expected[2] = math.inf
    np.testing.assert_allclose(trace["grad_norm"].T, expected, rtol=1e-4)
    assert [spike.kind for spike in find_spikes(trace, layer=trace.layers[0])] == ["nonfinite"]


def test_no_hook_and_no_reference_is_left_behind(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def hooks() -> int:
        return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)

    with watch(model, optimizer, tmp_path / "a") as w:
        assert hooks() == 2
    assert hooks() == 0
    gone = weakref.ref(w)
    del w
    gc.collect()
    assert gone() is None

    def crash() -> None:
        with watch(model, optimizer, tmp_path / "b"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert hooks() == 0
    w = watch(model, optimizer, tmp_path / "c")
    w.close()
    w.close()
    assert hooks() == 0
    with pytest.raises(TraceExistsError):
        watch(model, optimizer, tmp_path / "c")
    assert hooks() == 0
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def run(w: Watch, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(batch(step)).square().mean()
        loss.backward()
        optimizer.step()
        w.step(loss=loss)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_rows_before_a_crash_are_on_disk(tmp_path, error: type[BaseException]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def crash() -> None:
        with watch(model, optimizer, tmp_path / "run") as w:
            run(w, model, optimizer, 5)
            raise error("out of patience")

    with pytest.raises(error):
        crash()
    trace = open_trace(tmp_path / "run")
    assert len(trace) == 5
    assert trace.state == "failed"
    assert "out of patience" in trace.attrs["message"]


def test_an_existing_run_is_kept_unless_told_otherwise(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run") as w:
        run(w, model, optimizer, 8)
    with pytest.raises(TraceExistsError) as caught:
        watch(model, optimizer, tmp_path / "run")
    assert "overwrite=True" in str(caught.value) + "".join(caught.value.__notes__)
    assert "resume_at" in str(caught.value) + "".join(caught.value.__notes__)
    with watch(model, optimizer, tmp_path / "run", resume_at=6) as w:
        run(w, model, optimizer, 4)
    assert open_trace(tmp_path / "run").steps.tolist() == list(range(10))
    with watch(model, optimizer, tmp_path / "run", overwrite=True) as w:
        run(w, model, optimizer, 2)
    assert open_trace(tmp_path / "run").steps.tolist() == [0, 1]


def test_layers_can_be_chosen(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    choices = {
        "default": (None, ["0", "3"]),
        "each": ("per-parameter", ["0.weight", "0.bias", "3.weight", "3.bias"]),
        "function": (lambda name: None if name.startswith("3") else name.split(".")[1], ["weight", "bias"]),
        "dict": ({"ends": ["0.weight", "3.bias"]}, ["ends"]),
    }
    for name, (layers, expected) in choices.items():
        with watch(model, optimizer, tmp_path / name, layers=layers) as w:
            run(w, model, optimizer, 2)
        trace = open_trace(tmp_path / name)
        assert list(trace.layers) == expected
        assert np.isfinite(trace["grad_norm"]).all()
    with pytest.raises(ValueError, match=r"layers names \['4.weight'\], which Sequential lacks"):
        watch(model, optimizer, tmp_path / "x", layers={"a": ["4.weight"]})
    with pytest.raises(ValueError, match="layers is 'blocks'; allowed are 'per-parameter'"):
        watch(model, optimizer, tmp_path / "x", layers="blocks")
    with pytest.raises(ValueError, match="matches none of"):
        watch(model, optimizer, tmp_path / "x", layers=lambda name: None)
    assert not (tmp_path / "x").exists()


def test_tied_weights_may_be_named_either_way(tmp_path) -> None:
    model = GPT()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run", layers={"head": ["lm_head.weight"]}) as w:
        model(torch.randint(11, (2, 5))).sum().backward()
        optimizer.step()
        w.step()
    assert np.isfinite(open_trace(tmp_path / "run")["grad_norm"]).all()


def test_a_watch_that_would_see_nothing_is_refused(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the optimizer holds none of the 4 trainable parameters of Sequential"):
        watch(mlp(), optimizer, tmp_path / "run")
    with pytest.raises(ValueError, match=r"give the torch\.optim\.Optimizer inside it"):
        watch(model, object(), tmp_path / "run")
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        watch(model, optimizer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_without_backward_is_an_empty_row_and_one_warning(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run") as w:
        with pytest.warns(UserWarning, match="no gradient at step 0"):
            w.step(loss=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step()
            w.step(loss=2.0)
            run(w, model, optimizer, 1)
    trace = open_trace(tmp_path / "run")
    assert np.isnan(trace["grad_norm"]).all(axis=0).tolist() == [True, True, False]
    assert trace["loss"].tolist()[:2] == [1.0, 2.0]


def test_optimizer_steps_without_a_watch_step_are_rows_too(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run") as w:
        for step in range(7):
            model(batch(step)).mean().backward()
            optimizer.step()
            if step % 3 == 0:
                w.step(loss=step)
    trace = open_trace(tmp_path / "run")
    assert trace.steps.tolist() == list(range(7))
    assert np.isfinite(trace["grad_norm"]).all()
    np.testing.assert_array_equal(trace["loss"], [0, np.nan, np.nan, 3, np.nan, np.nan, 6])


def test_disabled_does_nothing_at_all(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run", enabled=False) as w:
        assert not optimizer._optimizer_step_pre_hooks
        w.observe()
        run(w, model, optimizer, 2)
    w.close()
    assert not (tmp_path / "run").exists()


def test_a_step_waits_for_no_device(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, tmp_path / "run", flush_seconds=1e9) as w:
        for step in range(5):
            loss = model(batch(step)).mean()
            loss.backward()
            with HostSyncs() as syncs:
                optimizer.step()
                w.step(loss=loss, accuracy=loss.detach())
                optimizer.zero_grad()
            assert not syncs.counts


def test_the_example_finds_its_bad_batch(tmp_path, repo_root, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["plain_loop.py", str(tmp_path / "run")])
    path = repo_root / "examples" / "plain_loop.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    runpy.run_path(str(path))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["conv1", "conv2", "head"]
    assert all(line.endswith("at step 300") for line in printed)


def test_sensors_by_name_and_built(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sensors = ["update_rms", "update_ratio", UpdateEachStep(model), "collapse"]
    with watch(model, optimizer, tmp_path / "run", sensors=sensors) as w:
        assert list(w.sensors) == ["update_rms", "update_ratio", "test_probes_watch", "collapse"]
        for step in range(12):
            features = model[0](batch(step))
            w.sensors["collapse"].feed(features)
            model[3](features).square().mean().backward()
            w.observe()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            w.step()
            optimizer.zero_grad()
    trace = open_trace(tmp_path / "run")
    assert np.isfinite(trace["update_rms"][:, 1:]).all()
    assert np.isfinite(trace["update_ratio"]).all(0).nonzero()[0].tolist() == [0, 10]
    assert np.isfinite(trace["effective_rank"]).nonzero()[0].tolist() == [0]
    assert (trace["each_step"] > 0).all()


class UpdateEachStep(UpdateRatio):
    """A sensor of one's own, with a name of its own."""

    series = (Series("each_step", ("layer", "step")),)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, every=1)

    def observe(self) -> dict[str, torch.Tensor]:
        return {"each_step": super().observe()["update_ratio"]}

    def after_step(self) -> dict[str, torch.Tensor]:
        return {"each_step": super().after_step()["update_ratio"]}


def test_update_ratio_of_a_closure_is_not_measured(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    with watch(model, optimizer, tmp_path / "run", sensors=["update_ratio"]) as w:

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(batch(0)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        w.step()
    assert np.isnan(open_trace(tmp_path / "run")["update_ratio"]).all()


def test_a_resumed_watch_samples_the_same_steps(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def go_on(steps: int, **options) -> None:
        with watch(model, optimizer, tmp_path / "run", sensors=["weight_norm"], **options) as w:
            for step in range(steps):
                model(batch(step)).mean().backward()
                optimizer.step()
                w.step()

    go_on(7)
    go_on(7, resume_at=7)
    assert np.isfinite(open_trace(tmp_path / "run")["weight_norm"]).all(0).nonzero()[0].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("sensors", "says"),
    [
        (["update_rsm"], "unknown sensor 'update_rsm'; the known ones are"),
        (["feature_knn"], "needs more than a model: build a FeatureKNN"),
        (["memory", "memory"], "give each once"),
        (["grad_norm"], "leave out grad_norm"),
    ],
)
def test_sensors_that_cannot_be(tmp_path, sensors: list[str], says: str) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=says):
        watch(model, torch.optim.AdamW(model.parameters()), tmp_path / "run", sensors=sensors)
    assert not (tmp_path / "run").exists()
