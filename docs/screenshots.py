"""Take the README's pictures of the dashboard, light and dark, with headless Chromium.

    python docs/screenshots.py runs/ demo

writes docs/dashboard-light.png and docs/dashboard-dark.png (1440 pixels wide); `--view event --name event` pictures
another view, `--crop 1200` cuts below, `--width 390` and `--out DIR` for other ones. `docs/made_up.py`
writes the runs of those pictures that are not of the demo.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync --hide-scrollbars"
)
LARGEST = 400_000  # bytes; a larger picture is cut down to 256 colours
SERVE = "import sys; from foreshock.dashboard.app import serve; serve(sys.argv[1], port=int(sys.argv[2]))"


@contextmanager
def chromium(width: int, height: int) -> Iterator[webdriver.Chrome]:
    """A fresh headless Chromium of the system's, with a profile that is thrown away."""
    options, profile = webdriver.ChromeOptions(), tempfile.mkdtemp()
    options.binary_location = str(shutil.which("chromium"))
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700},
        )
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The dashboard of `root` in a process of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(root), str(port)])  # noqa: S603
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(200):
            try:
                urlopen(address).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def capture(driver: webdriver.Chrome, address: str, scheme: str, *, whole: bool = True) -> Image.Image:
    """The page at `address` once its charts are drawn, to its full length or to the window's."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    driver.get(address)
    drawn = "return document.querySelectorAll('.fs-view:not([hidden]) .scatterlayer .trace, .ag-row').length >= 3"
    for _ in range(200):
        if driver.execute_script(drawn):
            break
        time.sleep(0.1)
    time.sleep(4)
    options = {"format": "png", "captureBeyondViewport": whole}
    if whole:
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", options)
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def main() -> None:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("run")
    parser.add_argument("--view", default="run")
    parser.add_argument("--name", default="dashboard")
    parser.add_argument("--event", default="", help="layer@step to show close up")
    parser.add_argument("--crop", type=int, default=10_000, help="pixels of height that are kept")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    query = urlencode({"view": args.view, "run": args.run} | ({"event": args.event} if args.event else {}))
    with served(args.root) as address, chromium(args.width, args.height) as driver:
        for scheme in ("light", "dark"):
            picture = capture(driver, f"{address}?{query}", scheme)
            picture = picture.crop((0, 0, picture.width, min(picture.height, args.crop)))
            path = args.out / f"{args.name}-{scheme}.png"
            picture.save(path, optimize=True)
            if path.stat().st_size > LARGEST:
                picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")
        for entry in driver.get_log("browser"):
            if entry["level"] == "SEVERE":
                print(entry["message"], file=sys.stderr)


if __name__ == "__main__":
    main()
