"""A sound trace has no problems; every kind of damage is one, at its place."""

import json

import numpy as np
import pytest
import zarr
from version_one import make_version_one

from foreshock.cli.__main__ import main
from foreshock.traces import GRAD_NORM, Series, TraceWriter, open_trace
from foreshock.traces.errors import TraceNotFoundError
from foreshock.traces.verify import verify

LAYERS = ["patch_embed", "norm"]


@pytest.fixture
def path(tmp_path):
    rms = Series("update_rms", ("layer", "step"), dtype="float64")
    rng = np.random.default_rng(0)
    norms = rng.lognormal(size=(2, 40_000)).astype(np.float32)
    norms[0, 5], norms[1, 7], norms[:, 100:200] = np.inf, np.nan, np.nan
    with TraceWriter(tmp_path / "a", layers=LAYERS, series=[GRAD_NORM, rms], flush_rows=700) as writer:
        writer.extend(np.arange(20_000), {"grad_norm": norms[:, :20_000], "loss": rng.normal(size=20_000)})
        writer.event(3, "spike", "é")
        late = {f"s{i}": rng.normal(size=20_000) for i in range(40)}
        writer.extend(
            np.arange(20_000, 40_000), {"grad_norm": norms[:, 20_000:], "update_rms": norms[:, 20_000:], **late}
        )
    return tmp_path / "a"


def problems(path):
    return [str(problem) for problem in verify(path)]


def test_a_sound_trace_has_no_problems(path):
    assert problems(path) == []


def test_traces_that_were_resumed_rounded_empty_or_old_are_sound(path, tmp_path):
    series = [Series(name, ("layer", "step"), dtype=kind) for name, kind in open_kinds(path).items()]
    with TraceWriter(path, layers=LAYERS, series=series, resume_at=17_123) as writer:
        writer.extend(np.arange(17_123, 30_000), {"grad_norm": np.ones((2, 12_877)), "s3": np.ones(12_877)})
    assert problems(path) == []
    make_version_one(path)
    assert problems(path) == []
    with TraceWriter(tmp_path / "b", layers=LAYERS, rounding_bits=11) as writer:
        writer.extend(np.arange(9000), {"grad_norm": np.random.default_rng(0).lognormal(size=(2, 9000))})
    TraceWriter(tmp_path / "c", layers=LAYERS).close()
    assert problems(tmp_path / "b") == problems(tmp_path / "c") == []


def open_kinds(path):
    trace = open_trace(path)
    return {name: str(trace[name].dtype) for name in trace.series}


def test_a_run_that_is_being_written_is_sound(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        for step in range(3000):
            writer.append(step, {"loss": 1.0})
            if step % 1000 == 500:
                writer.flush()
                assert problems(tmp_path / "a") == []


CHUNKS = {
    "grad_norm/c/0/3": "grad_norm[3072:4096]",
    "scalars/c/1/6": "scalars[24576:28672]",
    "step/c/1": "step[16384:32768]",
    "overview/16/grad_norm/c/0/0/2": "overview/16/grad_norm[512:768]",
    "events/c/0": "events[0:65536]",
}


@pytest.mark.parametrize("key", CHUNKS)
def test_a_damaged_chunk_is_named(path, key):
    file = path / key
    data = bytearray(file.read_bytes())
    data[-7] ^= 1
    file.write_bytes(data)
    (told,) = problems(path)
    assert told.startswith(f"{key}: the chunk {key} doesn't match its checksum")
    assert CHUNKS[key] in told
    file.write_bytes(data[:50])
    assert problems(path)[0].startswith(f"{key}: ")
    if not key.startswith("scalars/c/1"):  # a missing chunk of late scalars is one of NaN
        file.unlink()
        (told,) = problems(path)
        assert "is missing" in told


def test_two_damaged_chunks_are_two_problems(path):
    for key in ("grad_norm/c/0/3", "grad_norm/c/0/5"):
        (path / key).write_bytes(b"nothing at all, but long enough for a header")
    assert [told.split(":")[0] for told in problems(path)] == ["grad_norm/c/0/3", "grad_norm/c/0/5"]


def test_values_that_contradict_the_pyramid_are_named(path):
    array = zarr.open_array(path / "grad_norm", mode="r+")
    array[1, 20_003] = 1e6
    told = problems(path)
    cell = 20_003 // 16
    assert told[0].startswith(f"overview/16/grad_norm[max, 1, {cell}]: the max of norm is ")
    assert "and its rows say 1e+06; 1 cells of this block differ" in told[0]
    assert {text.split("[")[0] for text in told} == {f"overview/{level}/grad_norm" for level in (16, 256, 4096)}


@pytest.mark.parametrize(("statistic", "index"), [("min", 0), ("max", 1), ("mean", 2), ("count", 3)])
def test_a_wrong_cell_is_named(path, statistic, index):
    array = zarr.open_array(path / "overview" / "256" / "scalars", mode="r+")
    array[index, 0, 9] = array[index, 0, 9] + 1e-3
    (told,) = problems(path)
    assert told.startswith(f"overview/256/scalars[{statistic}, 0, 9]: the {statistic} of loss is")


def test_steps_that_do_not_increase_are_named(path):
    array = zarr.open_array(path / "step", mode="r+")
    array[16_384] = 5
    assert problems(path) == ["step[16384]: step 5 follows step 16383; steps must increase"]


def edit(path, change):
    document = json.loads((path / "zarr.json").read_text())
    change(document["attributes"], document["consolidated_metadata"]["metadata"])
    (path / "zarr.json").write_text(json.dumps(document))


EDITS = {
    "units": (lambda a, m: a["units"].pop("update_rms"), "attribute 'units' of update_rms: a layer series has no unit"),
    "rounding": (lambda a, m: a.update(rounding_bits=99), "attribute 'rounding_bits': is 99"),
    "dims": (lambda a, m: m["overview/16/scalars"].update(dimension_names=["a", "b", "c"]), "its dimension_names is"),
    "chunks": (
        lambda a, m: m["step"].update(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [40_000]}}),
        "step: its chunk_grid is",
    ),
    "fill": (lambda a, m: m["grad_norm"].update(fill_value=0.0), "grad_norm: its fill_value is 0.0, not"),
    "shape": (lambda a, m: m["step"].update(shape=[3]), "zarr.json: the array step has shape [3], not [40000]"),
    "status": (lambda a, m: a.update(status="asleep"), "zarr.json: the attribute 'status' is 'asleep'"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_root_document_against_the_format_is_named(path, name):
    change, expected = EDITS[name]
    edit(path, change)
    assert any(expected in told for told in problems(path)), problems(path)


def test_an_array_document_of_its_own_is_checked(path):
    own = path / "grad_norm" / "zarr.json"
    text = own.read_text()
    own.write_text(text.replace("40000", "39000"))
    assert problems(path) == ["grad_norm/zarr.json: differs from the root's record in shape, and the run has ended"]
    edit(path, lambda a, m: a.update(status="running"))
    assert problems(path) == []  # it may lag behind while a run is written
    own.write_text("{")
    assert problems(path) == ["grad_norm/zarr.json: is no array's document"]
    own.unlink()
    assert problems(path) == ["grad_norm/zarr.json: is missing"]


def test_remarks_that_are_none_are_named(path):
    array = zarr.open_array(path / "events", mode="r+")
    array[2] = ord("?")
    assert problems(path)[0].startswith("events: ")


def test_the_command_tells_and_its_exit_code_too(path, capsys):
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: no problems\n"
    (path / "grad_norm" / "c" / "0" / "3").unlink()
    assert main(["verify", str(path)]) == 1
    assert "1 problem\n  grad_norm/c/0/3: " in capsys.readouterr().out
    assert main(["verify", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"]
    assert told["problems"][str(path)][0]["place"] == "grad_norm/c/0/3"
    assert main(["verify", str(path / "nowhere")]) == 2
    assert "there is no trace at" in capsys.readouterr().err
    with pytest.raises(TraceNotFoundError):
        verify(path / "nowhere")
