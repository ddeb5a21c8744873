"""A checkpoint is there completely or not at all, whatever happens while it is written or afterwards."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_runs import same

from foreshock.trainer.checkpoint import CheckpointError, Checkpoints, differences
from foreshock.trainer.config import OptimConfig, TrainConfig

STATE = {"step": 3, "weights": torch.arange(40_000.0), "nested": {"pair": (1, 2.5), "names": ["a", None]}}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    path = checkpoints.save(3, STATE)
    state, found, damaged = checkpoints.load()
    assert same(state, STATE)
    assert found == path
    assert damaged == []
    assert [p.name for p in path.parent.iterdir()] == ["step-00000003.pt"]


def test_the_newest_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (5, 10, 99_999_999, 20, 15):
        checkpoints.save(step, {"step": step})
    assert [int(p.stem[5:]) for p in checkpoints.paths()] == [99_999_999, 20, 15]
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["empty", "half", "last byte", "flipped bit", "text", "folder"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path: Path, how: str) -> None:
    checkpoints = Checkpoints(tmp_path, keep=5)
    checkpoints.save(1, STATE)
    torn = checkpoints.save(2, STATE)
    raw = bytearray(torn.read_bytes())
    if how == "folder":
        torn.unlink()
        torn.mkdir()
    else:
        flipped = raw.copy()
        flipped[len(raw) // 2] ^= 4
        damaged = {"empty": b"", "half": raw[: len(raw) // 2], "last byte": raw[:-1], "flipped bit": flipped}
        torn.write_bytes(damaged.get(how, b"hello"))
    state, path, damaged = checkpoints.load()
    assert state["step"] == 3
    assert path.name == "step-00000001.pt"
    assert len(damaged) == 1
    assert "step-00000002.pt is damaged" in damaged[0]


def test_nothing_to_load(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="no checkpoint in"):
            Checkpoints(folder).load()
    (tmp_path / "step-00000001.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoints(tmp_path).load()


class Code:
    def __reduce__(self):
        return (os.mkdir, ("created-by-a-checkpoint",))


def test_a_file_from_elsewhere_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Code()}, tmp_path / "step-00000001.pt")
    with pytest.raises(CheckpointError):
        Checkpoints(tmp_path).load()
    assert not Path("created-by-a-checkpoint").exists()


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, STATE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(2, STATE)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert checkpoints.load()[0]["step"] == 3


def test_a_really_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / f"step-00000002.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r".+"):
        checkpoints.save(2, STATE)
    assert checkpoints.paths() == []


def test_kill_9_at_any_moment_leaves_a_good_one(tmp_path: Path) -> None:
    program = """
        import sys, torch
        from pathlib import Path
        from foreshock.trainer.checkpoint import Checkpoints
        checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
        for step in range(1_000_000):
            checkpoints.save(step, {"step": step, "weights": torch.full((200_000,), float(step))})
            print(step, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(40):
        last = int(process.stdout.readline())
    time.sleep(0.0137)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    last = max([last, *(int(line) for line in process.stdout.read().split())])
    process.stdout.close()
    state, _, damaged = Checkpoints(tmp_path).load()
    assert damaged == []
    assert state["step"] >= last
    assert same(state["weights"], torch.full((200_000,), float(state["step"])))


def test_differences_are_named_field_by_field() -> None:
    config = TrainConfig()
    now = replace(config, seed=3, batch_size=128, optim=replace(config.optim, base_lr=1e-3))
    assert differences(asdict(config), asdict(now)) == [
        "optim.base_lr was 0.008 and is 0.001",
        "batch_size was 256 and is 128",
        "seed was 0 and is 3",
    ]
    elsewhere = replace(config, device="cpu", trace="x", checkpoint_dir="y", resume=True, nonfinite="record")
    assert differences(asdict(config), asdict(elsewhere)) == []


def test_a_field_that_one_side_lacks_is_a_difference() -> None:
    old = asdict(TrainConfig())
    new = {**old, "extra": 1}
    assert differences(old, new) == ["extra was None and is 1"]


@pytest.mark.parametrize(("schedule", "free"), [("constant", True), ("cosine", False)])
def test_a_run_may_be_made_longer_only_if_no_schedule_stretches(schedule, free: bool) -> None:
    config = TrainConfig(optim=OptimConfig(schedule=schedule))
    longer = replace(config, steps=3000)
    assert (differences(asdict(config), asdict(longer)) == []) is free
    cosine = replace(config, method=replace(config.method, momentum_schedule="cosine"))
    assert differences(asdict(cosine), asdict(replace(cosine, steps=3000)))
