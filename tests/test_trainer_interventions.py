"""Interventions in the trainer: alike when resumed, no bit changed without a spike, the momentum encoder waits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_trainer_resume import assert_same_run, with_paths
from tiny_runs import same, tiny_config, write_fashion

from foreshock.probes.interventions import intervention_names
from foreshock.probes.interventions._rule import Thresholds
from foreshock.traces import open_trace
from foreshock.trainer.checkpoint import CheckpointError, Checkpoints, differences
from foreshock.trainer.config import InterveneConfig, MethodConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import Run, prepare

QUIET = Console(quiet=True)
SPIKES = (12, 13, 17)
every = pytest.mark.parametrize("name", intervention_names())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline of eight steps, as these runs are short."""
    monkeypatch.setattr(Thresholds.__init__, "__defaults__", (2.0, 6.0, 16, 8, 32, 0.05))


def config_of(root: Path, rule: str = "none", **changes: Any) -> TrainConfig:
    base = tiny_config(root, steps=24, **changes)
    own = {"freeze_layer": {"steps": 4}}.get(rule, {})
    chosen = InterveneConfig() if rule == "none" else InterveneConfig(rule, z=4.0, **own)
    return replace(base, intervene=chosen, optim=replace(base.optim, base_lr=0.005))


def spiking(config: TrainConfig, at: tuple[int, ...] = SPIKES) -> Run:
    """A run in which the gradient of the patch projection is 3,000 times as large at some steps."""
    run = prepare(config)
    count = iter(range(run.start, 10**6))
    step = [run.start]
    run.model.register_forward_pre_hook(lambda *_: step.__setitem__(0, next(count)))
    for name, parameter in run.model.named_parameters():
        if "patch_embed" in name and parameter.requires_grad:
            parameter.register_hook(lambda grad: grad * (3000.0 if step[0] in at else 1.0))
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Checkpoints(folder / "saved").load()[0]["model"]


def told(folder: Path) -> list[tuple[int, str]]:
    return [(e["step"], e["text"]) for e in open_trace(folder / "run").events if e["kind"] == "intervention"]


@every
@pytest.mark.parametrize("changes", [{}, {"amp": "fp16"}, {"nonfinite": "record"}])
def test_without_a_spike_every_bit_is_the_same(root: Path, tmp_path: Path, name: str, changes: dict) -> None:
    for rule in ("none", name):
        train(spiking(with_paths(config_of(root, rule, **changes), tmp_path / rule), at=()), QUIET)
    assert same(weights(tmp_path / "none"), weights(tmp_path / name))
    assert not told(tmp_path / name)


@every
@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_resumed_run_intervenes_as_the_straight_one(root: Path, tmp_path: Path, name: str, amp: str) -> None:
    config = config_of(root, name, amp=amp)
    train(spiking(with_paths(config, tmp_path / "straight")), QUIET)
    assert [step for step, _ in told(tmp_path / "straight")] == list(SPIKES)
    for after in (12, 14):
        parts = with_paths(config, tmp_path / f"parts{after}")
        train(spiking(replace(parts, checkpoint_every=after)), QUIET)
        Checkpoints(tmp_path / f"parts{after}" / "saved").paths()[0].unlink()  # as if it had been killed
        resumed = spiking(replace(parts, resume=True))
        assert resumed.start == after
        train(resumed, QUIET)
        assert_same_run(tmp_path / "straight", tmp_path / f"parts{after}")
        assert told(tmp_path / f"parts{after}") == told(tmp_path / "straight")


@pytest.mark.parametrize("changes", [{}, {"nonfinite": "record"}, {"amp": "fp16"}])
def test_a_skipped_update_moves_neither_encoder(root: Path, tmp_path: Path, changes: dict) -> None:
    config = with_paths(config_of(root, "skip_update", **changes), tmp_path)
    run = spiking(replace(config, checkpoint_every=1, checkpoint_keep=99))
    train(run, QUIET)
    before, after, later = (
        torch.load(tmp_path / "saved" / f"step-{step:08}.pt", weights_only=True)["model"] for step in (12, 13, 14)
    )
    own = [name for name in before if not name.startswith("momentum_encoder.")]
    assert same({n: before[n] for n in own}, {n: after[n] for n in own})
    followers = [n for n, _ in run.model.named_parameters() if n.startswith("momentum_encoder.")]
    assert not same({n: before[n] for n in followers}, {n: after[n] for n in followers})  # follows the step before
    assert same({n: after[n] for n in followers}, {n: later[n] for n in followers})
    assert open_trace(tmp_path / "run")["momentum"][[12, 13, 14, 15]].tolist() == [0.99, 1.0, 1.0, 0.99]


def test_clipping_comes_after_the_intervention(root: Path, tmp_path: Path) -> None:
    config = config_of(root, "clip")
    config = replace(config, optim=replace(config.optim, clip="global", clip_norm=1e6))
    train(spiking(with_paths(config, tmp_path)), QUIET)
    trace = open_trace(tmp_path / "run")
    first, clipped = trace["grad_norm"][0], trace["grad_norm_clipped"][0]
    assert (clipped[list(SPIKES)] < first[list(SPIKES)] / 10).all()
    others = [step for step in range(24) if step not in SPIKES]
    assert clipped[others] == pytest.approx(first[others], rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layer": "head"}, "layer head would have no effect with rule 'none'"),
        ({"rule": "skip"}, "rule 'skip' must be one of none, clip, freeze_layer, skip_update"),
        ({"rule": "skip_update", "steps": 3}, "steps 3 would have no effect with rule 'skip_update'"),
        ({"rule": "freeze_layer", "factor": 1.5}, "factor 1.5 would have no effect with rule 'freeze_layer'"),
        ({"rule": "clip", "factor": -1.0}, "factor"),
    ],
)
def test_settings_without_effect_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        InterveneConfig(**wrong)


def test_layers_that_cannot_be_are_refused(root: Path) -> None:
    config = config_of(root, "freeze_layer")
    with pytest.raises(ValueError, match=r"--intervene: FreezeLayer names the layer 'stem', which is not there"):
        prepare(replace(config, intervene=replace(config.intervene, layer="stem")))
    frozen = replace(config, method=MethodConfig(patch_projection="frozen"))
    with pytest.raises(ValueError, match="'patch_embed' would have no effect, since it is frozen"):
        prepare(frozen)
    with pytest.raises(ValueError, match="would stop the whole model"):
        prepare(replace(config, intervene=replace(config.intervene, layer="total")))


def test_another_intervention_is_another_run_and_an_older_checkpoint_had_none(root: Path, tmp_path: Path) -> None:
    config = with_paths(config_of(root, "clip"), tmp_path)
    train(spiking(config), QUIET)
    with pytest.raises(CheckpointError, match=r"intervene\.rule was 'clip' and is 'none'"):
        prepare(replace(config, resume=True, intervene=InterveneConfig()))
    assert differences({"seed": 0}, {"seed": 0, "intervene": {"rule": "none"}}) == []
    assert differences({"seed": 0}, {"seed": 0, "intervene": {"rule": "clip"}}) == [
        "intervene.rule was 'none' and is 'clip'"
    ]
