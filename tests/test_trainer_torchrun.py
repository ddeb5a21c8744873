"""The command in several processes: by torchrun, stopped by a signal to one of them, and with one that dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import tiny_options, write_images

from foreshock.traces import open_trace

LONG = ["--steps", "100000", "--optim.schedule", "constant", "--log-every", "1000"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of one size, gray in the demo's eyes."""
    return write_images(tmp_path_factory.mktemp("images"), [(28, 28)] * 40)


def options(root: Path, folder: Path, *more: str) -> list[str]:
    paths = ["--trace", str(folder / "trace"), "--checkpoint-dir", str(folder / "saved")]
    return ["-m", "foreshock.trainer", "demo", "--data", f"folder:{root}", *paths, *settings(root), *more]


def settings(root: Path) -> list[str]:
    return [*tiny_options(root)[:-2], *LONG, "--checkpoint-every", "4"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(arguments: list[str], ranks: range = range(2)) -> list[subprocess.Popen]:
    """What torchrun does: the same command, once a process, with its place in the environment."""
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in ranks
    ]


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    here = os.environ | {"PYTHON": sys.executable, "PROCESSES": "2", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=here)


def make_believe_slurm(folder: Path) -> dict[str, str]:
    """The environment of a job on one machine, with programs that do what Slurm's do there."""
    folder.mkdir()
    for name, script in {"scontrol": "echo localhost", "srun": 'shift; exec "$@"'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    return job | {"PATH": f"{folder}:{os.environ['PATH']}"}


def wait_for_checkpoint(folder: Path, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 120
    while not list((folder / "saved").glob("*.pt")):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_to_one_stops_both_and_the_slurm_example_goes_on(root: Path, tmp_path: Path, repo_root: Path) -> None:
    processes = start(options(root, tmp_path))
    wait_for_checkpoint(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [143, 143]
    assert "go on with: torchrun --nproc-per-node 2 -m foreshock.trainer demo" in ends[0][1]
    assert ends[1] == ("", "")
    newest = max(int(path.stem[5:]) for path in (tmp_path / "saved").iterdir())
    trace = open_trace(tmp_path / "trace")
    assert (trace.status, len(trace)) == ("failed", newest)
    assert "interrupted" in trace.attrs["message"]

    cluster = {"RECIPE": "demo", "DATA": str(root), "RUNS": str(tmp_path), "WORKERS": "0", "PORT": str(free_port())}
    command = ["bash", str(repo_root / "examples" / "slurm.sbatch"), *settings(root), "--steps", str(newest + 5)]
    done = run(command, make_believe_slurm(tmp_path / "bin") | cluster)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"resuming at step {newest}") == 1
    assert done.stdout.count("images/s") == 1
    trace = open_trace(tmp_path / "trace")
    assert (trace.status, len(trace), trace.meta["processes"]) == ("finished", newest + 5, 2)


def test_one_that_dies_or_never_comes_is_told_in_a_sentence(root: Path, tmp_path: Path) -> None:
    (alone,) = start(options(root, tmp_path / "alone", "--scale.timeout", "2"), ranks=range(1))
    processes = start(options(root, tmp_path))
    wait_for_checkpoint(tmp_path, processes)
    processes[1].kill()
    said = processes[0].communicate(timeout=60)[1]
    processes[1].communicate()
    assert processes[0].returncode == 1
    assert said.startswith("foreshock train: process 0 has lost another one (its connection is closed): ")
    assert len(said.strip().splitlines()) == 1
    assert open_trace(tmp_path / "trace").status == "failed"

    said = alone.communicate(timeout=90)[1]
    assert alone.returncode == 2
    assert "foreshock train: process 0 cannot meet the others at 127.0.0.1:" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_torchrun_example_trains(root: Path, tmp_path: Path, repo_root: Path) -> None:
    script = str(repo_root / "examples" / "torchrun.sh")
    done = run(["sh", script, *options(root, tmp_path, "--steps", "4")[2:]], {})
    assert done.returncode == 0, done.stderr
    assert open_trace(tmp_path / "trace").meta["processes"] == 2
