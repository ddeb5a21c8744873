"""What looking costs, in headless Chromium: first picture, zooms, memory, and whether one-step spikes can be seen.

    python benchmarks/dashboard.py --keep FOLDER [--peers FOLDER]

One table over one made-up run of 150 layers x 10^6 steps with 20 spikes of a single step: foreshock, TensorBoard, and a
plain Dash app with plotly-resampler and with every n-th step. Every page is zoomed as a drag in a chart would do it.
The peers may lie in a folder of their own (`pip install --target FOLDER plotly-resampler tensorboard`: plotly-resampler
wants another plotly), and those that are not there are left out. `--keep` keeps the run (0.5 GB) for the next time, and
in FOLDER-peers TensorBoard's log of it (4 GB) and a picture of each page as it was measured. About five minutes, and
two more for what is not kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from dashboard_browser import (
    Row,
    Zoom,
    children,
    chromium,
    cpu_seconds,
    first_pictures,
    free_port,
    memory_mb,
    served,
    wait,
    windows,
    zooms,
)
from dashboard_peers import PEERS, Spikes

from foreshock.traces import Trace, TraceWriter, open_trace

SERVE = "import sys; from foreshock.dashboard.app import serve; serve(sys.argv[1], port=int(sys.argv[2]))"
PLANTED, BLOCK = 20, 16_384
PAINTED = """document.querySelector("#card-heatmap .imagelayer image") && !window.foreshock.charts.busy()"""
ZOOM = """
const [low, high] = arguments, { kept, charts } = window.foreshock, wanted = [low, high].join();
const map = document.querySelector("#card-heatmap .js-plotly-plot");
bench.zoom(performance.now(), () => kept.fine && kept.fine.of === wanted && !charts.busy()
  && Math.abs(map.layout.xaxis.range[0] - low) < 1);
Plotly.relayout(charts.node("knn"), { "xaxis.range[0]": low, "xaxis.range[1]": high });
"""
SEEN = """
const { value, nearest } = window.foreshock.map;
const { map } = document.querySelector("#card-heatmap .js-plotly-plot").data[0];
return arguments[0].filter(([layer, step]) => value(map, layer, nearest(map.x, step)) > 3).length;
"""


def planted(steps: int, layers: int) -> Spikes:
    """Layer and step of every spike of a made-up run."""
    return [(i * 7 % layers, int(step)) for i, step in enumerate(_steps(np.random.default_rng(0), steps))]


def _steps(rng: np.random.Generator, steps: int) -> np.ndarray:
    return rng.integers(min(1000, steps // 2), steps, PLANTED)


def make(path: Path, steps: int, layers: int) -> Trace:
    """Write the run, unless it is there from the last time."""
    if (path / "zarr.json").exists() and len(open_trace(path)) == steps:
        return open_trace(path)
    rng = np.random.default_rng(0)
    spikes = _steps(rng, steps)
    names = ["patch_embed", *(f"blocks.{i:03d}" for i in range(layers - 2)), "norm"]
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


def foreshock(root: Path, run: str, spikes: Spikes, steps: int, count: int, work: Path) -> Row:
    """The dashboard, while spikes are looked for (as notes) and after that (the row)."""
    port = free_port()
    with served(["-c", SERVE, str(root), str(port)], port) as server, chromium(PAINTED) as browser:
        began = time.monotonic()
        firsts = first_pictures(browser, f"http://127.0.0.1:{port}/?view=run&run={run}")
        seen = browser.execute_script(SEEN, spikes)
        during, cpu_during = _zooms(browser, server.pid, steps, count)
        searching = _searching(browser)
        search_mb = _search_ended(browser, server.pid)
        search_s = time.monotonic() - began
        after, cpu_after = _zooms(browser, server.pid, steps, count)
        browser.save_screenshot(str(work / "foreshock.png"))
        notes = (
            f"foreshock while spikes are looked for{'' if searching else ' and later'}: {_told(during, cpu_during)}.",
            f"foreshock after that: {_told(after, cpu_after)}.",
            f"foreshock looks for spikes in a process of its own, not in the table: {search_mb:.0f} MB, over "
            f"{search_s:.0f} s after the first look."
            if searching
            else "foreshock had found the spikes before those zooms were over.",
        )
        return Row("foreshock", firsts, after, memory_mb(server.pid), seen, len(spikes), notes)


def _zooms(browser: Any, server: int, steps: int, count: int) -> tuple[Sequence[Zoom], float]:
    """The zooms, and the server's processor time for one, ms."""
    before = cpu_seconds(server)
    taken = zooms(browser, lambda low, high: browser.execute_script(ZOOM, low, high), windows(steps, count))
    return taken, 1000 * (cpu_seconds(server) - before) / count


def _told(taken: Sequence[Zoom], cpu: float) -> str:
    times, sent = [zoom.ms for zoom in taken], [zoom.sent / 1000 for zoom in taken]
    return (
        f"{len(taken)} zooms, best {min(times):.0f}, median {statistics.median(times):.0f}, worst {max(times):.0f} ms; "
        f"sent (gzip'd) {statistics.median(sent):.0f} kB, at most {max(sent):.0f} kB; "
        f"longest task {max(zoom.task for zoom in taken):.0f} ms; server {cpu:.0f} ms of processor time a zoom"
    )


def _searching(browser: Any) -> bool:
    return browser.execute_script("return document.querySelector('#headline').textContent.startsWith('Looking')")


def _search_ended(browser: Any, server: int, seconds: float = 900) -> float:
    """Wait for it; the most memory that its process had, MB."""
    most, deadline = 0.0, time.monotonic() + seconds
    while _searching(browser):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the search for spikes had not ended after {seconds:g} s")
        with suppress(OSError, StopIteration):  # it has ended just now
            most = max([most, *(memory_mb(child) for child in children(server))])
        time.sleep(0.2)
    wait(browser, "return !window.foreshock.charts.busy()")
    return most


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=150)
    parser.add_argument("--zooms", type=int, default=24)
    parser.add_argument("--keep", type=Path, help="folder for the run and the log, used again the next time")
    parser.add_argument(
        "--peers", type=Path, help="folder that the peers are installed in, if they are not beside foreshock"
    )
    parser.add_argument("--rows", nargs="+", default=["foreshock", *PEERS], choices=["foreshock", *PEERS])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.keep or Path(folder) / "runs"
        work = root.resolve().with_name(f"{root.name}-peers")
        work.mkdir(parents=True, exist_ok=True)
        trace, spikes = make(root / "made", args.steps, args.layers), planted(args.steps, args.layers)
        print(f"{args.layers} layers x {args.steps:,} steps, {args.zooms} zooms\n\n{Row.head()}", flush=True)
        notes: list[str] = []
        for name in args.rows:
            if name == "foreshock":
                row: Row | str = foreshock(root, "made", spikes, args.steps, args.zooms, work)
            else:
                row = PEERS[name](trace, spikes, args.zooms, work, args.peers)
            if isinstance(row, Row):
                print(row, flush=True)
            notes += row.notes if isinstance(row, Row) else [row]
        print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
