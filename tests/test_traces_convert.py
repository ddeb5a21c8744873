"""What another tool logged is what the trace holds, digit by digit, and damage is named with its place."""

import csv
import json
import math
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wandb_file import config, history, write_wandb

from foreshock.cli.__main__ import main
from foreshock.probes import find_dips, find_spikes
from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.convert import Mapping, convert, formats
from foreshock.traces.convert._wire import double, fields, fixed32, integer, message
from foreshock.traces.errors import SourceFormatError

RUNS = [
    "agndm_1_epoch", "agndm_no_warmup", "ap_adamg_s1_wmt_pytorch_t1", "ap_baseline_s1_wmt_jax_t2",
    "ap_baseline_s4_wmt_jax_t3", "ap_nadamp_s2_imagenet_resnet_jax_t5", "ap_sinv6_75_s4_imagenet_resnet_jax_t1",
    "hector_llmc_124M", "hector_llmc_750", "hector_llmc_nan", "openpi_finetune",
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_every_real_run_converts_and_opens(shared_dir, tmp_path, run):
    source = shared_dir / "real-runs" / f"{run}.csv"
    convert(source, tmp_path / run, mapping=Mapping(rename={"validation/accuracy": "knn_accuracy"}))
    trace = open_trace(tmp_path / run)
    with source.open() as file:  # the slow twin: cell by cell
        rows = list(csv.DictReader(file))
    assert trace.steps.tolist() == [int(row["step"]) for row in rows]
    assert trace.layers == ("model",)
    cells = [float(row["grad_norm"] or "nan") for row in rows]
    for value, cell in zip(trace["grad_norm"][0], cells, strict=True):
        assert value == cell or float(str(value)) == cell or (math.isnan(value) and math.isnan(cell))
    np.testing.assert_array_equal(trace["loss"], [float(row["loss"] or "nan") for row in rows])
    assert isinstance(find_spikes(trace), list)
    if "knn_accuracy" in trace:
        assert isinstance(find_dips(trace), list)


def test_spikes_of_a_converted_run_are_those_of_the_file(shared_dir, tmp_path, capsys):
    source = shared_dir / "real-runs" / "hector_llmc_124M.csv"
    assert main(["convert", str(source), str(tmp_path / "run")]) == 0
    assert "19,559 steps, 1 layer of grad_norm" in capsys.readouterr().out
    assert main(["spikes", str(tmp_path / "run"), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["spikes"]
    with source.open() as file:
        logged = [(int(row["step"]), float(row["grad_norm"])) for row in csv.DictReader(file)]
    two = find_spikes([v for _, v in logged], steps=[s for s, _ in logged])
    assert [(s["onset"], s["end"]) for s in one] == [(s.onset, s.end) for s in two]
    assert len(one) > 10


def test_the_dashboard_opens_a_converted_run(shared_dir, tmp_path):
    from foreshock.dashboard.report import write_report

    convert(shared_dir / "real-runs" / "ap_baseline_s1_wmt_jax_t2.csv", tmp_path / "run")
    page = write_report(open_trace(tmp_path / "run"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "model" in page


# Round trips


def a_trace(path, rows=40_000):
    """A run of two layers and three scalars with every kind of value, longer than a block."""
    rng = np.random.default_rng(3)
    norms = rng.lognormal(size=(2, rows)).astype(np.float32)
    norms[0, 7], norms[1, 9], norms[:, 11] = np.inf, np.nan, np.nan
    loss = rng.normal(size=rows)
    loss[[3, 5]] = np.inf, -np.inf
    accuracy = np.where(np.arange(rows) % 100 == 0, 0.1, np.nan)
    with TraceWriter(path, layers=["patch_embed", "blocks.00/attn"], config={"lr": 0.5}) as writer:
        writer.extend(np.arange(rows) * 3, {"grad_norm": norms, "loss": loss, "val/knn": accuracy})
    return open_trace(path)


def same(one, two, names):
    np.testing.assert_array_equal(one.steps, two.steps)
    assert one.layers == two.layers
    for name in names:
        np.testing.assert_array_equal(one[name], two[name])
        assert one[name].dtype == two[name].dtype


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_run_comes_back_as_it_left(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    trace = a_trace(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / f"out{suffix}")
    convert(tmp_path / f"out{suffix}", tmp_path / "b")
    same(trace, open_trace(tmp_path / "b"), ["grad_norm", "loss", "val/knn"])
    assert not list(tmp_path.glob(".*"))  # no half-written file stays


def test_tensorboard_comes_back_in_its_own_precision(tmp_path):
    trace = a_trace(tmp_path / "a", rows=3000)
    convert(tmp_path / "a", tmp_path / "tb", target_format="tensorboard")
    convert(tmp_path / "tb", tmp_path / "b")
    back = open_trace(tmp_path / "b")
    rows = [row for row in range(3000) if row != 11 or np.isfinite(trace["loss"][row])]
    np.testing.assert_array_equal(back.steps, trace.steps[rows])
    np.testing.assert_array_equal(back["grad_norm"], trace["grad_norm"][:, rows])
    np.testing.assert_array_equal(back["loss"], trace["loss"].astype(np.float32))


def test_tensorboard_itself_reads_the_export(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trace = a_trace(tmp_path / "a", rows=200)
    convert(tmp_path / "a", tmp_path / "tb", target_format="tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0})
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("grad_norm/blocks.00/attn")}
    expected = {int(s): float(v) for s, v in zip(trace.steps, trace["grad_norm"][1], strict=True) if v == v}
    assert told == expected


def test_netcdf_holds_names_units_and_values(tmp_path):
    pytest.importorskip("h5netcdf")
    import xarray

    trace = a_trace(tmp_path / "a", rows=100)
    convert(tmp_path / "a", tmp_path / "a.nc")
    with xarray.open_dataset(tmp_path / "a.nc") as stored:
        np.testing.assert_array_equal(stored["grad_norm"].sel(layer="patch_embed"), trace["grad_norm"][0])
        assert stored["val.knn"].attrs["long_name"] == "val/knn"
        assert stored["loss"].attrs["units"] == "1"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-5, 30), st.sampled_from(["loss", "lr"]), st.floats(width=64)),
        min_size=1,
        max_size=40,
    )
)
def test_any_order_of_lines_is_the_last_value_of_each_step(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("any")
    text = "\n".join(json.dumps({"step": step, name: value}) for step, name, value in lines)
    (folder / "a.jsonl").write_text(text)
    done = convert(folder / "a.jsonl", folder / "run")
    trace = open_trace(folder / "run")
    expected = {(step, name): value for step, name, value in lines}
    assert trace.steps.tolist() == sorted({step for step, _, _ in lines})
    assert done.repeated == len(lines) - len(expected)
    for (step, name), value in expected.items():
        assert trace[name][trace.rows(step, step)].tolist() == pytest.approx([value], rel=0, abs=0, nan_ok=True)


# What each reader knows


def test_layer_columns_of_other_tools(tmp_path):
    (tmp_path / "a.csv").write_text(
        "iteration,grad_2.0_norm/enc.weight,grad/dec.norm,u/enc.rms,note,gone\n0,1,2,0.5,x,\n5,,0.25,0.125,y,\n"
    )
    mapping = Mapping(layer_columns=["update_rms=u/LAYER.rms"], rename={"enc.weight": "encoder"})
    done = convert(tmp_path / "a.csv", tmp_path / "run", mapping=mapping, warmup_steps=3)
    trace = open_trace(tmp_path / "run")
    assert done.skipped == ("note",)
    assert trace.layers == ("encoder", "dec", "enc")
    np.testing.assert_array_equal(trace["grad_norm"], [[1, np.nan], [2, 0.25], [np.nan] * 2])
    np.testing.assert_array_equal(trace["update_rms"], [[np.nan] * 2, [np.nan] * 2, [0.5, 0.125]])
    assert np.isnan(trace["gone"]).all()  # an empty column is a scalar that was never measured
    assert trace.meta["warmup_steps"] == 3


def test_composer_logs_its_whole_norm_among_the_layers(tmp_path):
    (tmp_path / "a.csv").write_text("step,l2_norm/grad/global,l2_norm/grad/a.weight,l2_norm/grad/b.weight\n0,5,3,4\n")
    convert(tmp_path / "a.csv", tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    assert trace.layers == ("a.weight", "b.weight")
    assert trace["grad_norm"].tolist() == [[3], [4]]
    assert trace["l2_norm/grad/global"].tolist() == [5]


def test_parameters_are_grouped_by_squares(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(
        "step,grad_norm/norm.weight,grad_norm/blocks.0.fc.weight,grad_norm/blocks.0.fc.bias\n0,1,3,4\n1,,6,\n2,1,,\n"
    )
    assert main(["convert", str(tmp_path / "a.csv"), str(tmp_path / "run"), "--group"]) == 0
    assert "2 layers of grad_norm" in capsys.readouterr().out
    trace = open_trace(tmp_path / "run")
    assert trace.layers == ("blocks.00", "norm")
    np.testing.assert_array_equal(trace["grad_norm"], [[5, 6, np.nan], [1, np.nan, 1]])


def test_a_gradient_that_broke_is_inf_and_one_not_logged_is_nan(tmp_path):
    (tmp_path / "a.csv").write_text("step,grad_norm,loss\n0,nan,nan\n1,0.5,1\n2,nan,nan\n3,,\n")
    convert(tmp_path / "a.csv", tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    np.testing.assert_array_equal(trace["grad_norm"], [[np.nan, 0.5, np.inf, np.nan]])
    assert [spike.kind for spike in find_spikes(trace)] == ["nonfinite"]


def test_precision_is_float32_only_where_no_digit_is_lost(tmp_path):
    (tmp_path / "a.csv").write_text("step,grad_norm\n0,15.3421\n")
    (tmp_path / "b.csv").write_text("step,grad_norm\n0,0.26603588461875916016\n1,0.3333333333333333\n")
    for name, kind, value in (("a", "float32", np.float32(15.3421)), ("b", "float64", 0.26603588461875916)):
        convert(tmp_path / f"{name}.csv", tmp_path / name)
        norms = open_trace(tmp_path / name)["grad_norm"]
        assert (norms.dtype, norms[0, 0]) == (np.dtype(kind), value)


def test_huggingface_trainer_state(tmp_path):
    history_ = [{"step": 10, "loss": 2.0, "grad_norm": 1.5}, {"step": 20, "loss": 1.0, "grad_norm": 0.5}, {"step": 20}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"best": None, "log_history": history_}))
    convert(tmp_path / "trainer_state.json", tmp_path / "run")
    assert open_trace(tmp_path / "run")["grad_norm"].tolist() == [[1.5, 0.5]]


def test_wandb_chart_export(tmp_path):
    (tmp_path / "chart.csv").write_text(
        '"Step","calm-sun-3 - train/loss","calm-sun-3 - train/loss__MIN","calm-sun-3 - train/loss__MAX"\n'
        '"0","2.5","2.5","2.75"\n"4","1.5","1.5","1.5"\n'
    )
    done = convert(tmp_path / "chart.csv", tmp_path / "run")
    assert done.scalars == ("train/loss", "train/loss__MAX")
    assert open_trace(tmp_path / "run").steps.tolist() == [0, 4]
    (tmp_path / "two.csv").write_text("Step,a - loss,b - loss\n0,1,2\n")
    with pytest.raises(SourceFormatError, match="the runs a, b"):
        convert(tmp_path / "two.csv", tmp_path / "two")


def wandb_run(folder, rows=3000):
    """Rows that cross many blocks, and one that is larger than a block."""
    folder.mkdir()
    records = [config({"lr": 0.1, "_wandb": {"version": 1}})]
    for step in range(rows):
        values = {"grad_norm/a": step / 7, "grad_norm/b": "NaN" if step == 5 else step, "_timestamp": 1e9 + step}
        records.append(history(values | ({"note": "x" * 70_000} if step == 8 else {}), step))
    write_wandb(folder / "run-x.wandb", records)
    return folder / "run-x.wandb"


def test_a_wandb_offline_run(tmp_path):
    file = wandb_run(tmp_path / "offline-run-x")
    done = convert(tmp_path / "offline-run-x", tmp_path / "run")
    assert (done.source_format, done.skipped) == ("wandb", ("note",))
    trace = open_trace(tmp_path / "run")
    np.testing.assert_array_equal(trace["grad_norm"][0], np.arange(3000) / 7)
    assert trace["grad_norm"].dtype == np.float64
    assert trace["grad_norm"][1, 4:7].tolist() == [4, math.inf, 6]
    assert trace.config == {"lr": 0.1}
    assert trace["wall_time"][-1] == 1e9 + 2999
    file.write_bytes(file.read_bytes()[:100_000])  # a run that was killed
    convert(file, tmp_path / "cut")
    cut = open_trace(tmp_path / "cut")
    assert 0 < len(cut) < 3000
    np.testing.assert_array_equal(cut["grad_norm"][0], np.arange(len(cut)) / 7)


def test_wandb_itself_writes_what_is_read(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(name, value)
    quiet = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off")
    run = wandb.init(project="p", dir=str(tmp_path), config={"lr": 0.1}, settings=quiet)
    for step in range(1500):
        run.log({"grad_norm/a": step / 7, "grad_norm/b": math.nan if step == 5 else step})
    run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    convert(folder, tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    np.testing.assert_array_equal(trace.read("grad_norm", layer="a"), np.arange(1500) / 7)
    assert trace.read("grad_norm", layer="b")[4:7].tolist() == [4, math.inf, 6]
    assert trace.config == {"lr": 0.1}


def arrow(file, rows, batch=5):
    """An Arrow stream, a few rows a batch, as trainscope flushes them."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)


def trainscope_run(folder, steps=23):
    names = ("blocks.10.w", "blocks.2.w", "a/b")
    arrow(folder / "global.arrow", [{"step": i, "loss": 1 / (i + 1), "is_spike": i == 7} for i in range(steps)])
    for k, name in enumerate(names):
        rows = [
            {"step": i, "grad_l2_norm": math.nan if i == 7 and k == 0 else i / 7 + k, "weight_l2_norm": k + 1.0}
            | {"act_mean": None if i % 5 else 0.5, "hist_counts": [1.0]}
            for i in range(steps)
        ]
        arrow(folder / "layers" / f"{name.replace('/', '%2F')}.arrow", rows)
    arrow(folder / "plugin_metrics.arrow", [{"step": 4, "plugin": "p", "metric": "m", "value": 0.125}])
    (folder / "meta.json").write_text(json.dumps({"model_name": "Net"}))
    return folder


def test_a_trainscope_run(tmp_path):
    done = convert(trainscope_run(tmp_path / "ts"), tmp_path / "run")
    assert (done.source_format, done.rows) == ("trainscope", 23)
    assert done.skipped == ("act_mean", "hist_counts")
    trace = open_trace(tmp_path / "run")
    assert trace.layers == ("a/b", "blocks.2.w", "blocks.10.w")
    norms = np.arange(23) / 7
    np.testing.assert_array_equal(trace["grad_norm"][:2], [norms + 2, norms + 1])
    assert trace["grad_norm"][2, 6:9].tolist() == [6 / 7, math.inf, 8 / 7]
    assert trace["weight_norm"][:, 0].tolist() == [3, 2, 1]
    np.testing.assert_array_equal(trace["loss"], 1 / (np.arange(23) + 1))
    assert np.flatnonzero(trace["is_spike"]).tolist() == [7]
    assert trace["p/m"][4] == 0.125
    assert np.isnan(trace["p/m"][5])
    assert trace.config == {"model_name": "Net"}


def test_a_trainscope_run_that_was_killed_ends_earlier_and_a_damaged_one_is_named(tmp_path):
    folder = trainscope_run(tmp_path / "ts")
    file = folder / "layers" / "blocks.2.w.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1500])
    convert(folder, tmp_path / "cut")
    kept = open_trace(tmp_path / "cut").read("grad_norm", layer="blocks.2.w")
    known = np.isfinite(kept).sum()
    assert 0 < known < 23
    np.testing.assert_array_equal(kept[:known], np.arange(known) / 7 + 1)
    at = whole.index(b"\xff\xff\xff\xff", len(whole) // 2)
    file.write_bytes(whole[: at + 8] + b"\xff" * 64 + whole[at + 72 :])
    with pytest.raises(SourceFormatError, match=r"blocks.2.w.arrow: the batch at byte \d+ is damaged"):
        convert(folder, tmp_path / "run")
    (folder / "global.arrow").write_bytes(b"hello, this is no Arrow stream at all")
    with pytest.raises(SourceFormatError, match=r"global.arrow doesn't begin as Arrow does"):
        convert(folder, tmp_path / "run")


def test_trainscope_itself_writes_what_is_read(tmp_path):
    trainscope = pytest.importorskip("trainscope")
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    config = trainscope.TrainScopeConfig(run_dir=str(tmp_path), run_name="ts")
    expected = []
    with trainscope.TrainScope(model, optimizer, config) as scope:
        for _ in range(12):
            loss = model(torch.randn(8, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            expected.append([p.grad.norm().item() for _, p in sorted(model.named_parameters())])
            scope.step(loss.item())
            optimizer.step()
    convert(tmp_path / "ts", tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    assert trace.layers == ("0.bias", "0.weight", "1.bias", "1.weight")
    np.testing.assert_array_equal(trace["grad_norm"].T, expected)
    assert {"loss", "lr", "grad_norm_before_clip"} <= set(trace.scalars)
    assert trace["weight_norm"].shape == (4, 12)
    assert trace.config["model_name"] == "Sequential"


def record(event):
    """One TFRecord, its checksums worked out bit by bit."""

    def masked(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
        crc ^= 0xFFFFFFFF
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    size = struct.pack("<Q", len(event))
    return size + masked(size) + event + masked(event)


def event(step, *values, time=1e9):
    summary = b"".join(message(1, message(1, tag.encode()) + value) for tag, value in values)
    return record(double(1, time) + integer(2, step) + message(5, summary))


def tensor(kind, field, data, shape=b""):
    return message(8, integer(1, kind) + message(2, shape) + message(field, data))


def test_event_files_of_tensorboard(tmp_path):
    (tmp_path / "tb" / "eval").mkdir(parents=True)
    values = [
        ("loss", fixed32(2, 0.5)),
        ("new", tensor(1, 4, struct.pack("<f", 0.25))),  # as TensorFlow 2 and add_scalar(new_style=True) write
        ("packed", tensor(1, 5, struct.pack("<f", 0.125))),
        ("double", tensor(2, 6, struct.pack("<d", 1 / 3))),
        ("picture", message(4, b"\x08\x01")),
        ("vector", tensor(1, 4, struct.pack("<f", 1.0), shape=message(2, integer(1, 1)))),
    ]
    first = tmp_path / "tb" / "events.out.tfevents.1.host"
    first.write_bytes(record(double(1, 1e9) + message(3, b"brain.Event:2")) + event(7, *values, time=5.0))
    second = tmp_path / "tb" / "eval" / "events.out.tfevents.2.host"
    second.write_bytes(
        event(7, ("accuracy", fixed32(2, 0.75)), time=6.0) + event(-1, ("accuracy", fixed32(2, 1.0)))[:-9]
    )
    done = convert(tmp_path / "tb", tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    assert done.skipped == ("picture", "vector")
    assert trace.steps.tolist() == [7]  # the last record was cut short
    found = {name: trace[name][0].item() for name in trace.scalars}
    expected = {"loss": 0.5, "new": 0.25, "packed": 0.125, "double": 1 / 3, "eval/accuracy": 0.75, "wall_time": 6.0}
    assert found == expected


@pytest.mark.parametrize("at", [3, 9, 20, -2])
def test_a_flipped_bit_in_an_event_file_is_named_with_its_place(tmp_path, at):
    (tmp_path / "tb").mkdir()
    file = tmp_path / "tb" / "events.out.tfevents.1.host"
    good, bad = event(1, ("loss", fixed32(2, 0.5))), bytearray(event(2, ("loss", fixed32(2, 0.25))))
    bad[at] ^= 4
    file.write_bytes(good + bad)
    with pytest.raises(SourceFormatError, match=rf"tfevents.1.host: the record at byte {len(good)} "):
        convert(tmp_path / "tb", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_flipped_bit_in_a_wandb_run_is_named_with_its_place(tmp_path):
    file = wandb_run(tmp_path / "run-x", rows=200)
    data = bytearray(file.read_bytes())
    data[4000] ^= 1
    file.write_bytes(data)
    with pytest.raises(SourceFormatError, match=r"run-x.wandb: the chunk at byte \d+ doesn't match"):
        convert(file, tmp_path / "run")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_value_error(data):
    try:
        found = list(fields(data))
    except ValueError:
        return
    assert sum(len(value) for _, value in found if isinstance(value, bytes)) <= len(data)


BAD = {
    "words as steps": ("a.csv", "step,loss\none,2\n", "holds 'one'"),
    "half a step": ("a.csv", "step,loss\n0.5,2\n", "row 1 of column 'step' is 0.5, not a whole number"),
    "no step": ("a.csv", "step,loss\n,2\n", "is nan, not a whole number"),
    "ragged": ("a.csv", "step,loss\n0,1\n1,2,3\n", "line 3 of .* has 3 cells under 2 names"),
    "two names": ("a.csv", "step,loss,loss\n0,1,2\n", "two columns called 'loss'"),
    "not text": ("a.csv", "step,loss\n0,\udcff\n", "can't be read as CSV"),
    "not JSON": ("a.jsonl", '{"step": 1}\n{"step"\n', "line 2 of .* is not JSON"),
    "no object": ("a.jsonl", "[1]\n", "line 1 of .* holds no object"),
    "a line without a step": ("a.jsonl", '{"step": 1}\n{"loss": 2}\n', "line 2 has None under the step key 'step'"),
    "a list of nothing": ("a.json", "3", "neither a list of objects"),
    "not a W&B file": ("a.wandb", "hello", "doesn't begin as a W&B run does"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence_and_leaves_nothing(tmp_path, capsys, name):
    file, text, message_ = BAD[name]
    (tmp_path / file).write_bytes(text.encode(errors="surrogateescape"))
    assert main(["convert", str(tmp_path / file), str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert re.search(message_, said), said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv", "b.csv"], "one of the two must be a trace"),
        (["nothing", "run"], "nothing doesn't exist"),
        (["a.csv", "run", "--step-column", "when"], "no column 'when'"),
        (["a.csv", "run", "--layers", "nothing/LAYER"], "no column fits the layer columns 'nothing/LAYER'"),
        (["a.csv", "run", "--layers", "LAYER"], "are all columns"),
        (["a.csv", "run", "--layers", "u/"], "don't hold the word LAYER once"),
        (["a.csv", "run", "--rename", "loss"], "not OLD=NEW"),
        (["a.csv", "run", "--rename", "loss=lr"], "two scalars would be called 'lr'"),
        (["a.csv", "run", "--from", "xlsx"], "'xlsx' is not a format that can be read; known are trace, csv"),
        (["a.csv", "kept"], "kept exists already; add --overwrite"),
        (["kept", "no/such/b.csv"], "is not a folder; make it first"),
        (["a.md", "run"], "neither a trace nor a file of a known format"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("step,loss,lr\n0,1,2\n")
    (tmp_path / "a.md").write_text("# notes")
    convert("a.csv", "kept")
    assert main(["convert", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_overwrite_replaces_a_run_and_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("step,loss\n0,1\n")
    for _ in range(2):
        convert(tmp_path / "a.csv", tmp_path / "run", overwrite=True)
        convert(tmp_path / "run", tmp_path / "b.csv", overwrite=True)
        convert(tmp_path / "run", tmp_path / "tb", target_format="tensorboard", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match="other things in it"):
        convert(tmp_path / "run", tmp_path / "mine", target_format="tensorboard", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


def test_every_format_keeps_the_contract():
    from importlib import import_module

    for name in formats():
        module = import_module(f"foreshock.traces.convert.{name}")
        assert all(suffix.startswith(".") for suffix in module.SUFFIXES)
        assert hasattr(module, "read") or hasattr(module, "write")
        assert hasattr(module, "recognises") or not hasattr(module, "read")


@pytest.mark.parametrize(("name", "text"), [("a.csv", "step,loss\n"), ("a.jsonl", ""), ("a.json", "[]")])
def test_a_log_without_rows_is_a_run_without_steps(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    done = convert(tmp_path / name, tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    assert done.rows == len(trace) == 0
    assert find_spikes(trace) == []
    convert(tmp_path / "run", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().startswith("step")
