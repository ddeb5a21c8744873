"""N steps at once, and k steps, a stop of any kind and N - k steps, are the same run to the last bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_runs import same, tiny_config, tiny_options, write_fashion, write_images

from foreshock.traces import open_trace
from foreshock.trainer.checkpoint import CheckpointError, Checkpoints
from foreshock.trainer.config import OptimConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import prepare

QUIET = Console(quiet=True)
TIMES = {"wall_time", "step_time", "images_per_second"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


def with_paths(config: TrainConfig, folder: Path) -> TrainConfig:
    return replace(
        config, trace=str(folder / "run"), checkpoint_dir=str(folder / "saved"), checkpoint_every=5, checkpoint_keep=9
    )


def final_state(folder: Path) -> dict:
    """The state in the newest checkpoint, without the paths in its configuration."""
    state = Checkpoints(folder / "saved").load()[0]
    state["config"] = None
    return state


def assert_same_run(a: Path, b: Path) -> None:
    assert same(final_state(a), final_state(b))
    one, two = open_trace(a / "run"), open_trace(b / "run")
    assert one.steps.tolist() == two.steps.tolist()
    assert one.scalars == two.scalars
    for name in (*one.series, *one.scalars):
        if name not in TIMES:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert one.status == two.status == "finished"


def interrupt(config: TrainConfig, after: int) -> None:
    """Train, with Ctrl-C in step number `after`."""
    run = prepare(config)
    left = iter(range(after))

    def press(*_) -> None:
        if next(left, None) is None:
            signal.raise_signal(signal.SIGINT)

    handle = run.model.register_forward_pre_hook(press)
    result = train(run, QUIET)
    handle.remove()
    assert (result.status, result.step, result.exit_code) == ("interrupted", after + 1, 130)


VARIANTS = {
    "adamw": {},
    "lars": {"optim": OptimConfig("lars", base_lr=0.3, warmup_steps=2)},
    "bf16": {"amp": "bf16"},
    "fp16": {"amp": "fp16"},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("after", [2, 5])
def test_stop_in_mid_epoch_and_resume(root: Path, tmp_path: Path, name: str, after: int) -> None:
    config = tiny_config(root, **VARIANTS[name])
    train(with_paths(config, tmp_path / "straight"), QUIET)
    torch.rand(17)  # nothing outside may matter
    parts = with_paths(config, tmp_path / "parts")
    interrupt(parts, after)
    trace = open_trace(tmp_path / "parts" / "run")
    assert trace.status == "failed"
    assert "interrupted" in trace.attrs["message"]
    torch.rand(5)
    result = train(replace(parts, resume=True), QUIET)
    assert (result.status, result.start, result.step) == ("finished", after + 1, 12)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")
    assert "resumed" in [e["kind"] for e in open_trace(tmp_path / "parts" / "run").events]


def test_an_older_checkpoint_drops_the_rows_after_it(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root)
    train(with_paths(config, tmp_path / "straight"), QUIET)
    parts = with_paths(config, tmp_path / "parts")
    train(parts, QUIET)
    generation = open_trace(tmp_path / "parts" / "run").generation
    newest, before, *_ = Checkpoints(tmp_path / "parts" / "saved").paths()
    newest.write_bytes(newest.read_bytes()[:-100])
    run = prepare(replace(parts, resume=True))
    assert run.start == 10
    assert any("damaged" in note for note in run.notes)
    assert before.name == "step-00000010.pt"
    train(run, QUIET)
    assert open_trace(tmp_path / "parts" / "run").generation > generation
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


def test_kill_9_and_resume(root: Path, tmp_path: Path) -> None:
    options = [*tiny_options(root), "--checkpoint-every", "3", "--checkpoint-keep", "9"]
    parts, straight = tmp_path / "parts", tmp_path / "straight"
    # A long run, killed once its second checkpoint is there; it goes on as the same long run.
    length = ["--steps", "60", "--seed", "0"]
    paths = ["--trace", str(parts / "run"), "--checkpoint-dir", str(parts / "saved")]
    command = [sys.executable, "-m", "foreshock.trainer", "demo", *options, *length, *paths]
    # Sums depend on the number of threads: the other process must have as many as this one.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | threads)
    deadline = time.monotonic() + 60
    while not (parts / "saved" / "step-00000006.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert open_trace(parts / "run").status == "running"
    config = tiny_config(root, steps=60)
    train(replace(with_paths(config, straight), checkpoint_every=3), QUIET)
    resumed = replace(with_paths(config, parts), checkpoint_every=3, resume=True)
    assert 6 <= train(resumed, QUIET).start < 60
    assert_same_run(straight, parts)


def test_a_streamed_folder_resumes_too(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [(30, 26 + i) for i in range(20)])
    config = replace(tiny_config(tmp_path), batch_size=8, steps=7, log_every=2)
    config = replace(config, data=replace(config.data, dataset=f"folder:{folder}", data_root=None))
    train(with_paths(config, tmp_path / "straight"), QUIET)
    parts = with_paths(config, tmp_path / "parts")
    interrupt(parts, 3)
    train(replace(parts, resume=True, data=replace(parts.data, workers=1)), QUIET)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


def test_another_run_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    config = with_paths(tiny_config(root, steps=4), tmp_path)
    train(config, QUIET)
    other = replace(config, resume=True, seed=5, optim=replace(config.optim, base_lr=0.1))
    with pytest.raises(CheckpointError, match=r"base_lr was 0\.05 and is 0\.1.*seed was 0 and is 5"):
        prepare(other)
    with pytest.raises(CheckpointError, match="steps was 4 and is 40"):
        prepare(replace(config, resume=True, steps=40))
    fewer = replace(config, resume=True, data=replace(config.data, limit=64))
    with pytest.raises(CheckpointError, match="limit"):
        prepare(fewer)


def test_a_constant_schedule_may_be_made_longer(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, optim=OptimConfig(base_lr=0.05, schedule="constant"))
    train(with_paths(config, tmp_path / "straight"), QUIET)
    parts = with_paths(replace(config, steps=7), tmp_path / "parts")
    train(parts, QUIET)
    train(replace(parts, steps=12, resume=True), QUIET)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


def test_a_finished_run_has_nothing_to_resume(root: Path, tmp_path: Path) -> None:
    config = with_paths(tiny_config(root), tmp_path)
    train(config, QUIET)
    before = open_trace(tmp_path / "run")
    result = train(replace(config, resume=True), QUIET)
    assert (result.status, result.step, result.exit_code) == ("finished", 12, 0)
    after = open_trace(tmp_path / "run")
    assert (after.generation, len(after), after.status) == (before.generation, 12, "finished")


def test_a_fresh_run_never_destroys_checkpoints_unasked(root: Path, tmp_path: Path) -> None:
    config = with_paths(tiny_config(root), tmp_path)
    train(config, QUIET)
    with pytest.raises(CheckpointError, match="--resume"):
        prepare(replace(config, trace=str(tmp_path / "other")))
    train(replace(config, steps=5, overwrite=True), QUIET)
    assert [p.name for p in Checkpoints(tmp_path / "saved").paths()] == ["step-00000005.pt"]


def test_resuming_without_the_earlier_trace_starts_one_there(root: Path, tmp_path: Path) -> None:
    config = with_paths(tiny_config(root), tmp_path)
    interrupt(replace(config, trace=None), 5)
    run = prepare(replace(config, resume=True))
    assert any("no kNN queue" in note for note in run.notes)
    train(run, QUIET)
    assert open_trace(tmp_path / "run").steps.tolist() == list(range(6, 12))
