"""Alerts of the trainer: the spikes of the trace, each told once also over a kill -9, at no cost to a step."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from rich.console import Console
from sensed import HostSyncs
from test_trainer_resume import assert_same_run
from tiny_runs import same, tiny_config, tiny_options, write_fashion

from foreshock.probes import find_spikes
from foreshock.probes.alerts import in_words
from foreshock.traces import open_trace
from foreshock.trainer.checkpoint import Checkpoints
from foreshock.trainer.command import main
from foreshock.trainer.config import AlertConfig, TrainConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import Run, prepare

QUIET = Console(quiet=True)
SPIKES = (80, 81, 100)  # steps at which the gradient of the patch projection is large
STEPS = 125


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads: the runs that are compared, in whichever process, have one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


def config_of(root: Path, folder: Path, **changes: Any) -> TrainConfig:
    config = replace(
        tiny_config(root, steps=STEPS),
        trace=str(folder / "run"),
        checkpoint_dir=str(folder / "saved"),
        checkpoint_keep=9,
        alert=AlertConfig(file=str(folder / "spikes.jsonl")),
    )
    return replace(config, optim=replace(config.optim, base_lr=0.005), **changes)


def spiking(config: TrainConfig, at: dict[int, Any] | None = None) -> Run:
    """A run with spikes, in which `at[step](run)` is called when a step begins."""
    run = prepare(config)
    count = iter(range(run.start, 10**6))
    step = [run.start]

    def begin(*_: Any) -> None:
        step[0] = next(count)
        if at and step[0] in at:
            at[step[0]](run)

    run.model.register_forward_pre_hook(begin)
    for name, parameter in run.model.named_parameters():
        if "patch_embed" in name and parameter.requires_grad:
            parameter.register_hook(lambda grad: grad * (30.0 if step[0] in SPIKES else 1.0))
    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "spikes.jsonl").read_text().splitlines()]


def told(folder: Path) -> list[tuple[str, int]]:
    return sorted((line["layer"], line["onset"]) for line in lines(folder))


def events(folder: Path) -> list[tuple[int, str]]:
    return sorted((e["step"], e["text"]) for e in open_trace(folder / "run").events if e["kind"] == "spike")


@pytest.fixture(scope="module")
def straight(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that is never broken."""
    folder = tmp_path_factory.mktemp("straight")
    result = train(spiking(config_of(root, folder, checkpoint_every=85)), QUIET)
    assert result.spikes == len(lines(folder))
    return folder


def test_what_is_told_is_what_is_found_afterwards(straight: Path) -> None:
    found = find_spikes(open_trace(straight / "run"))
    assert {("patch_embed", 80), ("patch_embed", 100)} <= {(s.layer, s.onset) for s in found}
    assert told(straight) == sorted((spike.layer, spike.onset) for spike in found)
    assert events(straight) == sorted((spike.peak, in_words(spike)) for spike in found)


def killed(root: Path, folder: Path, every: int, at: int, kept: bool) -> None:
    def kill(run: Run) -> None:
        if kept:
            assert run.tracing
            run.tracing.commit()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    train(spiking(config_of(root, folder, checkpoint_every=every), {at: kill}), QUIET)


@pytest.mark.parametrize(
    ("every", "at", "kept", "again"),
    [
        (85, 96, True, ()),  # the first is open at the checkpoint and told after it: the trace knows
        (85, 96, False, ()),  # the same, killed before anything of it was stored
        (85, 118, True, (("patch_embed", 100),)),  # the second is told, and its rows are made again
    ],
)
def test_after_kill_9_each_is_told_once(
    root: Path, tmp_path: Path, straight: Path, every: int, at: int, kept: bool, again: tuple
) -> None:
    process = mp.get_context("spawn").Process(target=killed, args=(root, tmp_path, every, at, kept))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = told(tmp_path)
    run = spiking(config_of(root, tmp_path, checkpoint_every=every, resume=True))
    assert run.start == every
    result = train(run, QUIET)
    assert told(tmp_path) == sorted([*told(straight), *again])
    assert set(again) <= set(before)
    assert events(tmp_path) == events(straight)
    assert result.spikes == len(events(straight))
    assert_same_run(straight, tmp_path)


@pytest.mark.parametrize("after", [80, 84, 103])
def test_after_ctrl_c_each_is_told_once(root: Path, tmp_path: Path, straight: Path, after: int) -> None:
    config = config_of(root, tmp_path, checkpoint_every=1000)
    stopped = train(spiking(config, {after: lambda run: signal.raise_signal(signal.SIGINT)}), QUIET)
    assert (stopped.status, stopped.step) == ("interrupted", after + 1)
    train(spiking(replace(config, resume=True)), QUIET)
    assert told(tmp_path) == told(straight)
    assert events(tmp_path) == events(straight)


def test_a_spike_that_is_open_at_the_end_is_told(root: Path, tmp_path: Path) -> None:
    result = train(spiking(config_of(root, tmp_path, steps=83)), QUIET)
    assert told(tmp_path) == [("patch_embed", 80)]
    assert result.spikes == 1
    assert "1 gradient spike while it ran" in result.lines()


def test_alerts_may_begin_and_end_when_a_run_is_resumed(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path, checkpoint_every=20, alert=AlertConfig())
    assert train(spiking(replace(config, steps=STEPS)), QUIET).spikes is None
    for path in Checkpoints(tmp_path / "saved").paths()[:-1]:
        path.unlink()
    late = spiking(replace(config, resume=True, alert=AlertConfig(file=str(tmp_path / "spikes.jsonl"))))
    assert late.start == 20
    train(late, QUIET)
    assert ("patch_embed", 100) in told(tmp_path)  # 64 steps after the beginning
    for path in Checkpoints(tmp_path / "saved").paths()[:-1]:
        path.unlink()
    assert train(spiking(replace(config, resume=True)), QUIET).spikes is None


@contextmanager
def server(answer: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server on this machine; `answer(handler)` to each post, whose bodies are listed."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}/T0/secret", got
    finally:
        served.shutdown()
        served.server_close()


def well(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()


def test_the_command_tells_in_three_ways(root: Path, tmp_path: Path) -> None:
    """A process of its own, at a learning rate that spikes by itself."""
    options = [*tiny_options(root), "--steps", "300", "--seed", "0", "--optim.base-lr", "20"]
    file = tmp_path / "deep" / "spikes.jsonl"
    paths = ["--trace", str(tmp_path / "run"), "--checkpoint-dir", str(tmp_path / "saved")]
    told_by = ["--alert.file", str(file), "--alert.webhook"]
    with server(well) as (url, got):
        done = subprocess.run(
            [sys.executable, "-m", "foreshock.trainer", "demo", *options, *paths, "--alert.line", *told_by, url],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    assert (done.returncode, done.stderr) == (0, "")
    trace = open_trace(tmp_path / "run")
    found = sorted(in_words(spike) for spike in find_spikes(trace))
    assert found
    assert sorted(line[7:] for line in done.stdout.splitlines() if line.startswith("spike: ")) == found
    assert sorted(body["text"] for body in got) == found
    assert len(file.read_text().splitlines()) == len(found)
    assert f"{len(found)} gradient spike" in done.stdout
    state = Checkpoints(tmp_path / "saved").load()[0]
    assert state["config"]["alert"]["webhook"] == trace.config["alert"]["webhook"] == "http://127.0.0.1"
    assert "secret" not in str(state["config"]) + str(trace.attrs)


def refused(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(500)
    handler.end_headers()


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"what?\n")


@pytest.mark.parametrize("answer", [refused, no_http])
def test_a_webhook_that_fails_is_told_and_ends_nothing(root: Path, tmp_path: Path, straight: Path, answer: Any) -> None:
    with server(answer) as (url, got):
        config = config_of(root, tmp_path, checkpoint_every=85)
        out = StringIO()
        console = Console(file=out, width=200)
        result = train(spiking(replace(config, alert=replace(config.alert, webhook=url))), console)
    assert (result.status, result.exit_code) == ("finished", 0)
    assert len(got) == len(told(straight))
    assert told(tmp_path) == told(straight)
    assert out.getvalue().count("the webhook 127.0.0.1 did not take the alert that patch_embed rose") == 1
    (line,) = [line for line in result.lines() if "alerts were lost" in line]
    assert f"{len(got)} in all" in line
    assert "secret" not in out.getvalue() + line


def test_a_webhook_that_never_answers_does_not_hold_up_the_run(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("foreshock.probes.alerts.webhook.__kwdefaults__", {"seconds": 0.2, "failed": None})
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        alert = AlertConfig(webhook=f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        result = train(spiking(config_of(root, tmp_path, alert=alert)), QUIET)
    assert result.status == "finished"
    assert "timed out" in result.untold


def test_a_file_that_can_no_longer_be_written_is_told(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "spikes.jsonl"

    def spoil(run: Run) -> None:
        file.unlink()
        file.mkdir()

    result = train(spiking(config_of(root, tmp_path), {5: spoil}), QUIET)
    assert result.status == "finished"
    assert "spikes.jsonl did not take the alert that patch_embed rose" in result.untold


def test_a_line_leaves_the_bar_whole(root: Path, tmp_path: Path) -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    train(spiking(config_of(root, tmp_path, alert=AlertConfig(line=True))), console)
    shown = [line for line in out.getvalue().splitlines() if "spike: patch_embed rose" in line]
    assert len(shown) == 2
    assert not any("steps" in line or "\u2501" in line for line in shown)  # a line of its own, no bar in it


def test_it_costs_a_step_no_wait_and_no_bit(root: Path, tmp_path: Path) -> None:
    counts, weights = [], []
    for name, alert in (("without", AlertConfig()), ("with", AlertConfig(file=str(tmp_path / "spikes.jsonl")))):
        run = spiking(config_of(root, tmp_path / name, alert=alert, log_every=1000, steps=83))
        with HostSyncs() as syncs:
            train(run, QUIET)
        counts.append(syncs.counts)
        weights.append(run.model.state_dict())
    assert counts[0] == counts[1]
    assert same(*weights)


@pytest.mark.parametrize("alert", [AlertConfig(line=True), AlertConfig(file="a"), AlertConfig(webhook="http://a")])
def test_without_a_trace_it_would_have_no_effect(root: Path, alert: AlertConfig) -> None:
    with pytest.raises(ValueError, match="would have no effect without trace"):
        tiny_config(root, alert=alert)


BAD = {
    "no URL": (["--trace", "run", "--alert.webhook", "ftp://example.com"], "must begin with http:// or https://"),
    "no host": (["--trace", "run", "--alert.webhook", "https:///x"], "and name a host"),
    "no folder": (["--trace", "run", "--alert.file", "file/spikes.jsonl"], "file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    name: str, root: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    options, says = BAD[name]
    assert main(["demo", *tiny_options(root), *options]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
