"""A trace on an object store is written, followed, listed and continued like one on the disk."""

import http.server
import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from foreshock.traces import TraceWriter, find_runs, open_trace
from foreshock.traces.errors import (
    TraceExistsError,
    TraceForeignError,
    TraceLockedError,
    TraceNotFoundError,
    TraceUnreachableError,
)
from foreshock.traces.places import is_url, location_of
from foreshock.traces.verify import verify

fsspec = pytest.importorskip("fsspec")

LAYERS = ["patch_embed", "norm"]


@pytest.fixture(scope="module")
def s3_server():
    """An S3 server on this machine's loopback; its bucket is `runs`."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    request = urllib.request.Request(f"http://{host}:{port}/runs", method="PUT")
    urllib.request.urlopen(request).close()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def gs_server():
    """A Google Cloud Storage server on this machine's loopback; its bucket is `runs`."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.server.HTTPServer, "request_queue_size", 128)  # its own 5: the sixth call waits a second
        # It answers one connection at a time: one that says nothing would keep all others waiting for ever.
        patch.setattr(emulator.RequestHandler, "timeout", 1)
        pytest.importorskip("gcsfs")
        server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="runs")
        server.start()
        host, port = server._api._httpd.socket.getsockname()
        yield f"http://{host}:{port}"
        server.stop()


@contextmanager
def at_most(seconds):
    """Raise TimeoutError in the main thread if the block takes longer, whatever it waits for."""

    def stop(*_):
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["memory", "s3", "gs"])
def root(request, monkeypatch):
    """A URL of its own for each test."""
    if request.param == "gs":
        # Its client has no limit of its own.
        options = {"endpoint_url": request.getfixturevalue("gs_server"), "token": "anon", "requests_timeout": 20}
        monkeypatch.setitem(fsspec.config.conf, "gs", options)
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with at_most(120):
        yield f"{request.param}://runs/{uuid.uuid4().hex}"


def test_a_connection_that_says_nothing_holds_up_nobody(gs_server):
    host, port = gs_server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))), at_most(30):
        fs = fsspec.filesystem("gs", endpoint_url=gs_server, token="anon", requests_timeout=20)
        fs.pipe_file("runs/a", b"x")
        assert fs.cat_file("runs/a") == b"x"


def rows(first, last):
    steps = np.arange(first, last)
    return steps, {"grad_norm": np.ones((2, last - first), np.float32) * steps, "loss": steps * 1.0}


def test_a_path_that_was_a_url_is_that_url(tmp_path, monkeypatch):
    for url in ("s3://bucket/runs/a", "gs://b", "memory://x/y"):
        assert location_of(Path(url)) == location_of(url) == url
        assert is_url(location_of(Path(url)))
    assert location_of("file:///tmp/a%20b") == "/tmp/a b"
    monkeypatch.chdir(tmp_path)
    assert location_of("runs/a") == str(tmp_path / "runs" / "a")
    (tmp_path / "s3:" / "a").mkdir(parents=True)  # a folder of that name is a folder
    assert location_of("s3:/a") == str(tmp_path / "s3:" / "a")


def test_written_read_followed_and_listed(root):
    assert find_runs(root) == []
    writer = TraceWriter(f"{root}/a", layers=LAYERS, flush_seconds=0.05)
    seen: list[int] = []

    def follow():
        for block in open_trace(f"{root}/a").follow(poll=0.02, timeout=30):
            np.testing.assert_array_equal(block.values["grad_norm"][0], block.steps)
            seen.extend(block.steps.tolist())

    reader = threading.Thread(target=follow)
    reader.start()
    for first in range(0, 3000, 500):
        writer.extend(*rows(first, first + 500))
        assert writer.flush()
    writer.event(7, "spike", "x")
    writer.close()
    reader.join(60)
    assert seen == list(range(3000))
    trace = open_trace(f"{root}/a")
    np.testing.assert_array_equal(trace["loss"], np.arange(3000))
    assert trace.events == [{"step": 7, "kind": "spike", "text": "x"}]
    assert (trace.status, trace.name) == ("finished", "a")
    assert verify(f"{root}/a") == []
    assert trace.to_xarray()["loss"].sel(step=8).item() == 8.0
    TraceWriter(f"{root}/x/y/b", layers=LAYERS).close()
    fsspec.core.url_to_fs(root)[0].pipe_file(f"{root}/other/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    found = find_runs(root)
    assert [path.name for path in found] == ["b", "a"]
    assert [len(open_trace(path)) for path in found] == [0, 3000]


def test_resumed_overwritten_and_refused(root):
    with TraceWriter(root, layers=LAYERS) as writer:
        writer.extend(*rows(0, 2500))
    old = open_trace(root)
    with pytest.raises(TraceExistsError):
        TraceWriter(root, layers=LAYERS)
    with TraceWriter(root, layers=LAYERS, resume_at=700) as writer:
        writer.extend(*rows(700, 1800))
    trace = old.refresh()
    np.testing.assert_array_equal(trace["grad_norm"][1], np.arange(1800))
    assert (trace.generation, len(trace.events)) == (1, 1)
    fs = fsspec.core.url_to_fs(root)[0]
    fs.invalidate_cache()
    assert not fs.exists(f"{root}/grad_norm/c/0/2")  # a chunk behind the end was deleted
    fs.pipe_file(f"{root}/notes.txt", b"precious")
    with TraceWriter(root, layers=LAYERS, overwrite=True) as writer:
        writer.extend(*rows(0, 10))
    assert len(open_trace(root)) == 10
    assert fs.cat_file(f"{root}/notes.txt") == b"precious"
    assert verify(root) == []
    with pytest.raises(TraceNotFoundError):
        open_trace(f"{root}/nowhere")
    fs.pipe_file(f"{root}/v2/.zgroup", b"{}")
    with pytest.raises(TraceForeignError):
        TraceWriter(f"{root}/v2", layers=LAYERS)


def test_one_writer_at_a_time(root):
    writer = TraceWriter(root, layers=LAYERS)
    with pytest.raises(TraceLockedError, match="is being written by process"):
        TraceWriter(root, layers=LAYERS, resume_at=0)
    writer.close()
    TraceWriter(root, layers=LAYERS, resume_at=0).close()


def other_owner(root, **held):
    owner = {"host": "elsewhere", "pid": 1, "id": "other", "seen": time.time()} | held
    fsspec.core.url_to_fs(root)[0].pipe_file(f"{root}/step/writer.lock", json.dumps(owner).encode())


def test_a_lock_lapses_when_its_owner_is_silent_or_dead(root):
    TraceWriter(root, layers=LAYERS).close()
    other_owner(root)
    with pytest.raises(TraceLockedError, match="on elsewhere, seen 0 s ago"):
        TraceWriter(root, layers=LAYERS, resume_at=0)
    other_owner(root, seen=time.time() - 61)
    TraceWriter(root, layers=LAYERS, resume_at=0).close()
    other_owner(root, host=socket.gethostname(), pid=2**22 + 1)  # no such process: it was killed
    TraceWriter(root, layers=LAYERS, resume_at=0).close()


def test_a_writer_whose_lock_was_taken_stops_writing(root):
    writer = TraceWriter(root, layers=LAYERS, background=False)
    writer.append(0, {"loss": 1.0})
    assert writer.flush()
    other_owner(root)
    writer.append(1, {"loss": 2.0})
    assert not writer.flush()
    assert len(open_trace(root)) == 1
    with pytest.raises(ValueError, match="deleted or replaced"):
        writer.close()


def test_a_store_that_fails_for_a_while_costs_nothing(root, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    writer = TraceWriter(root, layers=LAYERS, flush_seconds=0.01, flush_rows=16)
    writer.extend(*rows(0, 100))
    assert writer.flush()
    fs = fsspec.core.url_to_fs(root)[0]  # the writer's own: fsspec keeps one for each store

    def fails(*_, **__):
        raise RuntimeError("503 Slow Down")

    with monkeypatch.context() as broken:
        broken.setattr(fs, "pipe", fails)
        for step in range(100, 500):
            writer.append(step, {"grad_norm": [step, step], "loss": step})
        assert not writer.flush()
        assert len(open_trace(root)) == 100
    assert writer.flush()
    writer.close()
    np.testing.assert_array_equal(open_trace(root)["loss"], np.arange(500))
    assert open_trace(root).events == []
    assert [r for r in caplog.records if "training goes on" in r.getMessage() and "503" in r.getMessage()]


def test_a_flipped_bit_is_named(root):
    with TraceWriter(root, layers=LAYERS) as writer:
        writer.extend(*rows(0, 3000))
    fs = fsspec.core.url_to_fs(root)[0]
    key = f"{root}/grad_norm/c/0/1"
    data = bytearray(fs.cat_file(key))
    data[40] ^= 1
    fs.pipe_file(key, bytes(data))
    (problem,) = verify(root)
    assert problem.place == "grad_norm/c/0/1"
    np.testing.assert_array_equal(open_trace(root).read("grad_norm", start=2048)[0], np.arange(2048, 3000))


@pytest.mark.parametrize("url", ["nonsense://bucket/a", "s3x://a/b"])
def test_an_unknown_protocol_is_one_sentence(url):
    for use in (lambda: open_trace(url), lambda: TraceWriter(url, layers=LAYERS), lambda: find_runs(url)):
        with pytest.raises(ValueError, match=r"can't be opened: .*use a path, or a URL that fsspec knows"):
            use()


def test_the_dashboard_lists_and_follows_it(root):
    from foreshock.dashboard.follow import Runs

    with TraceWriter(f"{root}/a", layers=LAYERS) as writer:
        writer.extend(*rows(0, 200))
    runs = Runs(root)
    assert runs.names() == ["a"]
    follower = runs.follower("a")
    assert follower is not None
    assert follower.snapshot().rows == 200


def test_the_trainer_writes_there(root, tmp_path, capsys):
    from tiny_runs import tiny_options, write_fashion

    from foreshock.cli.__main__ import main

    options = ["demo", *tiny_options(write_fashion(tmp_path)), "--trace", f"{root}/run"]
    assert main(["train", *options]) == 0, capsys.readouterr().err
    trace = open_trace(f"{root}/run")
    assert trace.status == "finished"
    assert np.isfinite(trace["grad_norm"]).any()
    assert main(["spikes", f"{root}/run"]) == 0
    assert main(["train", *options]) == 2  # it is there already
    assert "there is a trace at" in capsys.readouterr().err


def test_a_reader_waits_while_the_store_is_out_of_reach(root, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    if not root.startswith("memory"):
        pytest.skip("failures are planted in the store in memory")
    writer = TraceWriter(root, layers=LAYERS, background=False)
    writer.extend(*rows(0, 100))
    writer.flush()
    trace = open_trace(root)
    following = trace.follow(poll=0.01)
    assert len(next(following)) == 100
    cat, failing = MemoryFileSystem.cat_file, [3]

    def unreliable(self, path, **options):
        if failing[0]:
            failing[0] -= 1
            raise ConnectionError("reset by peer")
        return cat(self, path, **options)

    writer.extend(*rows(100, 200))
    writer.flush()
    monkeypatch.setattr(MemoryFileSystem, "cat_file", unreliable)
    assert next(following).steps.tolist() == list(range(100, 200))
    assert failing == [0]
    failing[0] = 10**9
    with pytest.raises(TraceUnreachableError, match=r"ConnectionError: reset by peer.*check the place"):
        trace.refresh()
    with pytest.raises(TraceUnreachableError):
        trace.read("loss")
    monkeypatch.setattr("foreshock.traces.following._UNREACHABLE_FOR", 0.05)
    with pytest.raises(TraceUnreachableError):
        next(following)
    failing[0] = 0
    writer.close()


def test_a_file_without_rights_is_out_of_reach_and_not_damaged(tmp_path, monkeypatch):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        writer.extend(*rows(0, 100))
    trace = open_trace(tmp_path / "a")
    chunk = tmp_path / "a" / "scalars" / "c" / "0" / "0"
    chunk.unlink()
    chunk.symlink_to(chunk)  # reading it is an OSError, whoever asks
    with pytest.raises(TraceUnreachableError, match=r"scalars\[0:100\] can't be read \(OSError"):
        trace.read("loss")


def write_until_killed(url, environment, acknowledge):
    """Continue the trace where it ends, and tell how many rows are committed, until killed."""
    os.environ.update(environment)
    try:
        first = len(open_trace(url))
    except TraceNotFoundError:
        first = 0
    writer = TraceWriter(url, layers=LAYERS, resume_at=first or None, flush_rows=16, flush_seconds=0.01)
    for start in range(first, 10**9, 40):
        writer.extend(*rows(start, start + 40))
        assert writer.flush()
        acknowledge.send(start + 40)


def test_kills_lose_no_committed_row(s3_server):
    """Writers in other processes, killed with -9; each successor goes on at once, since the lock.s owner is dead."""
    url = f"s3://runs/{uuid.uuid4().hex}"
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = keys | {"AWS_ENDPOINT_URL": s3_server}
    processes, chance = multiprocessing.get_context("spawn"), random.Random(0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for _ in range(4):
            receive, send = processes.Pipe(duplex=False)
            writer = processes.Process(target=write_until_killed, args=(url, environment, send), daemon=True)
            writer.start()
            committed = receive.recv()
            time.sleep(chance.uniform(0, 0.4))
            writer.kill()
            writer.join()
            while receive.poll():
                committed = receive.recv()
            trace = open_trace(url)
            assert len(trace) >= committed
            np.testing.assert_array_equal(trace["grad_norm"][1], np.arange(len(trace)))
            np.testing.assert_array_equal(trace["loss"], trace.steps)
        assert verify(url) == []
