"""Every view checked by axe (axe-core, WCAG 2.1 A and AA) in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from browsing import can_browse, chromium, served, wait_for

from foreshock.dashboard.report import write_report
from foreshock.dashboard.views import views
from foreshock.traces.reader import open_trace

axe_core = pytest.importorskip("axe_core_python.base", reason="no axe-core-python here")

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not can_browse(), reason="no chromium and chromedriver here")]

RULES = """
const done = arguments[arguments.length - 1];
const told = (node) => node.target.join(" ") + " " + node.html.slice(0, 160);
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], resultTypes: ["violations"]})
  .then((found) => done(found.violations.map((broken) => [broken.id, broken.nodes.slice(0, 3).map(told)])));
"""
DRAWN = "return document.querySelectorAll('#card-loss .scatterlayer .trace').length"
SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
GRID = """
const grid = document.querySelector('#runs-grid .ag-center-cols-viewport');
const cells = document.querySelectorAll('#runs-grid .ag-header-cell').length;
return cells > 5 ? cells : grid.scrollWidth - grid.clientWidth;
"""
LAYERS = ("patch_embed", "module.student_network.encoder." + "very_long_name." * 5 + "proj", "<b>x</b>", "$a", "norm")
SHOWN = "return document.querySelectorAll(`.fs-view-${arguments[0]}:not([hidden])`).length > 0"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("access")
    for seed in (0, 1):
        made = synthetic.make(1300, 3, seed=seed)
        writer = synthetic.open_writer(root / f"run-{seed}", replace(made, layers=LAYERS))
        synthetic.append(writer, made, slice(0, 1300))
        writer.event(1012, "intervention", "patch_embed rose 6.9-fold: its update was skipped")
        writer.close()
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as address:
        yield address


def violations(browser: Any) -> list[Any]:
    source = Path(axe_core.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    browser.execute_script(source)
    return browser.execute_async_script(RULES)


def scheme(browser: Any, name: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["light", "dark"])
def test_no_view_breaks_a_rule(browser: Any, address: str, name: str, width: int) -> None:
    scheme(browser, name, width)
    browser.get(f"{address}?view=run&run=run-0")
    wait_for(lambda: browser.execute_script(DRAWN), "it is drawn")
    broken, wide = {}, []
    for view in views():
        browser.execute_script("window.foreshock.go(arguments[0])", view)
        wait_for(lambda view=view: browser.execute_script(SHOWN, view), f"{view} is shown")
        if view == "runs":
            wait_for(lambda: browser.execute_script("return document.querySelector('[data-run]') !== null"), "the list")
            wait_for(lambda: width > 700 or browser.execute_script(GRID) <= 1, "on a phone the grid fits")
        broken |= {f"{view}: {rule}": nodes for rule, nodes in violations(browser)}
        wide += [view] if browser.execute_script(SIDEWAYS) > 1 else []
    assert broken == {}
    assert wide == []  # none is wider than the window


def test_the_report_breaks_no_rule(browser: Any, root: Path, tmp_path: Path) -> None:
    report = write_report(open_trace(root / "run-0"), tmp_path / "report.html").as_uri()
    for name, width in (("light", 1440), ("dark", 390)):
        scheme(browser, name, width)
        browser.get(report)
        wait_for(lambda: browser.execute_script("return document.documentElement.dataset.drawn"), "it is drawn")
        assert violations(browser) == []
        assert browser.execute_script(SIDEWAYS) <= 1
