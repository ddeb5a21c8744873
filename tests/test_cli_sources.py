"""The commands on traces, CSV files and arrays: what is read, and what is refused in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from foreshock.cli.__main__ import main
from foreshock.cli._sources import Table, open_source, spikes_of
from foreshock.probes import find_spikes
from foreshock.traces import TraceWriter


def series(rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Two layers' norms with a spike at row 300 in the first, and an accuracy that dips at row 310."""
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0, 0.1, (2, rows)))
    norms[0, 300:303] *= 8
    accuracy = 0.6 + rng.normal(0, 0.005, rows)
    accuracy[310:330] -= 0.2
    return norms, accuracy


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The same as a CSV file: steps in tens, a column of words, an accuracy every second row."""
    norms, accuracy = series()
    lines = ["step,first,last,note,accuracy"]
    for t in range(600):
        lines.append(f"{10 * t},{norms[0, t]!r},{norms[1, t]!r},calm,{accuracy[t] if t % 2 == 0 else ''}")
    path = tmp_path / "run.csv"
    path.write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n", encoding="utf-8")
    return path


def test_a_csv_file_gives_what_the_array_gives(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spikes", str(table), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (twin,) = find_spikes(series()[0], steps=10 * np.arange(600), layers=["first", "last"])
    (spike,) = found["spikes"]
    assert (spike["layer"], spike["onset"], spike["ratio"]) == ("first", 3000, twin.ratio)
    assert [dip["onset_by"] for dip in found["dips"]] == [3100]


def test_columns_steps_and_accuracy_are_chosen_by_name(table: Path) -> None:
    whole = open_source(table)
    assert isinstance(whole, Table)
    assert (whole.layers, whole.curve, whole.steps[1]) == (("first", "last"), "accuracy", 10)
    chosen = open_source(table, columns=["accuracy", "last"], step_column="step")
    assert chosen.layers == ("accuracy", "last")
    assert not chosen.curve  # a column can't be both
    assert [spike.layer for spike in spikes_of(open_source(table, columns=["last"]))] == []


def test_an_array_has_one_row_a_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "norms.npy", series()[0].astype(np.float32))
    assert main(["spikes", str(tmp_path / "norms.npy"), "--json", "--column", "0"]) == 0
    assert [(s["layer"], s["onset"]) for s in json.loads(capsys.readouterr().out)["spikes"]] == [("0", 300)]
    np.save(tmp_path / "curve.npy", series()[1])
    assert main(["dips", str(tmp_path / "curve.npy"), "--column", "series", "--json"]) == 0
    assert [dip["onset_by"] for dip in json.loads(capsys.readouterr().out)["dips"]] == [310]


def test_an_empty_cell_was_not_measured_but_nan_is_a_result(tmp_path: Path) -> None:
    cells = [f"{0.5 + 0.01 * (t % 3):.3f}" for t in range(200)]
    cells[0], cells[100], cells[150] = "nan", "", "NaN"
    (tmp_path / "a.csv").write_text("norm,x\n" + "".join(f"{cell},1\n" for cell in cells), encoding="utf-8")
    found = spikes_of(open_source(tmp_path / "a.csv", columns=["norm"]))
    assert [(spike.kind, spike.onset) for spike in found] == [("nonfinite", 150)]


def test_dips_of_another_series_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norms, accuracy = series()
    with TraceWriter(tmp_path / "run", layers=["a", "b"]) as writer:
        writer.extend(np.arange(600), {"grad_norm": norms, "linear": accuracy})
    assert main(["dips", str(tmp_path / "run"), "--column", "linear"]) == 0
    assert "309–310" in capsys.readouterr().out
    assert main(["spikes", str(tmp_path / "run"), "--column", "linear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spikes"] == []


WRONG = {
    "empty.csv": "",
    "words.csv": "a,b\nx,y\n",
    "ragged.csv": "a,b\n1,2\n3\n",
    "twice.csv": "a,a\n1,2\n",
    "back.csv": "step,a\n1,2\n1,3\n",
    "negative.csv": "a,x\n" + "-1,1\n" * 100,
    "good.csv": "step,a\n" + "".join(f"{t},1.5\n" for t in range(100)),
    "broken.npy": "not an array",
}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["spikes", "empty.csv"], "holds no numbers"),
        (["spikes", "words.csv"], "holds no numbers"),
        (["spikes", "ragged.csv"], "row 3"),
        (["spikes", "twice.csv"], "two columns called 'a'"),
        (["spikes", "back.csv"], "step 1 follows step 1"),
        (["spikes", "negative.csv"], "a is -1 at step 0"),
        (["spikes", "good.csv", "--column", "b"], "it has step, a"),
        (["spikes", "good.csv", "--step-column", "b"], "no column 'b'"),
        (["spikes", "absent.csv"], "absent.csv"),
        (["spikes", "broken.npy"], "not a .npy array"),
        (["spikes", "words.npy"], "dtype"),
        (["spikes", "deep.npy"], "(1, 1, 1)"),
        (["spikes", "pickled.npy"], "pickle"),
        (["spikes", "deep.npy", "--step-column", "step"], "--step-column"),
        (["dips", "good.csv"], "no accuracy curve"),
        (["dips", "good.csv", "--column", "a"], "a of"),
        (["dips", ".", "--step-column", "step"], "--step-column"),
        (["precursors"], "no run"),
        (["precursors", "good.csv"], "no accuracy curve"),
        (["onset-order", "good.csv", "--within", "0"], "within"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in WRONG.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "deep.npy", np.ones((1, 1, 1)))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
