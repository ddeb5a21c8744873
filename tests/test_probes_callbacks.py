"""The callbacks for Lightning, Hugging Face's Trainer and Accelerate, each with the real package where it is there."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from foreshock.traces import open_trace

STEPS, PARTS = 6, 2


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate keeps its settings, such as the accumulation, for the life of a process."""
    try:
        from accelerate.state import AcceleratorState, GradientState
    except ModuleNotFoundError:
        return
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Net(nn.Module):
    """A classifier whose forward gives the loss in a dict, as Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.head(self.embed(x).tanh()), labels)}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Four rows a part, the same in all parts: the gradient at the start is that of every part."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, 3, generator=generator), torch.tensor([0, 1, 1, 0])
    return x.repeat(STEPS * PARTS, 1), y.repeat(STEPS * PARTS)


def norms_and_loss() -> tuple[list[float], float]:
    """Of the first step, without a clip."""
    model = Net()
    x, y = data()
    loss = model(x[:4], y[:4])["loss"]
    loss.backward()
    norm = [
        torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item() for layer in (model.embed, model.head)
    ]
    return norm, loss.item()


def check(path: Path, weights: nn.Module, expected: nn.Module, steps: int = STEPS) -> None:
    """One row a step, of unclipped gradients, and the same weights as without the callback."""
    trace = open_trace(path)
    norms, loss = norms_and_loss()
    assert trace.layers == ("embed", "head")
    assert trace.steps.tolist() == list(range(steps))
    np.testing.assert_allclose(trace["grad_norm"][:, 0], norms, rtol=1e-4)
    assert trace["loss"][0] == pytest.approx(loss, rel=1e-4)
    assert trace["lr"][0] > 0
    assert np.isfinite(trace["update_ratio"][:, 0]).all()
    assert trace["update_ratio"][:, 0].max() > 0
    assert trace.state == "finished"
    for a, b in zip(weights.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a.cpu(), b.cpu())


class TestLightning:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("lightning")

    def module(self, optimizers: int = 1, fails_at: int | None = None) -> Any:
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = Net()
                self.automatic_optimization = optimizers == 1

            def training_step(self, batch: Any, index: int) -> torch.Tensor:
                if index == fails_at:
                    raise FloatingPointError("lost")
                return self.model(*batch)["loss"]

            def configure_optimizers(self) -> Any:
                made = [torch.optim.AdamW(self.parameters(), lr=0.1) for _ in range(optimizers)]
                return made if optimizers > 1 else made[0]

        return Module()

    def fit(self, module: Any, callbacks: list[Any], *, root: Path, epochs: int = 1, ckpt: str | None = None) -> Any:
        import lightning
        from torch.utils.data import DataLoader, TensorDataset

        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            accumulate_grad_batches=PARTS,
            gradient_clip_val=1e-3,
            callbacks=callbacks,
            default_root_dir=root,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(*data()), 4), ckpt_path=ckpt)
        return trainer

    def callback(self, path: Path, **options: Any) -> Any:
        from foreshock.probes.callbacks.lightning import ForeshockCallback

        return ForeshockCallback(path, sensors=["update_ratio"], **options)

    def test_a_run(self, tmp_path: Path) -> None:
        plain, watched = self.module(), self.module()
        self.fit(plain, [], root=tmp_path)
        self.fit(watched, [self.callback(tmp_path / "run")], root=tmp_path)
        check(tmp_path / "run", watched, plain)

    def test_it_goes_on_from_a_checkpoint(self, tmp_path: Path) -> None:
        trainer = self.fit(self.module(), [self.callback(tmp_path / "run")], root=tmp_path)
        trainer.save_checkpoint(tmp_path / "saved.ckpt")
        callback = self.callback(tmp_path / "run")
        self.fit(self.module(), [callback], root=tmp_path, epochs=2, ckpt=str(tmp_path / "saved.ckpt"))
        trace = open_trace(tmp_path / "run")
        assert trace.steps.tolist() == list(range(2 * STEPS))
        assert np.isfinite(trace["grad_norm"]).all()

    def test_an_exception_is_the_end_of_the_trace(self, tmp_path: Path) -> None:
        with pytest.raises(FloatingPointError):
            self.fit(self.module(fails_at=5), [self.callback(tmp_path / "run")], root=tmp_path)
        trace = open_trace(tmp_path / "run")
        assert (len(trace), trace.state, trace.message) == (2, "failed", "FloatingPointError: lost")

    def test_several_optimizers_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"Module has 2 optimizers, and ForeshockCallback follows one"):
            self.fit_manual(tmp_path)

    def fit_manual(self, tmp_path: Path) -> None:
        import lightning
        from torch.utils.data import DataLoader, TensorDataset

        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        callbacks = [self.callback(tmp_path / "run")]
        trainer = lightning.Trainer(
            max_steps=1, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path, **quiet
        )
        trainer.fit(self.module(optimizers=2), DataLoader(TensorDataset(*data()), 4))


class TestTransformers:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("transformers")
        pytest.importorskip("accelerate")

    def train(self, folder: Path, *callbacks: Any, with_trainer: Any = None, steps: int = STEPS, **options: Any) -> Net:
        from transformers import Trainer, TrainingArguments

        defaults = {"save_strategy": "no", "max_grad_norm": 1e-3}
        args = TrainingArguments(
            str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=PARTS,
            learning_rate=0.1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **defaults | options,
        )
        x, y = data()
        rows = [{"x": x[i], "labels": y[i]} for i in range(4)] * (STEPS * PARTS)
        model = Net()
        trainer = Trainer(model, args, train_dataset=rows, callbacks=list(callbacks))
        trainer._get_train_sampler = lambda *a: torch.utils.data.SequentialSampler(rows)  # type: ignore
        if with_trainer is not None:
            trainer.add_callback(with_trainer(trainer))
        trainer.train(resume_from_checkpoint=options.get("save_strategy") == "steps" and (folder / "go").exists())
        return model

    def test_a_run(self, tmp_path: Path) -> None:
        from foreshock.probes.callbacks.transformers import ForeshockCallback

        plain = self.train(tmp_path)
        watched = self.train(
            tmp_path, with_trainer=lambda t: ForeshockCallback(tmp_path / "run", t, sensors=["update_ratio"])
        )
        check(tmp_path / "run", watched, plain)
        assert not watched._forward_hooks

    def test_it_goes_on_from_a_checkpoint(self, tmp_path: Path) -> None:
        from foreshock.probes.callbacks.transformers import ForeshockCallback

        saving = {"save_strategy": "steps", "save_steps": 2}
        for steps in (2, 4):
            self.train(tmp_path, with_trainer=lambda t: ForeshockCallback(tmp_path / "run", t), steps=steps, **saving)
            (tmp_path / "go").touch()
        assert open_trace(tmp_path / "run").steps.tolist() == [0, 1, 2, 3]

    def test_without_the_trainer_it_says_that_it_sees_clipped_gradients(self, tmp_path: Path) -> None:
        from foreshock.probes.callbacks.transformers import ForeshockCallback

        with pytest.warns(UserWarning, match="the recorded norms are the clipped ones: give the trainer"):
            self.train(tmp_path, ForeshockCallback(tmp_path / "run"))
        trace = open_trace(tmp_path / "run")
        assert len(trace) == STEPS
        np.testing.assert_allclose(trace["grad_norm_total"], 1e-3, rtol=0.01)

    def test_without_a_clip_it_needs_no_trainer(self, tmp_path: Path) -> None:
        from foreshock.probes.callbacks.transformers import ForeshockCallback

        self.train(tmp_path, ForeshockCallback(tmp_path / "run"), max_grad_norm=0.0)
        np.testing.assert_allclose(open_trace(tmp_path / "run")["grad_norm"][:, 0], norms_and_loss()[0], rtol=1e-4)


class TestAccelerate:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("accelerate")

    def train(self, path: Path | None, clip: str | None = "norm", first_step: int = 0) -> nn.Module:
        from contextlib import nullcontext

        from accelerate import Accelerator

        from foreshock.probes.callbacks.accelerate import ForeshockCallback

        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=PARTS)
        model = Net()
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.1))
        options: dict[str, Any] = {"sensors": ["update_ratio"], "first_step": first_step}
        watcher = ForeshockCallback(accelerator, model, optimizer, path, **options) if path else None
        x, y = data()
        with watcher or nullcontext():
            for part in zip(x.split(4), y.split(4), strict=True):
                with accelerator.accumulate(model):
                    loss = model(*part)["loss"]
                    accelerator.backward(loss)
                    if clip == "norm" and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1e-3)
                    elif clip and accelerator.sync_gradients:
                        accelerator.clip_grad_value_(model.parameters(), 1e-4)
                    optimizer.step()
                    if watcher:
                        watcher.step(loss=loss)
                    optimizer.zero_grad()
        assert "clip_grad_norm_" not in vars(accelerator)
        return accelerator.unwrap_model(model)

    @pytest.mark.parametrize("clip", ["norm", "value", None])
    def test_a_run(self, tmp_path: Path, clip: str | None) -> None:
        plain, watched = self.train(None, clip), self.train(tmp_path / "run", clip)
        check(tmp_path / "run", watched, plain)

    def test_it_goes_on_at_a_step(self, tmp_path: Path) -> None:
        self.train(tmp_path / "run")
        self.train(tmp_path / "run", first_step=4)
        assert open_trace(tmp_path / "run").steps.tolist() == list(range(4 + STEPS))
        self.train(tmp_path / "new", first_step=4)  # recorded for the first time
        assert open_trace(tmp_path / "new").steps.tolist() == list(range(4, 4 + STEPS))

    def test_scaled_gradients_are_unscaled_once_before_the_look(self) -> None:
        from foreshock.probes.callbacks._before_clip import BeforeClip

        told: list[str] = []

        class Scaling:
            sync_gradients = True

            def unscale_gradients(self, optimizer: Any = None) -> None:
                told.append("unscale")

            def clip_grad_norm_(self, parameters: Any, most: float) -> float:
                self.unscale_gradients()
                told.append(f"clip {most}")
                return 2.0

            clip_grad_value_ = clip_grad_norm_

        accelerator = Scaling()
        clips = BeforeClip(accelerator, lambda: told.append("look"))
        assert accelerator.clip_grad_norm_([], 1.0) == 2.0
        assert told == ["unscale", "look", "clip 1.0"]
        clips.remove()
        accelerator.clip_grad_norm_([], 3.0)
        assert told[3:] == ["unscale", "clip 3.0"]


@pytest.mark.parametrize(
    ("example", "needs", "says"),
    [
        ("lightning_trainer", ["lightning"], "at step 100"),
        ("transformers_trainer", ["transformers", "accelerate"], "times its baseline"),
        ("accelerate_loop", ["accelerate"], "at step 100"),
    ],
)
def test_the_examples(tmp_path, repo_root, monkeypatch, capsys, example: str, needs: list[str], says: str) -> None:
    for package in needs:
        pytest.importorskip(package)
    monkeypatch.setattr(sys, "argv", [example, str(tmp_path / "run")])
    path = repo_root / "examples" / f"{example}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 42
    runpy.run_path(str(path))
    assert says in capsys.readouterr().out
