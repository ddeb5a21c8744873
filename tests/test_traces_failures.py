"""A failing disk doesn't stop the training, and a damaged or foreign store is a named error."""

import gc
import json
import logging
import resource
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import zarr

from foreshock.traces import TraceError, TraceWriter, open_trace
from foreshock.traces.errors import (
    TraceCorruptError,
    TraceForeignError,
    TraceLockedError,
    TraceNotFoundError,
    TraceVersionError,
    TraceWriteError,
)

LAYERS = ["patch_embed", "norm"]


def rows(first, last):
    steps = np.arange(first, last)
    return steps, {"grad_norm": np.ones((2, last - first), np.float32) * steps, "loss": steps * 1.0}


@pytest.mark.parametrize("background", [True, False])
def test_rows_wait_for_a_vanished_folder_to_come_back(tmp_path, caplog, background):
    caplog.set_level(logging.WARNING)
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.01, flush_rows=8, background=background)
    writer.extend(*rows(0, 100))
    assert writer.flush()
    (tmp_path / "a").rename(tmp_path / "gone")
    for step in range(100, 200):
        writer.append(step, {"loss": float(step)})
    assert not writer.flush()
    time.sleep(0.05)
    writer.append(200, {"loss": 200.0})
    assert not writer.flush()
    assert len(open_trace(tmp_path / "gone")) == 100
    assert not (tmp_path / "a").exists()  # nothing was made anew that would claim lost rows
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "training goes on" in warned[0].getMessage()
    (tmp_path / "gone").rename(tmp_path / "a")
    assert writer.flush()
    writer.close()
    trace = open_trace(tmp_path / "a")
    np.testing.assert_array_equal(trace["loss"], np.arange(201))
    assert trace.events == []


def test_rows_that_could_not_be_kept_are_dropped_and_told(tmp_path, caplog):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.01, flush_rows=8)
    writer.extend(*rows(0, 100))
    assert writer.flush()
    (tmp_path / "a").rename(tmp_path / "gone")
    writer.extend(*rows(100, 110))
    assert not writer.flush()
    limit = writer._committer._max_rows
    writer._committer._max_rows = 64
    for step in range(110, 1000):
        writer.append(step, {"loss": float(step)})
    assert writer._committer.waiting <= 64 + 8
    writer._committer._max_rows = limit
    (tmp_path / "gone").rename(tmp_path / "a")
    assert writer.flush()
    writer.extend(*rows(1000, 1100))
    writer.close()
    trace = open_trace(tmp_path / "a")
    (gap,) = trace.events
    assert gap["kind"] == "gap"
    dropped = sorted(set(range(1100)) - set(trace.steps.tolist()))
    assert dropped == list(range(gap["step"], dropped[-1] + 1))
    assert gap["text"].startswith(f"{len(dropped)} rows up to step {dropped[-1]} were dropped: ")
    assert len(dropped) > 500
    np.testing.assert_array_equal(trace["loss"], trace.steps)


def test_close_tells_of_rows_that_were_lost(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS)
    writer.append(0, {"loss": 1.0})
    (tmp_path / "a").rename(tmp_path / "gone")
    with pytest.raises(TraceWriteError, match=r"up to step 0.*deleted or replaced"):
        writer.close()
    assert open_trace(tmp_path / "gone").status == "running"


def test_the_error_that_ended_the_run_is_not_hidden_by_the_disk(tmp_path):
    def train():
        with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
            writer.append(0, {"loss": 1.0})
            (tmp_path / "a").rename(tmp_path / "gone")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom") as caught:
        train()
    assert "are lost" in caught.value.__notes__[0]


def test_a_trace_that_replaced_ours_is_left_alone(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.01)
    writer.append(0, {"loss": 1.0})
    assert writer.flush()
    (tmp_path / "a").rename(tmp_path / "gone")
    with pytest.raises(TraceLockedError, match="close it first"):
        TraceWriter(tmp_path / "a", layers=["other"])
    code = f"from foreshock.traces import TraceWriter; TraceWriter({str(tmp_path / 'a')!r}, layers=['other']).close()"
    subprocess.run([sys.executable, "-c", code], check=True)
    writer.append(1, {"loss": 2.0})
    assert not writer.flush()
    with pytest.raises(TraceWriteError):
        writer.close()
    assert open_trace(tmp_path / "a").layers == ("other",)


FULL_DISK = """
import resource, signal, sys
import numpy as np
from foreshock.traces import TraceWriter, open_trace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = TraceWriter(sys.argv[1], layers=["a"], flush_seconds=0.01, flush_rows=64)
writer.extend(np.arange(1000), {"loss": np.arange(1000.0)})
assert writer.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # every larger write fails, after its first 100 bytes
for step in range(1000, 2000):
    writer.append(step, {"loss": float(step)})
assert not writer.flush()
assert len(open_trace(sys.argv[1])) == 1000
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert writer.flush()
writer.close()
np.testing.assert_array_equal(open_trace(sys.argv[1])["loss"], np.arange(2000.0))
print("rows:", len(open_trace(sys.argv[1])))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "rows: 2000\n", done.stderr
    assert "can't be written" in done.stderr
    assert done.stderr.count("training goes on") == 1


def test_memory_is_bounded_while_the_disk_fails(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=[f"l{i}" for i in range(150)], flush_seconds=0.05)
    assert writer.flush()
    (tmp_path / "a").rename(tmp_path / "gone")
    writer._committer._max_rows = 4096
    block = {"grad_norm": np.ones((150, 1000), np.float32)}
    tracemalloc.start()
    for start in range(0, 60_000, 1000):
        writer.extend(np.arange(start, start + 1000), block)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with pytest.raises(TraceWriteError):
        writer.close()
    assert size < 20e6  # 60,000 rows would be 36 MB; 4,096 are 2.5 MB, and as many may be on their way


def test_a_bug_in_the_writer_thread_is_told_at_the_end_and_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.01)
    monkeypatch.setattr(writer._committer._files, "append", lambda block: 1 / 0)
    for step in range(2000):
        writer.append(step, {"loss": 1.0})
    assert not writer.flush()
    assert "no longer written" in caplog.text
    with pytest.raises(TraceWriteError, match="division by zero"):
        writer.close()


# Damaged and foreign stores


@pytest.fixture
def path(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        writer.extend(*rows(0, 3000))
    return tmp_path / "a"


def edit(path, change):
    document = json.loads((path / "zarr.json").read_text())
    change(document)
    (path / "zarr.json").write_text(json.dumps(document))


def attributes(**new):
    return lambda document: document["attributes"].update(new)


def without(name):
    return lambda document: document["attributes"].pop(name)


def array(name, **new):
    return lambda document: document["consolidated_metadata"]["metadata"][name].update(new)


def huge(document):
    document["attributes"]["n_steps"] = 10**15
    document["consolidated_metadata"]["metadata"]["step"]["shape"] = [10**15]


DAMAGE = {
    "layers is text": (attributes(layers="patch_embed"), "'layers' is 'patch_embed', not a list"),
    "layers repeat": (attributes(layers=["norm", "norm"]), "'layers'"),
    "layers are numbers": (attributes(layers=[1, 2]), "'layers'"),
    "config is a list": (attributes(config=[]), "'config' is \\[\\], not an object"),
    "status is unknown": (attributes(status="asleep"), "'status' is 'asleep'"),
    "status is a list": (attributes(status=[]), "'status'"),
    "heartbeat is text": (attributes(heartbeat="now"), "'heartbeat'"),
    "generation is a truth": (attributes(generation=True), "'generation'"),
    "generation is missing": (without("generation"), "'generation' is None"),
    "units hold numbers": (attributes(units={"loss": 1}), "'units'"),
    "version is text": (attributes(format_version="1"), "format_version is '1'"),
    "rows are negative": (attributes(n_steps=-1), "'n_steps'"),
    "rows are unequal": (attributes(n_steps=2999), "step has shape \\[3000\\], not \\[2999\\]"),
    "ten to the fifteenth rows": (huge, "'n_steps' is 1000000000000000, not a count up to"),
    "no consolidated metadata": (lambda d: d.pop("consolidated_metadata"), "consolidated metadata"),
    "step is missing": (lambda d: d["consolidated_metadata"]["metadata"].pop("step"), "array step is missing"),
    "scalar names are missing": (array("scalars", attributes={"names": ["loss", 3]}), "'names' of scalars"),
    "another data type": (array("grad_norm", data_type="r8"), "data type 'r8'"),
    "data type is a list": (array("grad_norm", data_type=["float32"]), "data type"),
    "a codec of ours is missing": (array("grad_norm", codecs=[{"name": "bytes"}]), "codecs \\['bytes'\\]"),
    "no remarks": (lambda d: d["consolidated_metadata"]["metadata"].pop("events"), "array events is missing"),
    "an exabyte of remarks": (array("events", shape=[10**18]), "array events has shape"),
    "a strange codec": (array("step", codecs=[{"name": "bytes"}, {"name": "pickle"}]), "'pickle'"),
    "codecs are a number": (array("step", codecs=3), "codecs 3"),
    "a chunk of a petabyte": (
        array("step", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**14]}}),
        "claims chunks of 800,000,000,000,000 bytes",
    ),
    "a chunk of nothing": (
        array("step", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0]}}),
        "chunk shape \\[0\\]",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_root_document_is_a_corrupt_trace(path, name):
    change, message = DAMAGE[name]
    edit(path, change)
    with pytest.raises(TraceCorruptError, match=message) as caught:
        open_trace(path)
    assert str(path) in str(caught.value)
    assert "restore it from a copy or delete it" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"attributes": 3}', "[" * 100_000, "\x00\xff"])
def test_any_text_in_the_root_document_is_a_trace_error(path, text):
    (path / "zarr.json").write_text(text, encoding="latin-1")
    with pytest.raises(TraceError):
        open_trace(path)


def test_every_single_damage_of_the_root_document_is_named_or_harmless(path):
    """Replace every value in the document, one at a time, by one of another type."""
    original = json.loads((path / "zarr.json").read_text())

    def places(node, trail=()):
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield (*trail, key)
            yield from places(node[key], (*trail, key))

    for trail in places(original):
        document = json.loads(json.dumps(original))
        node = document
        for key in trail[:-1]:
            node = node[key]
        node[trail[-1]] = {"strange": 1} if not isinstance(node[trail[-1]], dict) else [17]
        (path / "zarr.json").write_text(json.dumps(document))
        try:
            trace = open_trace(path)
            trace.since(2990)
            trace.overview("loss", columns=4)
        except TraceError:
            continue


def test_a_newer_format_says_to_upgrade(path):
    edit(path, attributes(format_version=3))
    with pytest.raises(TraceVersionError, match=r"format version 3.*upgrade"):
        open_trace(path)
    with pytest.raises(TraceVersionError):
        TraceWriter(path, layers=LAYERS, overwrite=True)


def test_a_foreign_store_is_told_apart_and_never_overwritten(tmp_path):
    zarr.create_array(tmp_path / "b", shape=(3,), dtype="float32")
    zarr.create_group(tmp_path / "c", zarr_format=2)
    with pytest.raises(TraceForeignError, match="not a trace"):
        open_trace(tmp_path / "b")
    with pytest.raises(TraceForeignError, match="format 2"):
        open_trace(tmp_path / "c")
    with pytest.raises(TraceForeignError):
        TraceWriter(tmp_path / "b", layers=LAYERS, overwrite=True)
    with pytest.raises(TraceForeignError, match="format 2"):
        TraceWriter(tmp_path / "c", layers=LAYERS)
    assert zarr.open_array(tmp_path / "b", mode="r").shape == (3,)


def test_nothing_there(tmp_path):
    with pytest.raises(TraceNotFoundError, match="doesn't exist"):
        open_trace(tmp_path / "nowhere")
    with pytest.raises(TraceNotFoundError, match=r"has no zarr.json"):
        open_trace(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceNotFoundError):
        open_trace(tmp_path / "file")


def test_a_trace_that_was_deleted_is_not_found_on_refresh(path):
    trace = open_trace(path)
    path.rename(path.parent / "gone")
    for use in (trace.refresh, lambda: trace["loss"]):
        with pytest.raises(TraceNotFoundError):
            use()


@pytest.mark.parametrize("size", [0, 10, 17, 100])
def test_a_chunk_that_was_cut_off_is_corrupt(path, size):
    chunk = path / "grad_norm" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:size])
    trace = open_trace(path)
    np.testing.assert_array_equal(trace.read("grad_norm", stop=1024), np.tile(np.arange(1024), (2, 1)))
    with pytest.raises(TraceCorruptError, match="grad_norm/c/0/1 has"):
        trace["grad_norm"]


def test_a_chunk_that_claims_a_terabyte_is_corrupt(path):
    chunk = path / "grad_norm" / "c" / "0" / "1"
    data = bytearray(chunk.read_bytes())
    data[4:8] = b"\xff\xff\xff\x7f"
    chunk.write_bytes(data)
    with pytest.raises(TraceCorruptError, match="decoded 2147483647"):
        open_trace(path)["grad_norm"]


@pytest.mark.parametrize("name", ["grad_norm/c/0/1", "step/c/0", "scalars/c/0/0", "overview/16/grad_norm/c/0/0/0"])
def test_a_missing_chunk_is_corrupt_and_never_reads_as_not_measured(path, name):
    (path / name).unlink()
    trace = open_trace(path)

    def read_everything():
        return trace.since(None), trace.overview("grad_norm", columns=10)

    with pytest.raises(TraceCorruptError, match=f"{name} is missing"):
        read_everything()


def test_steps_that_do_not_increase_are_corrupt(path):
    other = path.parent / "other"
    with TraceWriter(other, layers=LAYERS) as writer:
        writer.extend(*rows(0, 3000))
    array = zarr.open_array(other / "step", mode="r+")
    array[7] = 7000
    with pytest.raises(TraceCorruptError, match="don't increase"):
        _ = open_trace(other).steps


def test_a_running_trace_without_a_commit_for_a_minute_is_stalled(path):
    edit(path, attributes(status="running", heartbeat=time.time() - 61))
    assert open_trace(path).state == "stalled"
    edit(path, attributes(heartbeat=time.time() - 50))
    assert open_trace(path).state == "running"
