"""What is appended is what is read, through this reader, through zarr and through xarray."""

import json
import threading
import warnings

import numpy as np
import pytest
import xarray
import zarr

from foreshock.traces import GRAD_NORM, Series, TraceWriter, find_runs, open_trace
from foreshock.traces.errors import (
    TraceChangedError,
    TraceExistsError,
    TraceLockedError,
    TraceNotFoundError,
    UnknownSeriesError,
)

LAYERS = ["patch_embed", "blocks.00", "norm"]


def norms(steps) -> np.ndarray:
    return (np.asarray(steps) + np.arange(3)[:, None] / 4).astype(np.float32)


def write(path, steps=range(10), **options):
    with TraceWriter(path, layers=LAYERS, **options) as writer:
        for step in steps:
            writer.append(step, {"grad_norm": norms([step])[:, 0], "loss": 1 / (step + 1)})
    return open_trace(path)


def test_rows_come_back_as_they_went_in(tmp_path):
    trace = write(tmp_path / "a", range(0, 300_000, 100), config={"lr": 0.1}, meta={"total_steps": 9})
    assert len(trace) == 3000
    np.testing.assert_array_equal(trace.steps, np.arange(0, 300_000, 100))
    np.testing.assert_array_equal(trace["grad_norm"], norms(trace.steps))
    np.testing.assert_array_equal(trace["loss"], 1 / (trace.steps + 1))
    assert trace["grad_norm"].dtype == np.float32
    assert trace.layers == tuple(LAYERS)
    assert (trace.series, trace.scalars) == (("grad_norm",), ("loss",))
    assert (trace.config, trace.meta) == ({"lr": 0.1}, {"total_steps": 9})
    assert (trace.status, trace.state, trace.generation, trace.name) == ("finished", "finished", 0, "a")
    assert "loss" in trace
    assert "lr" not in trace


def test_append_and_extend_and_both_threads_write_the_same(tmp_path):
    steps = np.arange(1100)
    with TraceWriter(tmp_path / "b", layers=LAYERS, background=False, flush_rows=7) as writer:
        for part in np.array_split(steps, 11):
            writer.extend(part, {"grad_norm": norms(part), "loss": 1 / (part + 1)})
    one, two = write(tmp_path / "a", steps), open_trace(tmp_path / "b")
    for name in ("step", "grad_norm", "loss"):
        np.testing.assert_array_equal(one[name], two[name])


def test_nan_and_inf_are_data(tmp_path):
    row = np.array([np.nan, np.inf, -np.inf], np.float32)
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        writer.append(0, {"grad_norm": row, "loss": np.inf})
        writer.append(1, {"loss": np.nan})
    trace = open_trace(tmp_path / "a")
    np.testing.assert_array_equal(trace["grad_norm"][:, 0], row)
    np.testing.assert_array_equal(trace["loss"], [np.inf, np.nan])
    assert np.isnan(trace["grad_norm"][:, 1]).all()


def test_a_value_that_changes_after_append_does_not_change_the_row(tmp_path):
    buffer = np.ones(3, np.float32)
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        for step in range(3):
            buffer[:] = step
            writer.append(step, {"grad_norm": buffer})
    np.testing.assert_array_equal(open_trace(tmp_path / "a")["grad_norm"][0], [0, 1, 2])


@pytest.mark.parametrize("names", [1, 40, 100])
def test_new_scalars_begin_in_mid_run(tmp_path, names):
    with TraceWriter(tmp_path / "a", layers=LAYERS, flush_rows=50) as writer:
        writer.extend(np.arange(3000), {})
        writer.flush()
        for step in range(3000, 3100):
            writer.append(step, {f"s{i}": step + i for i in range(names)})
        writer.extend(np.arange(3100, 4200), {"late": np.ones(1100)})
    trace = open_trace(tmp_path / "a")
    assert trace.scalars == (*(f"s{i}" for i in range(names)), "late")
    for i in (0, names - 1):
        series = trace[f"s{i}"]
        assert np.isnan(series[:3000]).all()
        assert np.isnan(series[3100:]).all()
        np.testing.assert_array_equal(series[3000:3100], np.arange(3000, 3100) + i)
    assert trace.overview("late", columns=1).count.tolist() == [1100]


def test_a_second_layer_series_and_scalars_with_units(tmp_path):
    rms = Series("update_rms", ("layer", "step"), dtype="float64", unit="1")
    pace = Series("tokens_per_second", ("step",), unit="tokens/s")
    with TraceWriter(tmp_path / "a", layers=LAYERS, series=[GRAD_NORM, rms, pace]) as writer:
        writer.append(0, {"update_rms": [1e-9, 2e-9, 3e-9], "tokens_per_second": 7, "step_time": 0.25})
    trace = open_trace(tmp_path / "a")
    assert trace.series == ("grad_norm", "update_rms")
    assert trace["update_rms"][:, 0].tolist() == [1e-9, 2e-9, 3e-9]
    assert trace.units == {"grad_norm": "1", "update_rms": "1", "tokens_per_second": "tokens/s", "step_time": "s"}


@pytest.mark.parametrize("step", [3, 2, -1])
def test_steps_must_increase(tmp_path, step):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        writer.append(3, {})
        with pytest.raises(ValueError, match=f"step {step} was given after step 3"):
            writer.append(step, {})
        with pytest.raises(ValueError, match="step 5 was given after step 5"):
            writer.extend(np.array([4, 5, 5]), {})
        writer.append(4, {})
    assert open_trace(tmp_path / "a").steps.tolist() == [3, 4]


@pytest.mark.parametrize(
    "values",
    [
        {"loss": 1.0, "grad_norm": np.ones(4)},
        {"loss": 1.0, "grad_norm": 1.0},
        {"loss": 1.0, "lr": [1.0, 2.0]},
        {"loss": 1.0, "lr": None},
        {"loss": 1.0, "lr": "fast"},
        {"loss": 1.0, "": 1.0},
    ],
)
def test_a_row_that_does_not_fit_is_refused_whole(tmp_path, values):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        with pytest.raises(ValueError, match=r"takes|name of a scalar"):
            writer.append(0, values)
        writer.append(0, {"lr": 0.5})
    trace = open_trace(tmp_path / "a")
    assert trace["lr"].tolist() == [0.5]
    assert "loss" not in trace or np.isnan(trace["loss"]).all()
    assert np.isnan(trace["grad_norm"]).all()


def test_a_name_that_changes_at_each_step_is_refused_in_the_end(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS, background=False) as writer:
        writer.append(0, {f"loss_{i}": 1.0 for i in range(4096)})
        with pytest.raises(ValueError, match="names that don't change"):
            writer.append(1, {"loss_4096": 1.0})


def test_flush_shows_everything_so_far(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=1000)
    trace = open_trace(tmp_path / "a")
    assert (len(trace), trace.state) == (0, "running")
    assert trace["grad_norm"].shape == (3, 0)
    for step in range(5):
        writer.append(step, {"loss": step})
        assert writer.flush()
        assert len(trace.refresh()) == step + 1
    assert len(trace) == 0  # a snapshot doesn't grow
    writer.close()


def test_rows_appear_by_themselves_after_flush_seconds(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=0.02) as writer:
        writer.append(0, {"loss": 1.0})
        rows = next(iter(open_trace(tmp_path / "a").follow(poll=0.01, timeout=20)))
    assert rows.steps.tolist() == [0]


def test_events_and_meta_are_committed_without_rows(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS, flush_seconds=1000) as writer:
        writer.event(3, "spike", "patch_embed, 6.9x")
        writer.update_meta(warmup_steps=np.int64(40))
        writer.flush()
        trace = open_trace(tmp_path / "a")
        assert trace.events == [{"step": 3, "kind": "spike", "text": "patch_embed, 6.9x"}]
        assert trace.meta == {"warmup_steps": 40}


def test_an_exception_closes_as_failed_and_passes_on(tmp_path):
    def train():
        with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
            writer.append(0, {"loss": 1.0})
            raise RuntimeError("boom\nand more")

    with pytest.raises(RuntimeError, match="boom"):
        train()
    trace = open_trace(tmp_path / "a")
    assert (trace.status, trace.message, len(trace)) == ("failed", "RuntimeError: boom", 1)


def test_a_closed_writer_refuses_rows_and_closes_twice(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS)
    writer.close()
    writer.close()
    for use in (lambda: writer.append(0, {}), lambda: writer.event(0, "a", "b"), writer.flush):
        with pytest.raises(ValueError, match="it is closed"):
            use()


def test_an_existing_trace_is_kept_unless_asked(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(TraceExistsError, match="resume_at=step"):
        TraceWriter(tmp_path / "a", layers=LAYERS)
    with pytest.raises(ValueError, match="choose one"):
        TraceWriter(tmp_path / "a", layers=LAYERS, overwrite=True, resume_at=3)
    assert len(open_trace(tmp_path / "a")) == 10


def test_overwrite_replaces_the_trace_and_nothing_else(tmp_path):
    old = write(tmp_path / "a", range(2000))
    (tmp_path / "a" / "checkpoint.pt").write_text("precious")
    zarr.create_group(tmp_path / "a" / "embeddings")
    new = write(tmp_path / "a", range(5), overwrite=True)
    assert len(new) == 5
    assert new.generation == 1
    assert (tmp_path / "a" / "checkpoint.pt").read_text() == "precious"
    assert (tmp_path / "a" / "embeddings" / "zarr.json").exists()
    assert not (tmp_path / "a" / "grad_norm" / "c" / "0" / "1").exists()
    with pytest.raises(TraceChangedError, match="refresh"):
        old.read("grad_norm", stop=3)
    assert len(old.refresh()) == 5


def test_a_refresh_without_a_commit_is_the_same_trace(tmp_path):
    with TraceWriter(tmp_path / "a", layers=LAYERS) as writer:
        writer.extend(range(5), {"grad_norm": norms(range(5))})
        writer.flush()
        trace = open_trace(tmp_path / "a")
        assert trace.refresh() is trace
        writer.extend(range(5, 8), {"grad_norm": norms(range(5, 8))})
        writer.flush()
        later = trace.refresh()
        assert (len(trace), len(later), trace.steps.tolist()) == (5, 8, list(range(5)))
    assert (later.status, later.refresh().status) == ("running", "finished")


@pytest.mark.parametrize("at", [0, 1, 700, 1024, 1500, 2500, 9999])
def test_resume_drops_the_rows_from_there_on(tmp_path, at):
    old = write(tmp_path / "a", range(2500), config={"lr": 1}, meta={"a": 1})
    with TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=at, meta={"b": 2}) as writer:
        kept = min(at, 2500)
        assert len(old.refresh()) == kept
        steps = np.arange(at, at + 1500)
        writer.extend(steps, {"grad_norm": -norms(steps)})
    trace = open_trace(tmp_path / "a")
    np.testing.assert_array_equal(trace.steps, [*range(kept), *steps])
    np.testing.assert_array_equal(trace["grad_norm"][:, :kept], norms(range(kept)))
    np.testing.assert_array_equal(trace["grad_norm"][:, kept:], -norms(steps))
    assert np.isnan(trace["loss"][kept:]).all()
    assert trace.generation == (1 if at < 2500 else 0)
    assert (trace.config, trace.meta) == ({"lr": 1}, {"a": 1, "b": 2})
    assert [event["kind"] for event in trace.events] == ["resume"]
    if at < 2500:
        with pytest.raises(TraceChangedError):
            old.read("grad_norm")


def test_resume_removes_chunks_that_no_commit_has_claimed(tmp_path):
    """A writer may be killed after it wrote chunks for new scalars, and before the commit that names them."""
    write(tmp_path / "a", range(1500))
    with TraceWriter(tmp_path / "b", layers=LAYERS) as writer:
        writer.extend(np.arange(1500), {f"s{i}": np.ones(1500) for i in range(40)})
    (tmp_path / "a" / "scalars" / "c" / "1").mkdir()
    left = tmp_path / "a" / "scalars" / "c" / "1" / "0"
    left.write_bytes((tmp_path / "b" / "scalars" / "c" / "1" / "0").read_bytes())
    with TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=1500) as writer:
        assert not left.exists()
        writer.append(1500, {f"s{i}": 2.0 for i in range(40)})
    assert np.isnan(open_trace(tmp_path / "a")["s39"][:1500]).all()


def test_resume_refuses_other_layers_and_a_trace_that_is_not_there(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(ValueError, match=r"other layers.*'head'"):
        TraceWriter(tmp_path / "a", layers=["patch_embed", "blocks.00", "head"], resume_at=3)
    with pytest.raises(TraceNotFoundError, match="no trace"):
        TraceWriter(tmp_path / "b", layers=LAYERS, resume_at=3)
    assert not (tmp_path / "b").exists()
    assert len(open_trace(tmp_path / "a")) == 10


def test_one_writer_at_a_time(tmp_path):
    writer = TraceWriter(tmp_path / "a", layers=LAYERS)
    with pytest.raises(TraceLockedError, match="close it first"):
        TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=0)
    writer.close()
    TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=0).close()


def test_reading_ranges_and_steps(tmp_path):
    trace = write(tmp_path / "a", range(0, 1000, 10))
    np.testing.assert_array_equal(trace.read("grad_norm", start=5, stop=8), norms([50, 60, 70]))
    np.testing.assert_array_equal(trace.read("grad_norm", start=-2, layer="norm"), norms([980, 990])[2])
    assert trace.read("loss", start=8, stop=3).shape == (0,)
    assert trace.rows(15, 40) == slice(2, 5)
    assert trace.rows() == slice(0, 100)
    rows = trace.since(970)
    assert rows.steps.tolist() == [980, 990]
    np.testing.assert_array_equal(rows.values["grad_norm"], norms([980, 990]))
    assert set(rows.values) == {"grad_norm", "loss"}
    assert len(trace.since(None)) == 100
    assert len(trace.since(990)) == 0


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    trace = write(tmp_path / "a")
    with pytest.raises(UnknownSeriesError, match=r"did you mean 'grad_norm'.*grad_norm, loss"):
        trace["grad_nrm"]
    with pytest.raises(UnknownSeriesError, match=r"layer 'head'.*patch_embed, blocks.00, norm"):
        trace.read("grad_norm", layer="head")
    with pytest.raises(UnknownSeriesError):
        trace.overview("nothing")


def test_follow_sees_every_row_once_and_a_restart_as_a_new_generation(tmp_path):
    write(tmp_path / "a", range(40))
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=40, flush_rows=8)
    seen: list[tuple[int, list[int]]] = []

    def read():
        for rows in open_trace(tmp_path / "a").follow(poll=0.002, timeout=20):
            seen.append((rows.generation, rows.steps.tolist()))

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(40, 400):
        writer.append(step, {"loss": 1.0})
    writer.flush()
    while sum(len(steps) for _, steps in seen) < 400:
        reader.join(0.005)
    writer.close("failed")
    reader.join()
    assert [step for _, steps in seen for step in steps] == list(range(400))

    seen.clear()
    writer = TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=100)
    reader = threading.Thread(target=read)
    reader.start()
    while not seen:
        reader.join(0.005)
    writer.close()
    with TraceWriter(tmp_path / "a", layers=LAYERS, resume_at=50) as writer:
        writer.append(50, {})
        writer.flush()
    reader.join()
    last = [step for generation, steps in seen if generation == 2 for step in steps]
    assert last in (list(range(51)), [])  # the reader may have seen the end of the run before it was resumed


def test_zarr_and_xarray_read_it_without_a_warning(tmp_path):
    trace = write(tmp_path / "a", range(2500))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xarray.open_zarr(tmp_path / "a")
        group = zarr.open_group(tmp_path / "a", mode="r")
        plain = dict(zarr.open_group(tmp_path / "a", mode="r", use_consolidated=False).members())
        dataset = trace.to_xarray()
    assert opened["grad_norm"].dims == ("layer", "step")
    np.testing.assert_array_equal(opened["grad_norm"].sel(step=[3, 2400]), norms([3, 2400]))
    np.testing.assert_array_equal(group["grad_norm"][:], norms(range(2500)))  # type: ignore[index]
    assert group["overview/256/grad_norm"].shape == (4, 3, 9)  # type: ignore[union-attr]
    assert set(plain) == {"grad_norm", "scalars", "step", "events", "overview"}
    np.testing.assert_array_equal(dataset["grad_norm"].sel(layer="norm", step=7), norms([7])[2, 0])
    assert dataset["loss"].sel(step=9).item() == 0.1
    assert list(dataset.variables) == ["grad_norm", "step", "layer", "loss"]
    assert dataset["loss"].attrs["units"] == "1"


def test_the_documents_are_those_that_zarr_itself_would_write(tmp_path):
    write(tmp_path / "a")
    ours = json.loads((tmp_path / "a" / "zarr.json").read_text())["consolidated_metadata"]["metadata"]["grad_norm"]
    zarr.create_array(
        tmp_path / "b",
        shape=(3, 10),
        chunks=(3, 1024),
        dtype="float32",
        fill_value=np.nan,
        compressors=[
            zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=4),
            zarr.codecs.Crc32cCodec(),
        ],
        dimension_names=("layer", "step"),
    )
    theirs = json.loads((tmp_path / "b" / "zarr.json").read_text())
    assert {key: value for key, value in theirs.items() if key != "storage_transformers"} == {
        key: value for key, value in ours.items() if key != "storage_transformers"
    }


def test_a_trace_is_read_through_a_url(tmp_path):
    write(tmp_path / "a")
    trace = open_trace((tmp_path / "a").as_uri())
    np.testing.assert_array_equal(trace["grad_norm"], norms(range(10)))
    with pytest.raises(TraceNotFoundError):
        open_trace((tmp_path / "b").as_uri())


def test_find_runs_goes_three_deep_newest_first_and_follows_no_link(tmp_path):
    root = tmp_path / "runs"
    for name in ("x/y/old", "new", "too/deep/for/this"):
        write(root / name)
    write(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "other.zarr").mkdir()
    zarr.create_group(root / "other.zarr", overwrite=True)
    (root / "damaged").mkdir()
    (root / "damaged" / "zarr.json").write_text('{"attributes": {"format": "foreshock-trace"')
    assert [str(path.relative_to(root)) for path in find_runs(root)] == ["new", "x/y/old", "damaged"]
    assert find_runs(root / "new") == [root / "new"]
    assert find_runs(root / "nowhere") == []


def test_a_frame_holds_every_column_by_step(tmp_path):
    trace = write(tmp_path / "a", range(0, 1000, 10))
    frame = trace.to_frame(start=5, stop=8)
    assert list(frame.columns) == ["loss", "grad_norm/patch_embed", "grad_norm/blocks.00", "grad_norm/norm"]
    assert frame.index.name == "step"
    assert frame.index.tolist() == [50, 60, 70]
    np.testing.assert_array_equal(frame["grad_norm/norm"], norms([50, 60, 70])[2])
    assert frame["grad_norm/norm"].dtype == np.float32
    np.testing.assert_array_equal(trace.to_frame("grad_norm")["norm"], trace["grad_norm"][2])
    assert list(trace.to_frame("loss").columns) == ["loss"]
    with pytest.raises(UnknownSeriesError):
        trace.to_frame("nothing")
