"""What the dashboard's browser tests share: a served root, a headless Chromium, a child process that writes a run."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

TESTS = Path(__file__).parent
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync --window-size=1440,1000"
)
SERVE = "import sys; from foreshock.dashboard.app import serve; serve(sys.argv[1], port=int(sys.argv[2]))"


def can_browse() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def served(root: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(root), str(port)])
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(lambda: _answers(address), "the server answers")
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        urlopen(address).close()
    except OSError:
        return False
    return True


@contextmanager
def being_written(path: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that writes a made-up run at `path`."""
    writer = subprocess.Popen([sys.executable, str(TESTS / "synthetic.py"), str(path), *options])
    try:
        wait_for(lambda: (path / "zarr.json").exists() or writer.poll() is not None, "the run is there")
        yield writer
    finally:
        writer.kill()
        writer.wait()


def wait_for(check: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true answer of `check`; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = check()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain until {what}")


def text(browser: Any, css: str) -> str:
    return browser.execute_script("return (document.querySelector(arguments[0]) || {}).textContent || ''", css)


def severe(browser: Any) -> list[str]:
    """Errors in the console, without those of a page whose server was stopped."""
    gone = ("ERR_CONNECTION", "WebSocket", "did not respond")
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [line for line in told if not any(word in line for word in gone)]
