"""Windows of the flight recorder in a trace: committed whole, cut by a resumed run, checked, no bother without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.errors import TraceChangedError, TraceCorruptError
from foreshock.traces.flights import FlightSpike, kept_before
from foreshock.traces.verify import verify

LAYERS = ["patch_embed", "norm"]
PARAMETERS = {"proj.weight": "patch_embed", "proj.bias": "patch_embed", "norm.weight": "norm"}


def spike(start: int, end: int, ratio: float = 8.0) -> FlightSpike:
    return FlightSpike("norm", start, start, start, end, ratio, "spike")


def window(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    steps = np.arange(first, last + 1)
    return steps, np.stack([steps, steps / 2, np.full(len(steps), np.nan)]).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with TraceWriter(tmp_path / "a", layers=LAYERS, parameters=PARAMETERS) as writer:
        writer.extend(np.arange(2000), {"grad_norm": np.ones((2, 2000))})
        writer.add_flight(*window(100, 299), spikes=[spike(228, 230)])
        assert writer.flush()
        writer.add_flight(*window(300, 399), spikes=[spike(228, 240, np.inf)], spike_count=9, cut=True, extend=True)
        writer.add_flight(*window(1500, 1999), cause="error")
    return tmp_path / "a"


def told(path: Path) -> list[tuple[int, int, int]]:
    return [(f.first_step, f.last_step, len(f)) for f in open_trace(path).flights]


def test_what_was_written_is_read(path: Path) -> None:
    first, second = open_trace(path).flights
    assert (first.cause, first.cut, first.spike_count, second.cause, second.spikes) == ("spike", True, 9, "error", ())
    assert first.spikes == (spike(228, 240, np.inf),)
    assert (first.parameters, first.layers) == (tuple(PARAMETERS), tuple(PARAMETERS.values()))
    for found, (steps, norms) in zip((first, second), (window(100, 399), window(1500, 1999)), strict=True):
        np.testing.assert_array_equal(found.steps, steps)
        np.testing.assert_array_equal(found.grad_norm, norms)
    assert verify(path) == []
    assert open_trace(path).series == ("grad_norm",)


def test_any_zarr_reader_finds_it(path: Path) -> None:
    array: Any = zarr.open_group(path, mode="r")["flight/grad_norm"]
    assert array.shape == (3, 800)
    assert array.metadata.dimension_names == ("parameter", "flight_row")
    assert array.attrs["parameters"] == list(PARAMETERS)
    assert open_trace(path).to_xarray().sizes["step"] == 2000


def test_an_object_store(path: Path) -> None:
    import fsspec

    root = "memory://flights/a"
    with TraceWriter(root, layers=LAYERS, parameters=PARAMETERS) as writer:
        writer.add_flight(*window(100, 399))
    with TraceWriter(root, layers=LAYERS, parameters=PARAMETERS, resume_at=250) as writer:
        writer.add_flight(*window(260, 300))
    assert [(f.first_step, f.last_step) for f in open_trace(root).flights] == [(100, 249), (260, 300)]
    assert verify(root) == []
    TraceWriter(root, layers=LAYERS, overwrite=True).close()
    assert open_trace(root).flights == ()
    assert not [key for key in fsspec.filesystem("memory").find("/flights/a") if "/flight/" in key]


def test_without_one_the_trace_is_what_it_was(path: Path, tmp_path: Path) -> None:
    rows = {"grad_norm": np.ones((2, 2000))}
    with TraceWriter(tmp_path / "b", layers=LAYERS) as writer:
        writer.extend(np.arange(2000), rows)
        with pytest.raises(ValueError, match="has no flight recorder: give the writer parameters="):
            writer.add_flight(*window(0, 3))
    assert "flight" not in (tmp_path / "b" / "zarr.json").read_text()
    without = {f.relative_to(tmp_path / "b") for f in (tmp_path / "b").rglob("*")}
    extra = {f.relative_to(path).parts[0] for f in path.rglob("*")} - {f.parts[0] for f in without}
    assert extra == {"flight"}
    for name in without - {Path("zarr.json"), Path("step/writer.lock")}:
        assert (tmp_path / "b" / name).is_dir() or (tmp_path / "b" / name).read_bytes() == (path / name).read_bytes()


def test_resumed_with_and_without(path: Path) -> None:
    old = open_trace(path)
    TraceWriter(path, layers=LAYERS, resume_at=1700).close()  # by a run that has none: what was there stays
    assert told(path) == [(100, 399, 300), (1500, 1699, 200)]
    with pytest.raises(TraceChangedError):
        _ = old.flights[1].grad_norm
    assert verify(path) == []
    with TraceWriter(path, layers=LAYERS, parameters=PARAMETERS, resume_at=235) as writer:
        assert len(writer.flight_windows) == 1
        with pytest.raises(ValueError, match="the steps 200 to 300 after step 234; they must increase"):
            writer.add_flight(*window(200, 300))
        writer.add_flight(*window(240, 260))
    assert told(path) == [(100, 234, 135), (240, 260, 21)]
    assert open_trace(path).flights[0].spikes == (spike(228, 234, np.inf),)
    assert verify(path) == []
    with pytest.raises(ValueError, match="can't be resumed with other parameters"):
        TraceWriter(path, layers=LAYERS, parameters={"w": "norm"}, resume_at=235)
    TraceWriter(path, layers=LAYERS, resume_at=228).close()  # before its spike: no window
    assert told(path) == []
    assert verify(path) == []


def test_a_trace_without_begins_one_when_it_is_resumed(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "a", layers=LAYERS).close()
    with TraceWriter(tmp_path / "a", layers=LAYERS, parameters=PARAMETERS, resume_at=0) as writer:
        writer.add_flight(*window(5, 9))
    assert told(tmp_path / "a") == [(5, 9, 5)]
    assert verify(tmp_path / "a") == []


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=6), step=st.integers(-5, 250), data=st.data())
def test_what_is_kept_of_windows(lengths: list[int], step: int, data: st.DataObject) -> None:
    windows, steps, at = [], [], 0
    for length in lengths:
        at += data.draw(st.integers(0, 20))
        own = list(range(at, at + length))
        start = data.draw(st.sampled_from([*own, None]))
        spikes = [] if start is None else [{"start": start, "onset": start, "peak": start, "end": own[-1]}]
        windows.append({"rows": length, "last_step": own[-1], "spikes": spikes, "spike_count": len(spikes)})
        steps, at = steps + own, at + length
    kept = kept_before(windows, np.array(steps, np.int64), step)
    left = steps[: sum(window["rows"] for window in kept)]
    assert all(s < step for s in left)
    assert [window["last_step"] for window in kept] == [
        left[sum(w["rows"] for w in kept[: i + 1]) - 1] for i in range(len(kept))
    ]
    assert all(spike["end"] < step for window in kept for spike in window["spikes"])
    lost = [window for window in windows[len(kept) :] if window["last_step"] < step]
    assert not lost  # a window that is over is kept


def edit(path: Path, name: str, change: Any) -> None:
    document = json.loads((path / "zarr.json").read_text())
    change(document["consolidated_metadata"]["metadata"][f"flight/{name}"]["attributes"])
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("step", lambda a: a.pop("windows")),
        ("step", lambda a: a["windows"][0].update(rows=True)),
        ("step", lambda a: a["windows"][0].update(cause="luck")),
        ("step", lambda a: a["windows"][0].update(cut=None)),
        ("step", lambda a: a["windows"][0]["spikes"][0].update(ratio="much")),
        ("step", lambda a: a["windows"][0]["spikes"][0].pop("end")),
        ("grad_norm", lambda a: a.update(parameters=["w", "w", "v"])),
        ("grad_norm", lambda a: a.update(layers=[0, 1, 2])),
    ],
)
def test_metadata_that_is_not_the_formats_is_damage(path: Path, name: str, change: Any) -> None:
    edit(path, name, change)
    with pytest.raises(TraceCorruptError, match="the attributes of flight/step and flight/grad_norm are not those of"):
        open_trace(path)
    assert [problem.place for problem in verify(path)] == ["zarr.json"]


def test_windows_that_do_not_add_up_are_damage(path: Path) -> None:
    edit(path, "step", lambda a: a["windows"].pop())
    with pytest.raises(TraceCorruptError, match=r"the array flight/step has shape \[800\], not \[300\]"):
        open_trace(path)


def test_verify_names_what_is_wrong_in_a_window(path: Path) -> None:
    edit(path, "step", lambda a: a["windows"][1].update(first_step=1400))
    zarr.open_array(path / "flight" / "grad_norm", mode="r+")[1, 20] = -1.0
    zarr.open_array(path / "flight" / "step", mode="r+")[20] = 119
    problems = [str(problem) for problem in verify(path) if "zarr.json" not in problem.place]
    assert problems == [
        "window 0 of flight/step: its steps don't increase",
        "window 0 of flight/grad_norm: holds a norm below 0",
        "window 1 of flight/step: claims the steps 1400 to 1999, and has 1500 to 1999",
    ]
    chunk = path / "flight" / "grad_norm" / "c" / "0" / "2"
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    assert any(problem.place == "flight/grad_norm/c/0/2" for problem in verify(path))
    assert len(open_trace(path).flights[0].grad_norm[0]) == 300  # the rest stays readable


def test_rows_of_another_shape_are_refused(path: Path) -> None:
    with TraceWriter(path, layers=LAYERS, parameters=PARAMETERS, resume_at=2000) as writer:
        with pytest.raises(ValueError, match=r"a flight has steps of shape \(3,\) and norms of shape \(2, 3\); give"):
            writer.add_flight(np.arange(2000, 2003), np.ones((2, 3)))
        with pytest.raises(ValueError, match="they must increase"):
            writer.add_flight(np.array([2000, 2000]), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"of the layers \['head'\] that the trace lacks; give"):
        TraceWriter(path, layers=LAYERS, parameters={"w": "head"}, overwrite=True)
    assert told(path) == [(100, 399, 300), (1500, 1999, 500)]  # and nothing was lost over it
