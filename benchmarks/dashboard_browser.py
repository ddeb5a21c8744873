"""Pages in headless Chromium: first picture (s), zooms (ms, bytes, tasks) by the page's own clock; server memory (MB).

A page is told apart by one JavaScript expression, true once its data is painted. A zoom runs from the input to the
second frame after the page shows what was asked for, so that it is on the screen.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from selenium import webdriver

__all__ = [
    "Row",
    "Zoom",
    "children",
    "chromium",
    "cpu_seconds",
    "first_pictures",
    "free_port",
    "installed",
    "memory_mb",
    "served",
    "wait",
    "windows",
    "zooms",
]

FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-background-networking --window-size=1440,900"
# What every page runs before its own scripts: notes its first picture and its long tasks, and times a zoom.
NOTE = """
(() => {
  const tasks = [0], keep = (found) => tasks.push(...found.map((task) => task.duration));
  const observer = new PerformanceObserver((list) => keep(list.getEntries()));
  observer.observe({ type: "longtask" });
  const sent = (kind) => performance.getEntriesByType(kind).reduce((sum, entry) => sum + entry.transferSize, 0);
  const zoom = (from, there) => {
    performance.clearResourceTimings();
    tasks.length = 1;
    bench.zoomed = new Promise((done) => {
      const told = () => { keep(observer.takeRecords()); done([bench.took, sent("resource"), Math.max(...tasks)]); };
      const drawn = () => { bench.took = performance.now() - from; setTimeout(told, 50); };
      const look = () => requestAnimationFrame(there() ? () => requestAnimationFrame(drawn) : look);
      look();
    });
  };
  const bench = (window.bench = { zoom, first: null });
  const painted = () => (PAINTED);
  const look = () => requestAnimationFrame(painted() ? () => {
    bench.first = [performance.now(), sent("resource") + sent("navigation")];
  } : look);
  look();
})();
"""


@dataclass(frozen=True)
class Zoom:
    """`ms` from input to pixels, `sent` bytes, `task`: the longest task of the main thread, ms (0: below 50)."""

    ms: float
    sent: float
    task: float


@dataclass(frozen=True)
class Row:
    """One way to look at the run; `firsts` (s, bytes) of a cold cache and of warm ones, `seen` of `planted` spikes."""

    name: str
    firsts: Sequence[tuple[float, float]]
    zooms: Sequence[Zoom]
    memory: float
    seen: int
    planted: int
    notes: tuple[str, ...] = ()

    @staticmethod
    def head() -> str:
        """The table's head, in Markdown."""
        columns = (
            *("", "first picture cold / warm, s", "sent for it cold / warm, kB", "zoom median / worst, ms"),
            *("sent a zoom median / most, kB", "longest task of a zoom, ms", "server, MB", "spikes of one step seen"),
        )
        return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |", 1) for cells in (columns, ["---"] * 8))

    def __str__(self) -> str:
        (cold, cold_sent), (warm, warm_sent) = self.firsts[0], min(self.firsts[1:])
        cells = (
            self.name,
            f"{cold:.2f} / {warm:.2f}",
            f"{cold_sent / 1000:,.0f} / {warm_sent / 1000:,.0f}",
            _spread([zoom.ms for zoom in self.zooms]),
            _spread([zoom.sent / 1000 for zoom in self.zooms]),
            f"{longest:,.0f}" if (longest := max(zoom.task for zoom in self.zooms)) else "below 50",
            f"{self.memory:,.0f}",
            f"{self.seen} of {self.planted}",
        )
        return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} / {max(values):,.0f}"


@contextmanager
def chromium(painted: str) -> Iterator[Any]:
    """A fresh headless Chromium with a profile that is thrown away; `painted` is true once a page shows its data."""
    options, profile = webdriver.ChromeOptions(), tempfile.mkdtemp()
    options.binary_location = str(shutil.which("chromium"))
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.set_script_timeout(60)
        source = NOTE.replace("PAINTED", painted)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@contextmanager
def served(command: Sequence[str], port: int, packages: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Python with the arguments `command` as a server of its own, once it answers on `port`."""
    arguments, quiet = [sys.executable, *command], subprocess.DEVNULL
    server = subprocess.Popen(arguments, stdout=quiet, stderr=quiet, env=_environment(packages))
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)[:200]} ended with code {server.returncode}") from None
                time.sleep(0.1)
        else:
            raise TimeoutError(f"no answer in a minute from {' '.join(command)[:200]}")
        yield server
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def installed(module: str, packages: Path | None) -> bool:
    """Whether a server that is given `packages` can import `module`."""
    command = [sys.executable, "-c", f"import {module}"]
    return not subprocess.run(command, env=_environment(packages), capture_output=True, check=False).returncode


def _environment(packages: Path | None) -> dict[str, str]:
    return {**os.environ, **({"PYTHONPATH": str(packages.resolve())} if packages else {})}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def memory_mb(pid: int) -> float:
    """The most memory that a process and its children now alive have had, in MB. Linux only."""
    return sum(int(_status(part, "VmHWM").split()[1]) for part in (pid, *children(pid))) / 1000


def children(pid: int) -> list[int]:
    """The processes that a process has begun and that are alive. Linux only."""
    told = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in told for child in path.read_text().split()]


def _status(pid: int, field: str) -> str:
    return next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken so far, without its children. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_pictures(browser: Any, address: str) -> list[tuple[float, float]]:
    """Seconds and bytes of three loads, the first with an empty cache; the last page stays open."""
    firsts = []
    for _ in range(3):
        browser.get("about:blank")
        browser.get(address)
        took, sent = wait(browser, "return window.bench.first")
        firsts.append((took / 1000, sent))
    time.sleep(2)
    return firsts


def wait(browser: Any, script: str, seconds: float = 90) -> Any:
    """What `script` returns once that is true; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := browser.execute_script(script):
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"{script} had no answer in {seconds:g} s")


def windows(steps: int, count: int) -> Iterator[tuple[int, int]]:
    """Step ranges to zoom to, from a quarter of the run down to 200 steps; the same for every page."""
    rng = np.random.default_rng(1)
    for i in range(count):
        span = max(200, int(steps / 4 ** (1 + i % 6)))
        low = int(rng.integers(0, steps - span))
        yield low, low + span


def zooms(browser: Any, begin: Callable[[int, int], object], ranges: Iterable[tuple[int, int]]) -> list[Zoom]:
    """Time a zoom to each range; `begin` has the page call `bench.zoom(from, there)`."""
    taken = []
    for low, high in ranges:
        begin(low, high)
        taken.append(Zoom(*browser.execute_async_script("window.bench.zoomed.then(arguments[0])")))
        time.sleep(0.3)  # what a page does at leisure is not the next zoom's
    return taken
