"""The command line: what each subcommand prints, and that bad input gets one sentence and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foreshock.cli.__main__ import main, subcommands
from foreshock.traces import TraceWriter


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 900 steps with one spike in every layer and, 12 steps later, one dip."""
    path = tmp_path_factory.mktemp("runs") / "planted"
    rng = np.random.default_rng(0)
    layers = ["patch_embed", "blocks.00", "blocks.01", "norm"]
    norms = np.exp(rng.normal(0, 0.1, (4, 900))).astype(np.float32)
    norms[:, 500:504] *= 7
    accuracy = np.full(900, 0.6) + rng.normal(0, 0.005, 900)
    accuracy[512:540] -= 0.2
    values = {"grad_norm": norms, "loss": np.linspace(3, 1, 900), "knn_accuracy": accuracy}
    with TraceWriter(path, layers=layers, meta={"knn": {"queue": 6000}, "batch_size": 256}) as writer:
        writer.extend(np.arange(900), {**values, "knn_queries": np.full(900, 2048.0)})
    return path


def foreshock(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foreshock.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, cwd="/", timeout=60)


def test_spikes_as_json_finds_what_was_planted(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spikes", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(s["layer"], s["onset"]) for s in found["spikes"]} == {
        (layer, 500) for layer in ("patch_embed", "blocks.00", "blocks.01", "norm")
    }
    (dip,) = found["dips"]
    assert dip["onset_by"] == 512
    assert {(p["layer"], p["lag"]) for p in found["precedences"]} >= {("patch_embed", 12)}
    assert found["scores"]["dips"] == 1
    assert found["scores"]["spikes_per_10k"] > 0
    assert isinstance(found["findings"], list)


def test_spikes_as_tables_names_layers_and_lags(run_dir: Path) -> None:
    done = foreshock("spikes", run_dir, COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert "4 spikes" in done.stdout
    assert "1 dip" in done.stdout
    assert "patch_embed" in done.stdout
    assert "12 steps later" in done.stdout
    assert "per 10,000 steps and layer" in done.stdout


def test_spikes_tells_of_a_run_that_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TraceWriter(tmp_path / "run", layers=["norm"]) as writer:
        loss = np.r_[np.linspace(7, 3, 300), np.linspace(3, 8, 100)]
        writer.extend(np.arange(400), {"grad_norm": np.ones((1, 400), np.float32), "loss": loss})
    assert main(["spikes", str(tmp_path / "run")]) == 0
    assert "divergence: The loss rises for good from step 345" in " ".join(capsys.readouterr().out.split())
    assert main(["spikes", str(tmp_path / "run"), "--json", "--layer", "norm"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scores"], found["findings"][0]["kind"]) == (None, "divergence")


def test_one_layer_and_a_threshold(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spikes", str(run_dir), "--json", "--layer", "norm"]) == 0
    assert {s["layer"] for s in json.loads(capsys.readouterr().out)["spikes"]} == {"norm"}
    assert main(["spikes", str(run_dir), "--json", "--ratio", "50"]) == 0
    assert json.loads(capsys.readouterr().out)["spikes"] == []


def test_report_is_written_beside_the_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_dir)]) == 0
    html = (run_dir.parent / "planted-report.html").read_text(encoding="utf-8")
    assert "patch_embed" in html
    assert "report:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nonsense"], "no subcommand 'nonsense'"),
        (["spikes", "/nowhere/at/all"], "/nowhere/at/all"),
        (["spikes", "RUN", "--layer", "blocks.99"], "blocks.99"),
        (["spikes", "RUN", "--detector", "magic"], "magic"),
        (["spikes", "RUN", "--ratio", "-1"], "ratio"),
        (["spikes", "RUN", "--ratio", "soon"], "soon"),
        (["spikes", "RUN", "--within", "0"], "within"),
        (["spikes"], "PATH"),
        (["report", "/nowhere/at/all"], "/nowhere/at/all"),
        (["report", "RUN", "--out", "/nowhere/at/all/x.html"], "/nowhere/at/all"),
        (["dashboard", "/nowhere/at/all"], "/nowhere/at/all"),
        (["dashboard", "RUN", "--port", "99999999"], "port"),
        (["train", "no-such-recipe"], "no-such-recipe"),
        (["train", "demo", "--trace"], "--trace"),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_code_2(run_dir: Path, args: list[str], says: str) -> None:
    done = foreshock(*[run_dir if arg == "RUN" else arg for arg in args], COLUMNS="200")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"foreshock {name}" in capsys.readouterr().out
    assert subcommands()[name].endswith(".")


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in subcommands())
