"""What looking costs: seconds to the first picture, milliseconds and bytes a zoom, memory, in headless Chromium.

`python benchmarks/dashboard.py --steps 1000000` measures foreshock on a made-up run of 150 layers with 20 spikes of a
single step. `--tensorboard-steps 5000` shows as much of the same data to TensorBoard (pip install tensorboard),
`--resampler-steps 1000000` to a plain Dash app with plotly-resampler (pip install plotly-resampler), `--plain` to one
with a line a layer, every n-th step. Times are those of the page's own clock; a zoom is timed from the request to the
second frame after the finer columns are drawn in every chart on the screen. Of the others only the traffic is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from selenium import webdriver

from foreshock.traces import Trace, TraceWriter, open_trace

FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-background-networking --window-size=1440,900"
SERVE = "import sys; from foreshock.dashboard.app import serve; serve(sys.argv[1], port=int(sys.argv[2]))"
PLANTED, BLOCK = 20, 16_384
# Notes when the map is first there, by the page's own clock.
WATCH = """
(() => { const look = () => document.querySelector("#card-heatmap .imagelayer image") && !window.foreshock.charts.busy()
  ? requestAnimationFrame(() => { window.firstPaint = performance.now(); }) : requestAnimationFrame(look); look(); })();
"""
ZOOM = """
const [low, high, done] = arguments, kept = window.foreshock.kept, from = performance.now();
performance.clearResourceTimings();
window.tasks = window.tasks || (() => {
  const seen = [0];
  const keep = (list) => seen.push(...list.getEntries().map((e) => e.duration));
  new PerformanceObserver(keep).observe({ type: "longtask" });
  return seen;
})();
window.tasks.length = 1;
window.foreshock.setZoom([low, high]);
const wanted = [low, high].join();
const plot = document.querySelector("#card-heatmap .js-plotly-plot");
const finish = () => requestAnimationFrame(() => requestAnimationFrame(() => {
  const sent = performance.getEntriesByType("resource").filter((e) => /_dash-update-component|columns$/.test(e.name));
  done([performance.now() - from, sent.reduce((sum, e) => sum + e.transferSize, 0),
        Math.max(...window.foreshock.map.highest(plot.data[0].fine || plot.data[0].map)), Math.max(...window.tasks)]);
}));
const look = () => {
  const there = kept.fine && kept.fine.of === wanted && Math.abs(plot.layout.xaxis.range[0] - low) < 1
    && !window.foreshock.charts.busy();
  if (there || performance.now() - from > 20000) finish(); else requestAnimationFrame(look);
};
look();
"""


def make(path: Path, steps: int, layers: int) -> Trace:
    """Write the run, unless it is there from the last time."""
    if (path / "zarr.json").exists() and len(open_trace(path)) == steps:
        return open_trace(path)
    rng = np.random.default_rng(0)
    names = ["patch_embed", *(f"blocks.{i:03d}" for i in range(layers - 2)), "norm"]
    spikes = rng.integers(min(1000, steps // 2), steps, PLANTED)
    with TraceWriter(path, layers=names, meta={"total_steps": steps}, overwrite=True, flush_rows=65_536) as writer:
        for start in range(0, steps, BLOCK):
            at = np.arange(start, min(start + BLOCK, steps))
            norms = np.exp(0.11 * rng.standard_normal((layers, len(at)), dtype=np.float32))
            for i in np.flatnonzero((spikes >= start) & (spikes < start + len(at))):
                norms[i * 7 % layers, spikes[i] - start] *= 20
            knn = np.where(at % 100 == 0, 0.5 + 0.01 * rng.standard_normal(len(at)), np.nan)
            queries = np.where(at % 100 == 0, 2048.0, np.nan)
            scalars = {"loss": 2 + 0.05 * rng.standard_normal(len(at)), "lr": np.full(len(at), 1e-3)}
            writer.extend(at, {"grad_norm": norms, "knn_accuracy": knn, "knn_queries": queries, **scalars})
    return open_trace(path)


@contextmanager
def chromium() -> Iterator[Any]:
    """A fresh headless Chromium with a profile that is thrown away."""
    options, profile = webdriver.ChromeOptions(), tempfile.mkdtemp()
    options.binary_location = str(shutil.which("chromium"))
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@contextmanager
def served(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, once it answers on `port`."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/").close()
                break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def memory_mb(pid: int, field: str = "VmHWM") -> float:
    """Memory of a process in MB: the most so far, or `VmRSS` for now. Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken so far, without its children. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def foreshock(root: Path, run: str, steps: int, zooms: int) -> None:
    """First picture, zooms and memory of the dashboard."""
    port = free_port()
    with served([sys.executable, "-c", SERVE, str(root), str(port)], port) as server, chromium() as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        firsts = []
        for _ in range(3):  # the first time the browser's cache is cold
            browser.get(f"http://127.0.0.1:{port}/?view=run&run={run}")
            firsts.append(_wait(browser, "return window.firstPaint || 0"))
            browser.get("about:blank")
        browser.get(f"http://127.0.0.1:{port}/?view=run&run={run}")
        _wait(browser, "return window.firstPaint || 0")
        time.sleep(2)
        print(f"first picture: {firsts[0] / 1000:.2f} s cold, {min(firsts[1:]) / 1000:.2f} s with a warm browser cache")
        _zooms(browser, server.pid, steps, zooms, "while spikes are looked for")
        _wait(browser, "return !document.querySelector('#headline').textContent.startsWith('Looking')", 900)
        _zooms(browser, server.pid, steps, zooms, "after that")
        print(f"server memory: {memory_mb(server.pid):.0f} MB at most, {memory_mb(server.pid, 'VmRSS'):.0f} MB now")


def _zooms(browser: Any, server: int, steps: int, count: int, when: str) -> None:
    rng, taken, before = np.random.default_rng(1), [], cpu_seconds(server)
    for i in range(count):
        span = max(200, int(steps / 4 ** (1 + i % 6)))
        low = int(rng.integers(0, steps - span))
        taken.append(browser.execute_async_script(ZOOM, low, low + span))
    spent = cpu_seconds(server) - before
    times, sent = sorted(row[0] for row in taken), sorted(row[1] for row in taken)
    print(
        f"{count} zooms {when}: best {times[0]:.0f}, median {statistics.median(times):.0f}, worst {times[-1]:.0f} ms; "
        f"sent (gzip'd) {statistics.median(sent) / 1000:.0f} kB, at most {sent[-1] / 1000:.0f} kB; "
        f"longest main-thread task {max(row[3] for row in taken):.0f} ms; "
        f"server {1000 * spent / count:.0f} ms CPU a zoom"
    )


def _wait(browser: Any, script: str, seconds: float = 60) -> float:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := browser.execute_script(script):
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"{script} had no answer in {seconds:g} s")


def quiet_page(name: str, address: str, server: subprocess.Popen[bytes], browser: Any, settle: float = 3.0) -> None:
    """Seconds until a page has asked for nothing new for `settle` seconds, and the bytes that it took."""
    browser.get_log("performance")
    began = last = time.monotonic()
    browser.get(address)
    size = 0.0
    while time.monotonic() - last < settle and time.monotonic() - began < 120:
        for entry in browser.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.loadingFinished":
                size += event["params"]["encodedDataLength"]
                last = time.monotonic()
        time.sleep(0.1)
    took = last - began
    print(f"{name}: page quiet after {took:.1f} s, {size / 1e6:.1f} MB, server {memory_mb(server.pid):.0f} MB at most")


def tensorboard(trace: Trace, steps: int, work: Path) -> None:
    """The same numbers in TensorBoard: 150 tags of `steps` values."""
    from torch.utils.tensorboard import SummaryWriter

    values = trace.read("grad_norm", stop=steps)
    with SummaryWriter(str(work / "logs")) as writer:
        for row, layer in enumerate(trace.layers):
            for step, value in enumerate(values[row].tolist()):
                writer.add_scalar(f"grad_norm/{layer}", value, step)
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(work / "logs"), "--port", str(port)]
    with served(command, port) as server, chromium() as browser:
        time.sleep(20)  # it reads its log first
        quiet_page(f"TensorBoard, {steps:,} steps", f"http://127.0.0.1:{port}/#timeseries", server, browser)


def plain(trace: Trace, work: Path) -> None:
    """The same numbers in a plain Dash app: a line a layer, every n-th step, 1,500 points each."""
    np.save(work / "thinned.npy", trace["grad_norm"][:, :: max(1, len(trace) // 1500)])
    port = free_port()
    app = (
        "import sys, numpy as np\nfrom dash import Dash, dcc\n"
        "values = np.load(sys.argv[1])\napp = Dash()\n"
        "app.layout = dcc.Graph(figure={'data': [{'y': row, 'mode': 'lines'} for row in values]})\n"
        "app.run(port=int(sys.argv[2]))\n"
    )
    with (
        served([sys.executable, "-c", app, str(work / "thinned.npy"), str(port)], port) as server,
        chromium() as browser,
    ):
        quiet_page("plain Dash, every n-th step", f"http://127.0.0.1:{port}/", server, browser)


RESAMPLER = """
import sys, numpy as np, plotly.graph_objects as go
from dash import Dash, dcc, html
from plotly_resampler import FigureResampler
values, figure = np.load(sys.argv[1]), FigureResampler(go.Figure(), default_n_shown_samples=1000)
for row in values:
    figure.add_trace(go.Scattergl(mode="lines"), hf_x=np.arange(len(row)), hf_y=row)
app = Dash()
app.layout = html.Div([dcc.Graph(id="graph", figure=figure)])
figure.register_update_graph_callback(app, "graph")
app.run(port=int(sys.argv[2]))
"""


def resampler(trace: Trace, steps: int, work: Path) -> None:
    """The same numbers in a plain Dash app with plotly-resampler: a line a layer, all in memory."""
    np.save(work / "values.npy", trace.read("grad_norm", stop=steps))
    port = free_port()
    began = time.monotonic()
    with (
        served([sys.executable, "-c", RESAMPLER, str(work / "values.npy"), str(port)], port) as server,
        chromium() as browser,
    ):
        print(f"plotly-resampler, {steps:,} steps: the server answers after {time.monotonic() - began:.1f} s")
        quiet_page(f"plotly-resampler, {steps:,} steps", f"http://127.0.0.1:{port}/", server, browser)


def main() -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=150)
    parser.add_argument("--zooms", type=int, default=24)
    parser.add_argument("--peers-only", action="store_true", help="leave foreshock itself out")
    parser.add_argument("--keep", type=Path, help="folder for the made-up run, used again the next time")
    parser.add_argument("--tensorboard-steps", type=int, default=0)
    parser.add_argument("--resampler-steps", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.keep or Path(folder) / "runs"
        trace = make(root / "made", args.steps, args.layers)
        print(f"{args.layers} layers x {args.steps:,} steps")
        if not args.peers_only:
            foreshock(root, "made", args.steps, args.zooms)
        if args.plain:
            plain(trace, Path(folder))
        if args.resampler_steps:
            resampler(trace, args.resampler_steps, Path(folder))
        if args.tensorboard_steps:
            tensorboard(trace, args.tensorboard_steps, Path(folder))


if __name__ == "__main__":
    main()
