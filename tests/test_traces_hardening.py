"""A slow, full, hanging or vanishing disk: training goes on in bounded memory, and the trace tells what was lost."""

import errno
import logging
import multiprocessing
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.places import FolderPlace
from foreshock.traces.verify import verify

LAYERS = ["patch_embed", "norm"]


def values(steps):
    steps = np.asarray(steps)
    return {"grad_norm": np.ones((2, len(steps)), np.float32) * steps, "loss": steps * 1.0}


def is_whole(path, rows):
    trace = open_trace(path)
    np.testing.assert_array_equal(trace.steps, np.arange(rows))
    np.testing.assert_array_equal(trace["grad_norm"], values(range(rows))["grad_norm"])
    np.testing.assert_array_equal(trace["loss"], np.arange(rows))
    assert verify(path) == []
    return trace


def test_a_slow_disk_makes_append_wait_and_drops_nothing(tmp_path, monkeypatch):
    put = FolderPlace.put

    def slow(self, files):
        time.sleep(0.02)
        put(self, files)

    monkeypatch.setattr(FolderPlace, "put", slow)
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_rows=16, flush_seconds=0.01)
    writer._committer._max_rows = 64
    most = 0
    for step in range(1500):
        writer.append(step, {"grad_norm": [step, step], "loss": step})
        with writer._committer.changed:
            most = max(most, writer._committer.waiting)
    writer.close()
    assert most <= 64 + 2 * 16  # what waits is bounded: append() waits for the disk instead
    assert is_whole(tmp_path / "a", 1500).events == []


@pytest.mark.parametrize("seed", range(6))
def test_failures_at_any_write_cost_nothing(tmp_path, monkeypatch, seed):
    """Every write may fail, before it begins, halfway, or just before its rename; some fail many times in a row."""
    chance = np.random.default_rng(seed)
    write = FolderPlace._write
    failing = [False]

    def unreliable(self, path, data):
        if failing[0] and chance.random() < 0.3:
            if chance.random() < 0.5:
                path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, data)

    monkeypatch.setattr(FolderPlace, "_write", unreliable)
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, background=False, flush_rows=64, flush_seconds=1e9)
    done = 0
    for _ in range(40):
        failing[0] = chance.random() < 0.7
        count = int(chance.integers(1, 200))
        writer.extend(np.arange(done, done + count), values(range(done, done + count)))
        done += count
        if chance.random() < 0.5:
            writer.event(done, "note", "x" * int(chance.integers(0, 2000)))
        writer.flush()
        committed = open_trace(tmp_path / "a")  # whatever failed, what is there is right
        np.testing.assert_array_equal(committed["grad_norm"][0], np.arange(len(committed)))
        assert [event["kind"] for event in committed.events] == ["note"] * len(committed.events)
    failing[0] = False
    writer.close()
    is_whole(tmp_path / "a", done)


def test_a_disk_that_hangs_costs_rows_after_a_while_and_the_gap_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("foreshock.traces.committer._PATIENCE", 0.1)
    put, goes_on = FolderPlace.put, threading.Event()
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_rows=16, flush_seconds=0.01)
    writer._committer._max_rows = 64

    def hanging(self, files):
        assert goes_on.wait(30)
        put(self, files)

    monkeypatch.setattr(FolderPlace, "put", hanging)
    for step in range(1000):
        writer.append(step, {"grad_norm": [step, step], "loss": step})
    goes_on.set()
    writer.close()
    trace = open_trace(tmp_path / "a")
    missing = sorted(set(range(1000)) - set(trace.steps.tolist()))
    assert missing
    gaps = [event for event in trace.events if event["kind"] == "gap"]
    assert sum(int(event["text"].split()[0]) for event in gaps) == len(missing)
    assert gaps[0]["step"] == missing[0]
    assert "the disk didn't answer" in gaps[0]["text"]
    np.testing.assert_array_equal(trace["loss"], trace.steps)
    assert verify(tmp_path / "a") == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_and_is_cleared(small_disk, caplog):
    caplog.set_level(logging.WARNING)
    ballast = small_disk / "ballast"
    writer = TraceWriter(small_disk / "a", layers=LAYERS, flush_rows=64, flush_seconds=0.01)
    writer.extend(np.arange(1000), values(range(1000)))
    assert writer.flush()
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(2 << 20))
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20_000)  # doesn't compress, so that it can't fit into what a chunk left free
    for step in range(1000, 21_000):
        writer.append(step, {"grad_norm": [step, step], "loss": step, "noise": noise[step - 1000]})
    assert not writer.flush()
    assert len(open_trace(small_disk / "a")) < 21_000
    assert len([record for record in caplog.records if "training goes on" in record.getMessage()]) == 1
    ballast.unlink()
    assert writer.flush()
    writer.close()
    np.testing.assert_array_equal(is_whole(small_disk / "a", 21_000)["noise"][1000:], noise)


def test_memory_stays_bounded_while_a_long_run_is_written(tmp_path):
    layers = [f"l{i}" for i in range(150)]
    block = np.random.default_rng(0).lognormal(size=(150, 1000)).astype(np.float32)
    writer = TraceWriter(tmp_path / "a", layers=layers)
    tracemalloc.start()
    for start in range(0, 60_000, 1000):
        writer.extend(np.arange(start, start + 1000), {"grad_norm": block})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.close()
    assert len(open_trace(tmp_path / "a")) == 60_000
    assert peak < 160e6  # 64 MiB may wait, as much may be on its way


# Followers

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["foreshock.traces", "zarr"])


def write_until_told(path, stop):
    writer = TraceWriter(path, layers=LAYERS, flush_rows=32, flush_seconds=0.02)
    step = 0
    while not stop.poll():
        writer.append(step, {"grad_norm": [step % 4096, step % 4096 + 0.5], "loss": step})
        step += 1
        if step % 64 == 0:
            time.sleep(0.002)
    writer.close()


def follow_to_the_end(path, result):
    """Follow, and check that every row comes once and is whole."""
    next_step, blocks = 0, 0
    try:
        for rows in open_trace(path).follow(poll=0.005):
            np.testing.assert_array_equal(rows.steps, np.arange(next_step, next_step + len(rows)))
            expected = (rows.steps % 4096 + np.array([[0], [0.5]])).astype(np.float32)
            np.testing.assert_array_equal(rows.values["grad_norm"], expected)
            np.testing.assert_array_equal(rows.values["loss"], rows.steps)
            next_step += len(rows)
            blocks += 1
            if blocks == 3:
                result.send("follows")
    except BaseException as error:
        result.send((next_step, blocks, f"{type(error).__name__}: {error}"))
        raise
    result.send((next_step, blocks, ""))


def eight_followers(path, seconds):
    """Return the rows and the reads of each of eight followers beside one writer."""
    stop_here, stop = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_until_told, args=(str(path), stop_here), daemon=True)
    writer.start()
    while not (path / "zarr.json").exists():
        time.sleep(0.01)
    pipes, followers = [], []
    for _ in range(8):
        receive, send = processes.Pipe(duplex=False)
        followers.append(processes.Process(target=follow_to_the_end, args=(str(path), send), daemon=True))
        followers[-1].start()
        pipes.append(receive)
    assert [receive.recv() for receive in pipes] == ["follows"] * 8
    time.sleep(seconds)
    stop.send("stop")
    writer.join()
    seen = [receive.recv() for receive in pipes]
    for follower in followers:
        follower.join()
    assert [problem for _, _, problem in seen] == [""] * 8
    assert [rows for rows, _, _ in seen] == [len(open_trace(path))] * 8
    return [reads for _, reads, _ in seen]


def test_eight_followers_beside_a_writer_read_every_row_once_and_whole(tmp_path):
    assert min(eight_followers(tmp_path / "a", 0.5)) >= 3


@pytest.mark.slow
def test_eight_followers_for_five_minutes(tmp_path):
    reads = eight_followers(tmp_path / "a", 300.0)
    print("reads:", reads)
    assert sum(reads) > 1000


def test_the_process_ends_while_the_disk_fails(tmp_path):
    """A script whose disk is gone ends by itself, and says so once."""
    code = (
        "import sys, shutil, numpy as np\n"
        "from foreshock.traces import TraceWriter\n"
        "writer = TraceWriter(sys.argv[1], layers=['a'], flush_seconds=0.05)\n"
        "writer.append(0, {'loss': 1.0}); writer.flush(); shutil.rmtree(sys.argv[1])\n"
        "for step in range(1, 2000): writer.append(step, {'loss': 1.0})\n"
        "print('trained')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stdout == "trained\n"
    assert done.stderr.count("training goes on") == 1
    assert "Traceback" not in done.stderr
