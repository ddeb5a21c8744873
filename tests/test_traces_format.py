"""Format version 2: checksums name what was damaged, remarks don't weigh on commits, rounding keeps its promise."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from version_one import make_version_one

from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.arrays import rounded
from foreshock.traces.errors import TraceCorruptError

LAYERS = ["patch_embed", "norm"]


def write(path, rows=5000, **options):
    rng = np.random.default_rng(0)
    steps = np.arange(rows)
    norms = rng.lognormal(size=(2, rows)).astype(np.float32)
    with TraceWriter(path, layers=LAYERS, **options) as writer:
        writer.extend(steps, {"grad_norm": norms, "loss": steps * 0.5})
        writer.event(7, "spike", "patch_embed rose 6.9×")
        writer.event(4000, "spike", "norm rose 3×")
    return norms


def chunk_files(path):
    """Every chunk, and the reading that touches it."""
    trace = open_trace(path)
    for file in sorted(path.rglob("*")):
        key = file.relative_to(path).as_posix()
        if file.is_file() and "/c/" in key:
            yield key, file
    assert trace.steps.size


def read_everything(path):
    trace = open_trace(path)
    return (
        trace.since(None),
        trace.events,
        [trace._snapshot.read(a, 0, 10**9) for a in trace._snapshot.record.documents],
    )


def test_every_flipped_bit_is_named_with_its_place(tmp_path):
    write(tmp_path / "a")
    chance = np.random.default_rng(1)
    seen = 0
    for key, file in chunk_files(tmp_path / "a"):
        good = file.read_bytes()
        array = key.split("/c/")[0]
        for at in {0, len(good) - 1, *chance.integers(0, len(good), 3).tolist()}:
            bad = bytearray(good)
            bad[at] ^= 1 << int(chance.integers(8))
            file.write_bytes(bad)
            with pytest.raises(TraceCorruptError, match=f"the chunk {key} "):
                open_trace(tmp_path / "a")._snapshot.read(array, 0, 10**9)
            seen += 1
        file.write_bytes(good)
    read_everything(tmp_path / "a")
    assert seen > 50


def test_the_rest_of_a_damaged_series_stays_readable(tmp_path):
    norms = write(tmp_path / "a")
    file = tmp_path / "a" / "grad_norm" / "c" / "0" / "2"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    trace = open_trace(tmp_path / "a")
    with pytest.raises(TraceCorruptError, match=r"grad_norm/c/0/2 doesn't match its checksum.*grad_norm\[2048:3072\]"):
        trace.read("grad_norm")
    np.testing.assert_array_equal(trace.read("grad_norm", stop=2048), norms[:, :2048])
    np.testing.assert_array_equal(trace.read("grad_norm", start=3072), norms[:, 3072:])
    np.testing.assert_array_equal(trace["loss"], np.arange(5000) * 0.5)
    assert trace.overview("grad_norm", columns=20).max.max() == norms.max()


def test_zarr_checks_the_same_checksums(tmp_path):
    norms = write(tmp_path / "a")
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a" / "grad_norm", mode="r")[:], norms)
    file = tmp_path / "a" / "grad_norm" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(tmp_path / "a" / "grad_norm", mode="r")[:, :5]


# Remarks


def test_remarks_do_not_weigh_on_the_root_document(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, background=False)
    writer.flush()
    empty = (tmp_path / "a" / "zarr.json").stat().st_size
    for step in range(20_000):
        writer.event(step, "spike", "é" * 20)
    writer.flush()
    trace = open_trace(tmp_path / "a")
    assert (tmp_path / "a" / "zarr.json").stat().st_size < empty + 100
    assert [event["step"] for event in trace.events] == list(range(20_000))
    before = (tmp_path / "a" / "events" / "c" / "0").stat().st_mtime_ns
    writer.event(5, "late", "one more")
    writer.close()
    fresh = trace.refresh()
    assert fresh.events[-1] == {"step": 5, "kind": "late", "text": "one more"}
    assert len(fresh.events) == len(trace.events) + 1
    assert (tmp_path / "a" / "events" / "c" / "0").stat().st_mtime_ns == before  # a full chunk is written once


def test_remarks_from_the_resumed_step_on_are_taken_back(tmp_path):
    write(tmp_path / "a")
    old = open_trace(tmp_path / "a")
    assert len(old.events) == 2
    with TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=4000) as writer:
        writer.event(4500, "spike", "again")
    told = [(event["step"], event["kind"]) for event in old.refresh().events]
    assert told == [(7, "spike"), (4000, "resume"), (4500, "spike")]
    with TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=100) as writer:
        writer.append(100, {})
    assert [event["step"] for event in open_trace(tmp_path / "a").events] == [7, 100]


def test_too_many_remarks_for_a_failing_disk_are_bounded_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("foreshock.traces.committer._MAX_EVENTS", 50)
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.01)
    assert writer.flush()
    (tmp_path / "a").rename(tmp_path / "gone")
    writer.append(0, {})
    assert not writer.flush()
    for step in range(1000):
        writer.event(step, "spike", "x")
    (tmp_path / "gone").rename(tmp_path / "a")
    assert writer.flush()
    writer.close()
    events = open_trace(tmp_path / "a").events
    assert events[0]["kind"] == "gap"
    assert events[0]["text"] == "950 events were dropped while the disk failed"
    assert [event["step"] for event in events[1:]] == list(range(950, 1000))


# Version 1


@pytest.fixture
def version_one(tmp_path):
    norms = write(tmp_path / "old")
    make_version_one(tmp_path / "old")
    return tmp_path / "old", norms


def test_version_one_still_opens(version_one):
    path, norms = version_one
    trace = open_trace(path)
    assert trace.attrs["format_version"] == 1
    np.testing.assert_array_equal(trace["grad_norm"], norms)
    np.testing.assert_array_equal(trace["loss"], np.arange(5000) * 0.5)
    assert [event["step"] for event in trace.events] == [7, 4000]
    assert trace.overview("grad_norm", columns=20).max.max() == norms.max()
    assert trace.to_xarray()["loss"].sel(step=8).item() == 4.0


def test_version_one_is_continued_as_version_two(version_one):
    path, norms = version_one
    with TraceWriter(path, layers=LAYERS, resume_at=3000) as writer:
        writer.extend(np.arange(3000, 9000), {"loss": np.ones(6000)})
    trace = open_trace(path)
    assert trace.attrs["format_version"] == 2
    np.testing.assert_array_equal(trace["grad_norm"][:, :3000], norms[:, :3000])
    assert np.isnan(trace["grad_norm"][:, 3000:]).all()
    assert [(event["step"], event["kind"]) for event in trace.events] == [(7, "spike"), (3000, "resume")]
    np.testing.assert_array_equal(zarr.open_array(path / "scalars", mode="r")[0, 3000:], np.ones(6000))


def test_damaged_remarks_of_version_one_are_corrupt(version_one):
    path, _ = version_one
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["events"] = ["spike"]
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(TraceCorruptError, match="'events'"):
        open_trace(path)


# Rounding and fsync


def rounded_slowly(value, bits):
    """One number, with Python's own rational arithmetic: the nearest multiple of its last kept bit, even in a tie."""
    import math
    from fractions import Fraction

    unit = Fraction(2) ** (math.frexp(value)[1] - 1 - bits)
    return float(round(Fraction(value) / unit) * unit)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32)), st.integers(1, 23))
def test_rounding_is_to_the_nearest_and_keeps_what_is_not_finite(values, bits):
    kept = rounded(values, bits)
    normal = np.isfinite(values) & (abs(values) >= np.finfo(np.float32).tiny) & (abs(values) < 1e38)
    for one, two in zip(values[normal].tolist(), kept[normal].tolist(), strict=True):
        assert two == rounded_slowly(one, bits)
        assert abs(two - one) <= abs(one) * 2.0 ** -(bits + 1)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(kept[~finite], values[~finite])
    assert np.isfinite(kept[finite]).all()


def test_a_rounded_trace_is_smaller_and_tells_its_error(tmp_path):
    norms = write(tmp_path / "a")
    write(tmp_path / "b", rounding_bits=11)
    one, two = open_trace(tmp_path / "a"), open_trace(tmp_path / "b")
    assert two.attrs["rounding_bits"] == 11
    assert (abs(two["grad_norm"] / norms - 1) <= 2.0**-12).all()
    assert not np.array_equal(two["grad_norm"], norms)
    np.testing.assert_array_equal(one["loss"], two["loss"])  # scalars keep every bit
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / name / "grad_norm").rglob("*") if file.is_file())
        for name in "ab"
    ]
    assert sizes[1] < 0.7 * sizes[0]
    with TraceWriter(tmp_path / "b", layers=LAYERS, resume_at=5000) as writer:
        writer.append(5000, {"grad_norm": [1 / 3, np.inf]})
    last = open_trace(tmp_path / "b")["grad_norm"][:, -1]
    assert last.tolist() == [rounded_slowly(np.float32(1 / 3).item(), 11), np.inf]
    with pytest.raises(ValueError, match="rounding_bits is 0"):
        TraceWriter(tmp_path / "c", layers=LAYERS, rounding_bits=0)


def test_fsync_reaches_every_file_and_its_folder_before_the_commit(tmp_path, monkeypatch):
    synced: list[str] = []
    real = os.fsync

    def fsync(fd):
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "a", rows=100)
    assert synced == []
    write(tmp_path / "b", rows=100, fsync=True, background=False)
    root = str(tmp_path / "b")
    assert f"{root}/grad_norm/c/0/0.partial" in synced
    assert f"{root}/grad_norm/c/0" in synced
    commits = [at for at, name in enumerate(synced) if name == f"{root}/zarr.json.partial"]
    assert len(commits) >= 2
    assert all(synced[at + 1] == root for at in commits)  # a document is renamed, and then its folder
    assert len(open_trace(tmp_path / "b")) == 100
