"""Alerts: the same spikes as afterwards, told as rows arrive, by callbacks that can't end a run."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from torch import nn

from foreshock.probes import find_spikes
from foreshock.probes.alerts import Alerts, json_lines, print_line, webhook
from foreshock.probes.spikes import Spike
from foreshock.probes.watch import watch
from foreshock.traces import TraceWriter, open_trace

SPIKE = Spike("blocks.00", 5, 5, 6, 7, 3.0, 9.0, 1.0, "spike")


def norms() -> np.ndarray:
    values = np.exp(np.random.default_rng(0).normal(0, 0.1, (2, 600))).astype(np.float32)
    values[0, 300:303] *= 20
    values[1, 400] = np.inf
    values[1, 597:] *= 20  # still open at the end
    return values


@pytest.mark.parametrize("block", [1, 64, 600])
def test_the_spikes_are_those_found_afterwards(tmp_path, block: int) -> None:
    told: list[Spike] = []
    alerts = Alerts(TraceWriter(tmp_path / "run", layers=["a", "b"]), told.append)
    for start in range(0, 600, block):
        part = slice(start, start + block)
        alerts.extend(np.arange(600)[part], {"grad_norm": norms()[:, part]})
        alerts.wait()
        if start + block <= 600 - 64:
            assert all(spike.end < start + block for spike in told)
    assert {spike.layer for spike in told} == {"a", "b"} or block == 600
    alerts.close()
    trace = open_trace(tmp_path / "run")
    assert sorted(told, key=str) == sorted(find_spikes(trace), key=str)
    assert len(told) == 3
    assert [event["kind"] for event in trace.events] == ["spike"] * 3
    assert trace.state == "finished"


def test_a_callback_that_raises_ends_nothing(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    def bad(spike: Spike) -> None:
        raise RuntimeError("no")

    told: list[Spike] = []
    with caplog.at_level(logging.ERROR):
        alerts = Alerts(TraceWriter(tmp_path / "run", layers=["a", "b"]), [bad, told.append])
        alerts.extend(np.arange(600), {"grad_norm": norms()})
        alerts.close()
    assert len(told) == 3
    assert caplog.text.count("an on_spike callback failed") == 3


def test_a_line_and_a_file(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(SPIKE)
    assert "blocks.00 rose 3.0-fold at step 5" in capsys.readouterr().err
    write = json_lines(tmp_path / "spikes.jsonl")
    write(SPIKE)
    write(Spike("a", 1, 1, 1, 1, np.inf, np.inf, 0.0, "nonfinite"))
    first, second = map(json.loads, (tmp_path / "spikes.jsonl").read_text().splitlines())
    assert (first["layer"], first["ratio"]) == ("blocks.00", 3.0)
    assert second["kind"] == "nonfinite"


def test_a_webhook(caplog: pytest.LogCaptureFixture) -> None:
    got: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if len(got) == 1 else 500)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send = webhook(f"http://127.0.0.1:{server.server_port}/hook")
    with caplog.at_level(logging.WARNING):
        send(SPIKE)
        send(SPIKE)  # refused by the server
        send.wait()
    server.shutdown()
    server.server_close()
    assert got[0]["text"] == "blocks.00 rose 3.0-fold at step 5"
    assert got[0]["layer"] == "blocks.00"
    assert caplog.text.count("did not take the alert") == 1
    with pytest.raises(ValueError, match="must begin with http"):
        webhook("file:///etc/passwd")


def test_a_webhook_that_nobody_answers_does_not_raise(caplog: pytest.LogCaptureFixture) -> None:
    send = webhook("http://127.0.0.1:9/", seconds=1)
    with caplog.at_level(logging.WARNING):
        send(SPIKE)
        send.wait()
    assert "did not take the alert" in caplog.text


def test_watch_tells(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    told: list[Spike] = []
    with watch(model, optimizer, tmp_path / "run", on_spike=told.append, flush_steps=32) as w:
        for step in range(300):
            model(torch.randn(16, 4)).square().mean().mul(1e4 if step in (200, 201, 202) else 1).backward()
            optimizer.step()
            w.step()
            optimizer.zero_grad()
            if step == 280:
                assert isinstance(w.recorder.writer, Alerts)
                w.recorder.writer.wait()
                assert {spike.layer for spike in told} == {"0", "2"}
    assert {spike.onset for spike in told} == {200}
    assert len(open_trace(tmp_path / "run").events) == 2
