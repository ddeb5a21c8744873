"""What a live tick costs: seconds from commit to browser, bytes, and the server's CPU, whatever the run's length.

    python benchmarks/dashboard_live.py          # 1,000 and 1,000,000 steps, 1 and 10 watchers: about two minutes

A process of its own appends 20 rows to a run of 150 layers and commits, twice a second. Watchers hold a websocket each,
as a page does, and note when a tail arrives; they don't draw. The server's CPU is that of its process alone, the search
for spikes in a process of its own not counted, and starts to count when that search is done. Baseline: the same
watchers while nothing is written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.request import Request, urlopen

import websocket
from dashboard_browser import children, cpu_seconds, free_port, served

from dashboard import SERVE, make
from foreshock.traces import open_trace

LAYERS, ROWS, EVERY = 150, 20, 0.5
APPEND = """
import sys, time
import numpy as np
from foreshock.traces import TraceWriter, open_trace
path, ticks, rows, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
old = open_trace(path)
first, rng = int(old.steps[-1]) + 1, np.random.default_rng(1)
with TraceWriter(path, layers=old.layers, resume_at=first) as writer:
    for tick in range(ticks):
        at = np.arange(first + tick * rows, first + (tick + 1) * rows)
        norms = np.exp(0.11 * rng.standard_normal((len(old.layers), rows)))
        scalars = {"loss": np.full(rows, 2.0), "lr": np.full(rows, 1e-3)}
        writer.extend(at, {"grad_norm": norms, **scalars})
        writer.flush()
        print(at[-1] + 1, time.time(), flush=True)
        time.sleep(every)
"""


class Watcher(threading.Thread):
    """One page: the whole picture, then a websocket. `seen`: rows held after each tail, when it came, its bytes."""

    def __init__(self, port: int, name: int) -> None:
        super().__init__(daemon=True)
        self.port, self.page, self.seen = port, f"page{name}", list[tuple[int, float, int]]()
        where = f"http://127.0.0.1:{port}"
        body = {
            "output": "push.data",
            "outputs": {"id": "push", "property": "data"},
            "inputs": [{"id": "want", "property": "data", "value": {"run": "run", "columns": 1000}}],
            "changedPropIds": ["want.data"],
        }
        json_type = {"Content-Type": "application/json"}
        asked = Request(f"{where}/_dash-update-component", json.dumps(body).encode(), json_type)
        whole = json.load(urlopen(asked))["response"]["push"]["data"]
        dependencies = json.load(urlopen(f"{where}/_dash-dependencies"))
        stream = next(item["output"] for item in dependencies if item["inputs"][0]["id"] == "attach")
        value = {"run": "run", "page": self.page, "columns": 1000, "cursor": whole["cursor"]}
        inputs = [{"id": "attach", "property": "data", "value": value}]
        payload = {"output": stream, "outputs": [], "inputs": inputs, "changedPropIds": ["attach.data"]}
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{port}/_dash-ws-callback", origin=where)
        self.socket.send(
            json.dumps({"type": "callback_request", "requestId": "1", "rendererId": self.page, "payload": payload})
        )

    def run(self) -> None:
        """Read until the connection is closed."""
        try:
            while text := self.socket.recv():
                told, now = json.loads(text), time.time()
                for message in told if isinstance(told, list) else [told]:
                    if message["type"] != "set_props" or message["payload"]["componentId"] != "push":
                        continue
                    data = message["payload"]["props"]["data"]
                    if data["kind"] != "beat":
                        self.seen.append((data["cursor"]["rows"], now, len(text)))
        except (OSError, websocket.WebSocketException):
            return


def settled(pid: int) -> None:
    """Wait until the server has found the spikes: it then uses next to nothing."""
    for _ in range(300):
        before = cpu_seconds(pid)
        time.sleep(1)
        if not children(pid) and cpu_seconds(pid) - before < 0.1:
            return


def measure(root: Path, watchers: int, ticks: int) -> str:
    """One row of the table."""
    port = free_port()
    with served(["-c", SERVE, str(root), str(port)], port) as server:
        Watcher(port, watchers).socket.close()  # somebody looks, so the search begins
        settled(server.pid)
        pages = [Watcher(port, i) for i in range(watchers)]
        for page in pages:
            page.start()
        idle, began = cpu_seconds(server.pid), time.time()
        time.sleep(5)
        idle = (cpu_seconds(server.pid) - idle) / (time.time() - began)
        before, began = cpu_seconds(server.pid), time.time()
        command = [sys.executable, "-c", APPEND, str(root / "run"), *map(str, (ticks, ROWS, EVERY))]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        time.sleep(1.5)
        busy = cpu_seconds(server.pid) - before - idle * (time.time() - began)
        for page in pages:
            page.socket.close()
    commits = [(int(rows), float(at)) for rows, at in zip(told[::2], told[1::2], strict=True)]
    late = [delay for page in pages for delay in delays(commits, page.seen)]
    sizes = [size for page in pages for _, _, size in page.seen]
    steps = len(open_trace(root / "run")) // 1000 * 1000
    seconds = f"{statistics.median(late):>12.2f} {max(late):>6.2f}"
    kilobytes = f"{statistics.median(sizes) / 1000:>9.1f} {max(sizes) / 1000:>6.1f}"
    return f"{steps:>9,} {watchers:>8} {seconds} {kilobytes} {1000 * busy / ticks:>12.0f} {100 * idle:>8.1f}"


def delays(commits: Sequence[tuple[int, float]], seen: Sequence[tuple[int, float, int]]) -> list[float]:
    """Seconds from each commit to the first message that holds its rows."""
    found = []
    for rows, at in commits:
        arrived = [when for held, when, _ in seen if held >= rows]
        found.append(min(arrived) - at if arrived else float("inf"))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--watchers", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--ticks", type=int, default=20)
    options = parser.parse_args()
    print("    steps watchers  commit to tail: median / most, s   kB: median / most   server CPU ms a tick   idle %")
    for steps in options.steps:
        for watchers in options.watchers:
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder) / "run", steps, LAYERS)
                print(measure(Path(folder), watchers, options.ticks), flush=True)


if __name__ == "__main__":
    main()
