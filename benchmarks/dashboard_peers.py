"""The same run in other browsers' views: each gives the table's row, or says why it cannot.

TensorBoard gets every step in an event file; plotly-resampler holds all steps in a plain Dash app; and a plain Dash app
draws every n-th step. All are as they come, but that the lines of plotly-resampler are SVG, which are drawn faster than
its usual WebGL where there is no graphics card. Both Dash apps are zoomed by `Plotly.relayout`, which is what a drag
ends in; TensorBoard by a drag with the mouse across its first chart, reset by a double click.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
from dashboard_browser import Row, chromium, first_pictures, free_port, installed, memory_mb, served, windows, zooms
from google_crc32c import value as crc32c

from foreshock.traces import Trace

__all__ = ["PEERS", "Spikes"]

Spikes = list[tuple[int, int]]  # layer, step
POINTS = 1500  # of a line that shows every n-th step
WIDE = 1000  # parts of a chart's width that a drag can begin and end at
APP = """
import sys, numpy as np, plotly.graph_objects as go
from dash import Dash, dcc, html
path, port, layers, count, every = sys.argv[1], *map(int, sys.argv[2:])
rows = (np.fromfile(path, "<f4", count, offset=4 * count * layer) for layer in range(layers))
steps, app = np.arange(count), Dash()
if every:
    lines = [go.Scatter(x=steps[::every], y=row[::every].copy(), mode="lines") for row in rows]
    app.layout = html.Div([dcc.Graph(figure=go.Figure(lines))])
else:
    from plotly_resampler import FigureResampler
    figure = FigureResampler(go.Figure(), default_n_shown_samples=1000)
    for row in rows:
        figure.add_trace(go.Scatter(mode="lines"), hf_x=steps, hf_y=row)
    app.layout = html.Div([dcc.Graph(id="graph", figure=figure)])
    figure.register_update_graph_callback(app, "graph")
app.run(port=port)
"""
LINES = '(document.querySelectorAll(".js-plotly-plot .scatterlayer .js-line").length === LAYERS)'
RELAYOUT = """
const [low, high, resampled] = arguments, near = 1 + (high - low) / 100;
const plot = document.querySelector(".js-plotly-plot");
const ends = (x) => Math.abs(x[0] - low) <= near && Math.abs(x[x.length - 1] - high) <= near;
let drawn = false;
bench.zoom(performance.now(), () => drawn && (!resampled || plot._fullData.every((line) => ends(line.x))));
Plotly.relayout(plot, { "xaxis.range[0]": low, "xaxis.range[1]": high }).then(() => { drawn = true; });
"""
SEEN = """
const lines = document.querySelector(".js-plotly-plot")._fullData;
return arguments[0].filter(([layer, step]) => lines[layer].y[lines[layer].x.indexOf(step)] > 3).length;
"""
# The pixels of a chart that a worker draws: a copy of the canvas can be read.
PIXELS = """((canvas) => {
  const copy = document.createElement("canvas");
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  return new Uint32Array(pen.getImageData(0, 0, copy.width, copy.height).data.buffer);
})"""
CARDS = f"""(() => {{
  const seen = (card) => card.getBoundingClientRect().top < innerHeight;
  const shown = [...document.querySelectorAll("scalar-card")].filter(seen);
  const drawn = (canvas) => canvas && canvas.width && {PIXELS}(canvas).some((pixel) => pixel);
  return shown.length > 0 && shown.every((card) => drawn(card.querySelector("line-chart canvas")));
}})()"""
RELEASE = f"""
const canvas = document.querySelector("line-chart canvas");
const hash = () => {PIXELS}(canvas).reduce((sum, pixel) => (31 * sum + pixel) | 0, 0), before = hash();
const released = (event) => bench.zoom(event.timeStamp, () => hash() !== before);
window.addEventListener("mouseup", released, {{ capture: true, once: true }});
"""


def _dash(trace: Trace, spikes: Spikes, count: int, work: Path, packages: Path | None, *, every: int) -> Row:
    path, port = work / "values", free_port()
    trace["grad_norm"].astype("<f4").tofile(path)
    numbers = (port, len(trace.layers), len(trace), every)
    lines, began = LINES.replace("LAYERS", str(len(trace.layers))), time.monotonic()
    with served(["-c", APP, str(path), *map(str, numbers)], port, packages) as server, chromium(lines) as browser:
        ready = time.monotonic() - began
        firsts = first_pictures(browser, f"http://127.0.0.1:{port}/")
        seen = browser.execute_script(SEEN, spikes)
        taken = zooms(
            browser,
            lambda low, high: browser.execute_script(RELAYOUT, low, high, not every),
            windows(len(trace), count),
        )
        browser.save_screenshot(str(work / f"dash-{every}.png"))
        if every:
            name, note = f"Dash, every {every:,}th step", f"a zoom of fewer than {every:,} steps is empty"
        else:
            name, note = "Dash and plotly-resampler", f"the server answers {ready:.0f} s after its start"
        return Row(name, firsts, taken, memory_mb(server.pid), seen, len(spikes), (f"{name}: {note}.",))


def resampler(trace: Trace, spikes: Spikes, count: int, work: Path, packages: Path | None) -> Row | str:
    """A plain Dash app with plotly-resampler: a line a layer, all steps in memory."""
    if not installed("plotly_resampler", packages):
        return _left_out("plotly-resampler")
    return _dash(trace, spikes, count, work, packages, every=0)


def _left_out(package: str) -> str:
    return f"{package} is not installed, so it is left out: pip install --target FOLDER {package}, then --peers FOLDER."


def every_nth(trace: Trace, spikes: Spikes, count: int, work: Path, packages: Path | None) -> Row | str:
    """A plain Dash app: a line a layer, every n-th step."""
    return _dash(trace, spikes, count, work, None, every=max(1, len(trace) // POINTS))


def tensorboard(trace: Trace, spikes: Spikes, count: int, work: Path, packages: Path | None) -> Row | str:
    """TensorBoard's time series: a card a layer, twelve a page, as many steps of each as it keeps."""
    if not installed("tensorboard.main", packages):
        return _left_out("tensorboard")
    log, port = work / f"tensorboard-{len(trace)}", free_port()
    if not log.exists():
        _write_events(trace, log)
    began = time.monotonic()
    command = ["-m", "tensorboard.main", "--logdir", str(log), "--port", str(port)]
    with served(command, port, packages) as server, chromium(CARDS) as browser:
        points = partial(_points, f"http://127.0.0.1:{port}/data/plugin/scalars")
        while not (kept := points(_tag(trace.layers[-1]))) or kept[-1] < len(trace) - 1:
            if time.monotonic() - began > 400:
                return f"TensorBoard had not read its log of {len(trace):,} steps after 400 s and is left out."
            time.sleep(1)
        ready = time.monotonic() - began
        firsts = first_pictures(browser, f"http://127.0.0.1:{port}/#timeseries")
        cards = browser.execute_script("return document.querySelectorAll('line-chart').length")
        taken = zooms(browser, partial(_drag, browser), windows(WIDE, count))
        browser.save_screenshot(str(work / "tensorboard.png"))
        seen = sum(step in points(_tag(trace.layers[layer])) for layer, step in spikes)
        notes = (
            f"TensorBoard: {cards} charts of {len(trace.layers)} are drawn, a zoom changes one of them and asks the "
            f"server for nothing; {len(kept):,} steps of a layer are kept; it had read its log after {ready:.0f} s.",
        )
        return Row("TensorBoard", firsts, taken, memory_mb(server.pid), seen, len(spikes), notes)


def _drag(browser: Any, low: int, high: int) -> None:
    """Drag a box over a part of the first chart; a double click before gives the whole one back."""
    left, top, width, height = browser.execute_script(
        "const box = document.querySelector('line-chart canvas').getBoundingClientRect();"
        "return [box.x, box.y, box.width, box.height];"
    )

    def mouse(kind: str, across: float, down: float, **more: object) -> None:
        at = {"x": left + across * width, "y": top + down * height}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "button": "left", **at, **more})

    for clicks in (1, 2):
        mouse("mousePressed", 0.5, 0.5, buttons=1, clickCount=clicks)
        mouse("mouseReleased", 0.5, 0.5, clickCount=clicks)
    time.sleep(0.5)
    browser.execute_script(RELEASE)
    start, end = low / WIDE, high / WIDE
    mouse("mousePressed", start, 0.1, buttons=1, clickCount=1)
    for share in np.linspace(0.2, 1, 5):
        mouse("mouseMoved", start + share * (end - start), 0.1 + 0.8 * share, buttons=1)
    mouse("mouseReleased", end, 0.9, clickCount=1)


def _tag(layer: str) -> str:
    return f"grad_norm/{layer}"


def _points(address: str, tag: str) -> list[int]:
    """The steps that the server has of one tag; none before it has read the log's beginning."""
    runs = json.load(urlopen(f"{address}/tags"))
    if not any(tag in tags for tags in runs.values()):
        return []
    scalars = json.load(urlopen(f"{address}/scalars?run={quote(next(iter(runs)))}&tag={quote(tag)}"))
    return [step for _, step, _ in scalars]


def _write_events(trace: Trace, folder: Path, block: int = 16_384) -> None:
    """The log that SummaryWriter leaves, one event a step: its own writer takes some 15 minutes for 10^6 x 150."""
    parts = [_field(1, _tag(layer).encode()) + b"\x15" + bytes(4) for layer in trace.layers]
    summary = b"".join(_field(1, part) for part in parts)
    ends = np.cumsum([len(_field(1, part)) for part in parts])
    unfinished = folder.with_suffix(".partial")
    unfinished.mkdir(parents=True, exist_ok=True)
    with (unfinished / "events.out.tfevents.0.made").open("wb") as file:
        file.writelines(_record(b"\x09" + struct.pack("<d", 0.0) + _field(3, b"brain.Event:2")))
        for start in range(0, len(trace), block):
            values = trace.read("grad_norm", start=start, stop=start + block).T.astype("<f4", order="C")
            bodies = np.tile(np.frombuffer(summary, np.uint8), (len(values), 1))
            bodies[:, (ends[:, None] - np.arange(4, 0, -1)).ravel()] = values.view(np.uint8)
            for row, body in enumerate(bodies, start):
                head = b"\x09" + struct.pack("<d", 1e9 + row) + b"\x10" + _varint(row)
                file.writelines(_record(head + _field(5, body.tobytes())))
    unfinished.rename(folder)


def _record(data: bytes) -> Iterator[bytes]:
    """Length and data, each with its masked checksum: https://www.tensorflow.org/tutorials/load_data/tfrecord."""
    size = struct.pack("<Q", len(data))
    yield from (size, _masked(size), data, _masked(data))


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _field(number: int, data: bytes) -> bytes:
    """A protocol buffer's field of bytes, of event.proto or summary.proto."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


PEERS: dict[str, Callable[[Trace, Spikes, int, Path, Path | None], Row | str]] = {
    "tensorboard": tensorboard,
    "resampler": resampler,
    "every-nth": every_nth,
}
