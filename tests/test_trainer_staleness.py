"""The staleness control: what of a fall of the kNN curve the age of the queue explains."""

import copy
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from processes import two_processes
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion
from torch.nn import functional as F

from foreshock.cli.__main__ import main
from foreshock.traces import open_trace
from foreshock.trainer.batches import batches
from foreshock.trainer.config import MethodConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import Run, prepare

QUIET = Console(quiet=True)
JOLT, STEPS = 50, 60
IMAGES, BATCH, K = 256, 64, 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fashion")
    write_fashion(folder, IMAGES)
    return folder


def config_of(root: Path, trace: Path, **changes) -> TrainConfig:
    """A calm run whose curve is flat: the learning rate is next to nothing."""
    config = tiny_config(root, steps=STEPS, batch_size=BATCH, trace=str(trace), **changes)
    optim = replace(config.optim, base_lr=1e-9)
    return replace(config, optim=optim, probe=replace(config.probe, knn_k=K, staleness_control=True))


def jolted(run: Run, size: float) -> Run:
    """At step `JOLT` every weight of the backbone moves at random, or with size 0 becomes 0."""
    forward, seen = run.forward, []

    def step(x1, x2, momentum):
        seen.append(0)
        if len(seen) == JOLT + 1 - run.start:
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for p in run.model.encoder.backbone.parameters():
                    noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
                    p.copy_(size * noise) if size else p.zero_()
        return forward(x1, x2, momentum)

    run.forward = step
    return run


def told(trace: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """The three accuracies, and the remarks."""
    run = open_trace(trace)
    remarks = [event["text"] for event in run.events if event["kind"] == "staleness"]
    return run["knn_accuracy"], run["knn_accuracy_fresh"], run["knn_accuracy_before"], remarks


def lost(remark: str) -> tuple[float, float]:
    """The points that the network lost by a remark, and their noise."""
    points, noise = re.search(r"the network lost (\S+) ± (\S+) points", remark).groups()  # pyright: ignore
    return float(points), float(noise)


def test_a_jump_of_the_network_is_staleness(root: Path, tmp_path: Path) -> None:
    train(jolted(prepare(config_of(root, tmp_path / "run")), 0.5), QUIET)
    stale, fresh, before, (remark,) = told(tmp_path / "run")
    base = np.median(stale[JOLT - 25 : JOLT])
    assert np.flatnonzero(np.isfinite(fresh)).tolist() == np.flatnonzero(np.isfinite(before)).tolist() == [JOLT]
    assert stale[JOLT] < base - 0.2
    assert fresh[JOLT] > stale[JOLT] + 0.15
    points, noise = lost(remark)
    assert points == pytest.approx(100 * (before[JOLT] - fresh[JOLT]), abs=0.05)
    assert points - noise < 100 * (base - stale[JOLT]) / 2
    assert f"fell by {100 * (base - stale[JOLT]):.1f} points" in remark
    assert f"queue of the last {IMAGES // (2 * BATCH)} steps" in remark


def test_a_collapse_of_the_network_is_not(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(jolted(prepare(config_of(root, tmp_path / "run")), 0.0), QUIET)
    stale, fresh, before, (remark,) = told(tmp_path / "run")
    base = np.median(stale[JOLT - 25 : JOLT])
    assert before[JOLT] == pytest.approx(base, abs=0.15)
    assert fresh[JOLT] < base - 0.2
    points, noise = lost(remark)
    assert points > max(20, noise)

    assert main(["spikes", str(tmp_path / "run"), "--json"]) == 0
    (control,) = json.loads(capsys.readouterr().out)["staleness"]
    assert control == {"dip": 0, "step": JOLT, "text": remark, "fresh": fresh[JOLT], "before": before[JOLT]}
    assert main(["spikes", str(tmp_path / "run")]) == 0
    assert f"Step {JOLT}: {remark}." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("treatment", ["learned", "batch_norm"])
def test_the_fresh_keys_are_those_the_queue_would_hold(
    root: Path, tmp_path: Path, treatment: Literal["learned", "batch_norm"]
) -> None:
    """Against a slow twin: the views of the last steps, encoded one step after another, by both networks."""
    config = config_of(root, tmp_path / "run", method=MethodConfig(patch_projection=treatment))
    run = prepare(config)
    assert run.tracing is not None
    control, knn = run.tracing.staleness, run.tracing.knn
    assert control is not None
    assert knn is not None
    run.model.train()
    (query,) = batches(run.data, config, run.device, 40, 41)
    labels = query.labels.repeat(2)
    calm = [control.observe(step, knn, torch.tensor(0.9), torch.zeros(0), labels) for step in range(40)]
    assert calm == [None] * 40
    older = copy.deepcopy(run.model.encoder.backbone)
    with torch.no_grad():
        for parameter in run.model.encoder.backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    random, state = torch.get_rng_state(), copy.deepcopy(run.model.state_dict())

    def right(backbone: torch.nn.Module) -> np.ndarray:
        def encoded(batch) -> torch.Tensor:
            with torch.no_grad():
                return torch.cat([backbone(x) for x in (batch.x1, batch.x2)])

        keys, classes = [], []
        for batch in batches(run.data, config, run.device, 40 - -(-IMAGES // (2 * BATCH)), 40):
            keys.append(encoded(batch))
            classes.append(batch.labels.repeat(2))
        bank, names = F.normalize(torch.cat(keys)[-IMAGES:], dim=1), torch.cat(classes)[-IMAGES:]
        answers = []
        for q, label in zip(F.normalize(encoded(query), dim=1), labels, strict=True):
            cosines = bank @ q
            near = cosines.topk(K).indices
            votes = torch.zeros(10).index_add_(0, names[near], (cosines[near] / 0.07).exp())
            answers.append(float(votes.argmax() == label))
        return np.array(answers)

    with torch.no_grad():
        features = torch.cat([copy.deepcopy(run.model.encoder.backbone)(x) for x in (query.x1, query.x2)])
    found, _ = control.observe(40, knn, torch.tensor(0.1), features, labels) or (None, "")
    assert found is not None
    assert same(run.model.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), random)
    now, before = right(copy.deepcopy(run.model.encoder.backbone)), right(older)
    assert (found.fresh, found.before) == pytest.approx((now.mean(), before.mean()))
    pairs = (before - now).reshape(2, -1).mean(0)  # the two views of an image
    assert found.noise == pytest.approx(2 * pairs.std(ddof=1) / len(pairs) ** 0.5)
    assert (now != before).any()
    run.tracing.close("failed")


def test_it_looks_again_where_a_dip_is_much_deeper_and_keeps_copies_from_before(root: Path, tmp_path: Path) -> None:
    run = prepare(config_of(root, tmp_path / "run"))
    assert run.tracing is not None
    control, knn = run.tracing.staleness, run.tracing.knn
    assert control is not None
    assert knn is not None
    curve = [0.9] * 60 + [0.6, 0.55, 0.5, 0.9, 0.9] + [0.9] * 30 + [0.7, 0.4, 0.9] + [math.nan, 0.6]
    looks = {}
    for step, accuracy in enumerate(curve):
        (query,) = batches(run.data, run.config, run.device, step, step + 1)
        labels = query.labels.repeat(2)
        with torch.no_grad():
            features = torch.cat([run.model.encoder.backbone(x) for x in (query.x1, query.x2)])
        found = control.observe(step, knn, torch.tensor(accuracy), features, labels)
        if found:
            looks[step] = found[0].since
    assert looks == {60: 25, 62: 25, 95: 50, 96: 50, 99: 50}
    run.tracing.close("failed")


def test_training_is_the_same_to_the_bit_and_resumes(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path / "with", checkpoint_dir=str(tmp_path / "saved"), checkpoint_every=30)
    first = jolted(prepare(config), 0.5)
    train(first, QUIET)
    without = replace(config.probe, staleness_control=False)
    plain = replace(config, probe=without, trace=str(tmp_path / "without"), checkpoint_dir=str(tmp_path / "other"))
    second = jolted(prepare(plain), 0.5)
    train(second, QUIET)
    assert same(first.model.state_dict(), second.model.state_dict())
    straight = told(tmp_path / "with")
    (tmp_path / "saved" / f"step-{STEPS:08}.pt").unlink()
    third = jolted(prepare(replace(config, resume=True)), 0.5)
    assert third.start == 30
    train(third, QUIET)
    again = told(tmp_path / "with")
    np.testing.assert_array_equal(again[1:3], straight[1:3])
    assert again[3] == straight[3] != []


def worker(rank: int, folder: Path) -> None:
    config = config_of(folder / "fashion", folder / "two", amp="float64")
    train(jolted(prepare(config), 0.5), QUIET)


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    write_fashion(tmp_path / "fashion", IMAGES)
    two_processes(worker, tmp_path)
    train(jolted(prepare(config_of(tmp_path / "fashion", tmp_path / "one", amp="float64")), 0.5), QUIET)
    np.testing.assert_allclose(told(tmp_path / "two")[1:3], told(tmp_path / "one")[1:3])
    assert told(tmp_path / "two")[3] == told(tmp_path / "one")[3] != []


def test_where_it_would_have_no_effect_it_is_refused(root: Path) -> None:
    config = tiny_config(root)
    with pytest.raises(ValueError, match="staleness_control"):
        replace(config, trace=None, probe=replace(config.probe, knn_k=K, staleness_control=True))
    with pytest.raises(ValueError, match="staleness_control"):
        replace(config.probe, knn_every=0, knn_queue=0.1, knn_k=200, staleness_control=True)
