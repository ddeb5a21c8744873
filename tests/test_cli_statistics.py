"""`foreshock check`, `precursors` and `onset-order`: what they print, and the exit codes that a CI job relies on."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foreshock.cli.__main__ import main
from foreshock.traces import TraceWriter

LAYERS = ("patch_embed", "blocks.00", "blocks.01", "norm")


def write_run(path: Path, *, seed: int = 0, rows: int = 6000, status: str = "finished") -> Path:
    """8 events: every layer rises, each 2 steps after the one before; after 12 steps the accuracy dips."""
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(0, 0.1, (4, rows)))
    accuracy = 0.6 + rng.normal(0, 0.001, rows)
    for at in range(900, rows - 300, (rows - 900) // 8):
        for k in range(4):
            norms[k, at + 2 * k : at + 2 * k + 4] *= 7 - k
        accuracy[at + 12 : at + 30] -= 0.1
    values = {"grad_norm": norms.astype(np.float32), "knn_accuracy": accuracy}
    writer = TraceWriter(path, layers=LAYERS, meta={"warmup_steps": 100})
    writer.extend(np.arange(rows), values)
    if status == "finished":
        writer.close()
    else:
        writer.flush()
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "busy")


def told(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))


def test_precursors_of_one_run_and_of_two(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["precursors", str(run), "--json"]) == 0
    one = told(capsys)
    assert one["testable"]
    assert one["best"]["precursor"]["hits"] == one["dips"] >= 8
    assert one["p"] <= 0.01
    options = ["--layer", "patch_embed", "--lag", "16", "--lag", "32", "--surrogates", "199"]
    assert main(["precursors", str(run), str(run), *options, "--json"]) == 0
    two = told(capsys)
    assert (two["runs"], list(two["spikes"])) == (2, ["patch_embed"])
    assert [row["lag"] for row in two["rows"]] == [16, 32]
    assert main(["precursors", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "spikes precede dips" in printed
    assert all(layer in printed for layer in LAYERS)


def test_onset_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["onset-order", str(run), "--json", "--surrogates", "199"]) == 0
    found = told(capsys)
    assert found["steps_per_layer"] == pytest.approx(2, abs=0.1)
    assert found["p"] <= 0.05
    assert main(["onset-order", str(run)]) == 0
    assert "earlier layers rise first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["--max-spikes", "100", "--max-dips", "9", "--max-dip", "0.2", "--min-accuracy", "0.5", "--finished"], 0),
        (["--max-spikes", "3"], 1),
        (["--max-ratio", "3"], 1),
        (["--max-ratio", "12", "--max-nonfinite", "0"], 0),
        (["--max-spike-score", "0.001"], 1),
        (["--max-spike-score", "0.5"], 0),
        (["--max-dips", "7"], 1),
        (["--max-dip", "0.05"], 1),
        (["--min-accuracy", "0.7"], 1),
        (["--max-spikes", "9", "--layer", "patch_embed"], 0),
        (["--max-spikes", "0", "--column", "knn_accuracy"], 0),
        (["--max-spikes", "-1"], 2),
        (["--max-dip", "5"], 2),
        (["--min-accuracy", "nan"], 2),
        (["--max-spikes", "3", "--layer", "blocks.99"], 2),
        ([], 2),
    ],
)
def test_check_tells_by_its_exit_code(run: Path, limits: list[str], code: int) -> None:
    assert main(["check", str(run), *limits]) == code


def test_check_names_the_first_offence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(run), "--max-spikes", "0", "--max-dip", "0.05", "--max-dips", "99", "--json"]) == 1
    found = told(capsys)
    assert not found["ok"]
    spikes, dips, dip = found["checks"]
    assert (spikes["limit"], spikes["ok"], spikes["step"]) == ("max_spikes", False, 900)
    assert spikes["where"].startswith("patch_embed rose")
    assert (dip["limit"], dip["step"], dip["found"] > 0.08) == ("max_dip", 912, True)
    assert dips["ok"]


def test_check_holds_several_runs_and_needs_what_it_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calm = tmp_path / "calm.csv"
    calm.write_text("step,norm\n" + "".join(f"{t},{1 + 0.1 * math.sin(t)}\n" for t in range(300)), encoding="utf-8")
    broken = tmp_path / "broken.csv"
    lines = calm.read_text().splitlines()
    lines[201] = "200,nan"
    broken.write_text("\n".join(lines), encoding="utf-8")
    assert main(["check", str(calm), "--max-nonfinite", "0", "--finished"]) == 0
    assert main(["check", str(calm), str(broken), "--max-nonfinite", "0", "--max-ratio", "2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["checks"]
    assert [one["ok"] for one in found] == [True, True, False, False]
    assert found[2]["found"] is None  # JSON has no infinity
    assert main(["check", str(calm), "--max-dips", "3"]) == 2
    assert main(["check", str(calm), "--min-accuracy", "0.3"]) == 2
    assert main(["check"]) == 2


def test_a_run_that_still_goes_on_is_not_finished(tmp_path: Path) -> None:
    assert main(["check", str(write_run(tmp_path / "live", status="running")), "--finished"]) == 1


def test_check_as_a_real_process(run: Path) -> None:
    command = [sys.executable, "-m", "foreshock.cli", "check", str(run), "--max-dip", "0.05"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env=os.environ | {"COLUMNS": "200"}, timeout=60
    )
    assert done.returncode == 1
    assert "exceeded" in done.stdout
    assert "at step 912" in done.stdout
    assert done.stderr == ""
