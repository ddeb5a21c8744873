"""The command line: exit codes, what is printed, and one sentence for everything that is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import tiny_options, write_fashion

from foreshock.traces import open_trace
from foreshock.trainer.command import main
from foreshock.trainer.recipes import recipe_names


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


def test_a_run_prints_how_it_went_and_what_is_next(root: Path, tmp_path: Path, capsys) -> None:
    trace, saved = tmp_path / "runs" / "a", tmp_path / "saved"
    assert main(["demo", *tiny_options(root), "--trace", str(trace), "--checkpoint-dir", str(saved)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "12 steps in",
        "steps/s",
        "a model that guesses has 2.218 = 4 x 0.2 x ln 16",
        "kNN accuracy",
        "best",
        "tracing took",
        f"foreshock spikes {trace}",
        f"foreshock dashboard {trace.parent}",
        f"checkpoint: {saved / 'step-00000012.pt'}",
        "step  4/12  loss",
    ):
        assert text in printed
    assert len(open_trace(trace)) == 12


def test_data_may_be_named_briefly(root: Path, capsys) -> None:
    assert main(["demo", *tiny_options(root), "--data", "fashion-mnist"]) == 0
    assert "trace" not in capsys.readouterr().out


BAD = {
    "unknown recipe": (["paper-vit-x"], "paper-vit-b"),
    "no recipe": (["--trace", "x"], "no recipe '--trace'"),
    "nothing": ([], "usage"),
    "unknown option": (["demo", "--stepps", "3"], "--stepps"),
    "no number": (["demo", "--steps", "many"], "many"),
    "refused value": (["demo", "--batch-size", "1"], "batch_size 1"),
    "no folder": (["demo", "--data", "folder:/nowhere/at/all"], "/nowhere/at/all"),
    "no data": (["demo", "--data-root", "/nowhere/at/all"], "/nowhere/at/all"),
    "unknown data": (["demo", "--data", "imagenet"], "imagenet"),
    "no device": (["demo", "--device", "cuda:99"], "cuda:99"),
    "strange device": (["demo", "--device", "toaster"], "toaster"),
    "no checkpoint": (["demo", "--checkpoint-dir", "/nowhere/at/all", "--resume"], "/nowhere/at/all"),
    "unknown method": (["demo", "--method.name", "moco"], "mocov3"),
    "large batch": (["demo", "--batch-size", "100000"], "100000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(name: str, root: Path, capsys) -> None:
    arguments, says = BAD[name]
    if arguments[:1] == ["demo"] and "--data-root" not in arguments and "folder:/nowhere/at/all" not in arguments:
        arguments = ["demo", *tiny_options(root), *arguments[1:]]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_trace_that_is_there_is_kept(root: Path, tmp_path: Path, capsys) -> None:
    options = ["demo", *tiny_options(root), "--trace", str(tmp_path / "run")]
    assert main(options) == 0
    created = open_trace(tmp_path / "run").attrs["created"]
    capsys.readouterr()
    assert main(options) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert open_trace(tmp_path / "run").attrs["created"] == created
    assert main([*options, "--overwrite"]) == 0


@pytest.mark.parametrize("where", ["a file", "below a file", "not writable"])
def test_a_trace_that_cannot_be_written(root: Path, tmp_path: Path, capsys, where: str) -> None:
    (tmp_path / "file").write_text("precious")
    path = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "run", "not writable": Path("/proc/x")}
    assert main(["demo", *tiny_options(root), "--trace", str(path[where])]) == 2
    assert str(path[where]) in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_list_and_help(capsys) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipe_names())
    for arguments in (["--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "foreshock train" in capsys.readouterr().out


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(root: Path, tmp_path: Path) -> None:
    trace, saved = tmp_path / "run", tmp_path / "saved"
    options = ["demo", *tiny_options(root), "--steps", "5000", "--trace", str(trace), "--checkpoint-dir", str(saved)]
    command = [sys.executable, "-m", "foreshock.trainer", *options, "--overwrite"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "step   19/5000" in line:
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert "--overwrite" not in err
    assert len(err.strip().splitlines()) == 1
    assert "tracing took" in out
    record = open_trace(trace)
    assert record.status == "failed"
    assert record.events[-1]["kind"] == "interrupted"
    assert [int(p.stem[5:]) for p in saved.iterdir()] == [len(record)]
