"""A trace survives kill -9 at any instant, under a reader in another process, and goes on afterwards."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.errors import TraceChangedError, TraceLockedError, TraceNotFoundError

LAYERS = [f"blocks.{i:02d}" for i in range(7)]

# Children come from one clean process that has imported everything, so that a kill test takes no second to start.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["foreshock.traces", "zarr"])


def layer_values(steps: np.ndarray, attempt: np.ndarray | int) -> np.ndarray:
    """The gradient norms that attempt number `attempt` writes: every cell tells its step, layer and attempt."""
    return (steps % 4096 + 4096.0 * np.asarray(attempt) + np.arange(len(LAYERS))[:, None] / 8).astype(np.float32)


def check(trace) -> None:
    """Fail if any row of the snapshot is not what one attempt wrote for that step."""
    rows = trace.since(None)
    np.testing.assert_array_equal(rows.steps, np.arange(len(trace)))
    attempt = rows.values["attempt"]
    assert (np.diff(attempt) >= 0).all()
    np.testing.assert_array_equal(rows.values["grad_norm"], layer_values(rows.steps, attempt))
    np.testing.assert_array_equal(rows.values["late"][attempt >= 1], rows.steps[attempt >= 1])
    if len(trace):
        cells = trace.overview("grad_norm", columns=40)
        assert cells.max.max() == rows.values["grad_norm"].max()
        assert cells.rows.sum() == len(trace) == cells.count[0].sum()


def write_forever(path: str, attempt: int, back: int, acknowledge) -> None:
    """Continue the trace `back` rows before its end, and tell which steps are committed, until killed."""
    # numcodecs makes a lock in each process; made under "fork" it has no name that a kill could leave behind.
    multiprocessing.set_start_method("fork", force=True)
    acknowledge.send("begun")
    if Path(path, "zarr.json").exists():
        first = max(0, len(open_trace(path)) - back)
        writer = TraceWriter(path, layers=LAYERS, resume_at=first, flush_rows=16, flush_seconds=0.01)
    else:
        first = 0
        writer = TraceWriter(path, layers=LAYERS, flush_rows=16, flush_seconds=0.01)
    acknowledge.send(-1)
    for step in range(first, 10**9):
        values = {"grad_norm": layer_values(np.array([step]), attempt)[:, 0], "attempt": attempt}
        if attempt >= 1:  # a scalar that begins in mid-run
            values["late"] = step
        writer.append(step, values)
        if step % 50 == 0:
            assert writer.flush()
            acknowledge.send(step)


def read_forever(path: str, stop, result) -> None:
    """Check snapshot after snapshot; report how many were read, how many changed underfoot, and what failed."""
    reads = changed = 0
    last: tuple[int, int] = (0, 0)
    try:
        result.send("ready")
        while not stop.poll():
            try:
                trace = open_trace(path)
                if "late" not in trace:
                    continue
                check(trace)
            except TraceChangedError:
                changed += 1
            except TraceNotFoundError:
                assert reads == 0
            else:
                assert (trace.generation, len(trace)) >= last, "committed rows went back within a generation"
                last = (trace.generation, len(trace))
                reads += 1
    except BaseException as error:
        result.send((reads, changed, f"{type(error).__name__}: {error}"))
        raise
    result.send((reads, changed, ""))


def killed_many_times(path: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill the writer `kills` times at random instants under a reader; return what was seen."""
    chance = random.Random(seed)
    stop_here, stop = processes.Pipe(duplex=False)
    from_reader, to_parent = processes.Pipe(duplex=False)
    reader = processes.Process(target=read_forever, args=(str(path), stop_here, to_parent), daemon=True)
    reader.start()
    assert from_reader.recv() == "ready"
    lost = acknowledged = 0
    for attempt in range(kills):
        receive, send = processes.Pipe(duplex=False)
        back = chance.choice([0, 0, 0, 30, 700])
        writer = processes.Process(target=write_forever, args=(str(path), attempt, back, send), daemon=True)
        writer.start()
        assert receive.recv() == "begun"
        if attempt == 0:
            receive.recv()  # the first kill shall find a trace
        committed = -1
        while attempt % 2 and committed < 0:  # every other kill falls into the writing, however slow the machine
            committed = receive.recv()
        time.sleep(chance.uniform(0, 0.35))  # the others fall where they may, some into the opening
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        while receive.poll():
            committed = receive.recv()
        trace = open_trace(path)
        check_if_named(trace)
        if committed >= 0:
            acknowledged += 1
            lost += max(0, committed + 1 - len(trace))
    stop.send("stop")
    reads, changed, problem = from_reader.recv()
    reader.join()
    assert problem == ""
    return {"lost": lost, "acknowledged": acknowledged, "reads": reads, "changed": changed}


def check_if_named(trace) -> None:
    if "late" in trace:
        check(trace)


def test_fifteen_kills_lose_no_committed_row_and_tear_no_read(tmp_path):
    seen = killed_many_times(tmp_path / "run", kills=15, seed=0)
    assert seen["lost"] == 0
    assert seen["reads"] >= 5
    assert seen["acknowledged"] >= 5


@pytest.mark.slow
def test_two_hundred_kills_lose_no_committed_row_and_tear_no_read(tmp_path):
    seen = killed_many_times(tmp_path / "run", kills=200, seed=1)
    assert seen["lost"] == 0
    assert seen["reads"] >= 100
    assert seen["acknowledged"] >= 50


def test_after_a_kill_the_array_documents_are_stale_and_a_restart_restores_them(tmp_path):
    path = tmp_path / "run"
    receive, send = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_forever, args=(str(path), 1, 0, send), daemon=True)
    writer.start()
    assert receive.recv() == "begun"
    while receive.recv() < 100:
        pass
    writer.kill()
    writer.join()
    (path / "grad_norm" / "c" / "0" / "0.partial").write_bytes(b"half a chunk")
    (path / "zarr.json.partial").write_bytes(b"half a document")
    committed = len(open_trace(path))
    assert json.loads((path / "grad_norm" / "zarr.json").read_text())["shape"][1] < committed
    writer = TraceWriter(path, layers=LAYERS, resume_at=committed - 20)
    try:
        assert list(path.rglob("*.partial")) == []
        # A reader that knows nothing of consolidated metadata
        array = zarr.open_array(str(path / "grad_norm"), mode="r")
        assert array.shape == (len(LAYERS), committed - 20)
        np.testing.assert_array_equal(array[:], layer_values(np.arange(committed - 20), 1))
    finally:
        writer.close()


def test_a_killed_writer_keeps_no_lock_even_if_its_data_loader_worker_lives_on(tmp_path):
    path = tmp_path / "run"
    receive, send = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_with_a_forked_worker, args=(str(path), send), daemon=True)
    writer.start()
    worker = receive.recv()
    with pytest.raises(TraceLockedError, match=f"another process .pid {writer.pid}"):
        TraceWriter(path, layers=LAYERS, resume_at=0)
    writer.kill()
    writer.join()
    os.kill(worker, 0)  # still there
    try:
        TraceWriter(path, layers=LAYERS, resume_at=0).close()
    finally:
        os.kill(worker, signal.SIGKILL)
    assert len(open_trace(path)) == 0


def write_with_a_forked_worker(path: str, send) -> None:
    multiprocessing.set_start_method("fork", force=True)
    writer = TraceWriter(path, layers=LAYERS)
    writer.append(0, {"loss": 1.0})
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    send.send(worker)
    time.sleep(60)


def test_a_live_run_is_followed_from_another_process(tmp_path):
    path = tmp_path / "run"
    receive, send = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_forever, args=(str(path), 1, 0, send), daemon=True)
    writer.start()
    assert [receive.recv(), receive.recv()] == ["begun", -1]
    seen: list[int] = []
    for rows in open_trace(path).follow(poll=0.01):
        np.testing.assert_array_equal(rows.values["grad_norm"], layer_values(rows.steps, 1))
        seen += rows.steps.tolist()
        if len(seen) > 2000:
            break
    writer.kill()
    writer.join()
    assert seen == list(range(len(seen)))
