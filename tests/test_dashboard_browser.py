"""The dashboard in a real browser, on a trace that a real child process is writing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import synthetic
from browsing import being_written, can_browse, chromium, served, severe, text, wait_for
from selenium.webdriver import ActionChains

from foreshock.traces.reader import open_trace

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not can_browse(), reason="no chromium and chromedriver here")]

# The x values of a chart, as plotly holds them.
LAST_X = """
const plot = document.querySelector(`#card-${arguments[0]} .js-plotly-plot`);
if (!plot || !plot.data || !plot.data.length) return -1;
const x = plot.data[arguments[1]].x;
return x.length ? x[x.length - 1] : -1;
"""
SELECT_ALL = "document.querySelector('.ag-header-select-all input').click()"
FINE = "return window.foreshock.kept.fine !== null && Object.keys(window.foreshock.kept.fine.figures).length > 0"
CSV = "return window.foreshock.csv(document.querySelector('#card-knn .js-plotly-plot'))"
NAMES = """
const plot = document.querySelector('#card-patch_projection .js-plotly-plot');
return plot && plot.data ? plot.data.filter((trace) => trace.showlegend).map((trace) => trace.name) : [];
"""
RANGE = "return document.querySelector(`#card-${arguments[0]} .js-plotly-plot`).layout.xaxis.range"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def last_x(browser: Any, card: str, trace: int = 0) -> float:
    return browser.execute_script(LAST_X, card, trace)


def click(browser: Any, css: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", css)


def drag(browser: Any, css: str) -> None:
    """Draw a zoom box with the mouse, from 30 % to 60 % of the width."""
    plot = browser.find_element("css selector", css)
    width = plot.size["width"]
    hand = ActionChains(browser).move_to_element_with_offset(plot, int(-0.2 * width), 5).click_and_hold()
    hand.move_by_offset(int(0.15 * width), 2).move_by_offset(int(0.15 * width), 0).release().perform()


def test_a_growing_run(browser: Any, root: Path) -> None:
    """Points appear without a reload; zoom and the chosen spike survive the ticks; a deleted run says so."""
    run = root / "live"
    with being_written(run, "--live", "40", "--start", "1100", "--rows", "100000"), served(root) as address:
        browser.get(address)
        browser.execute_script("window.notReloaded = true")
        first = wait_for(lambda: max(0, last_x(browser, "patch_projection")), "the first chart is drawn")
        assert first >= 1050
        wait_for(lambda: last_x(browser, "patch_projection") > first + 40, "new points appear")
        wait_for(lambda: text(browser, "#link") == "live", "the stream is live")  # told at the next second
        assert "running" in text(browser, "#badge")
        assert "run=live" in browser.current_url

        drag(browser, "#card-knn .nsewdrag")
        wait_for(lambda: browser.execute_script(RANGE, "knn")[0] > 200, "the drag zooms")
        zoomed = browser.execute_script(RANGE, "knn")
        assert zoomed[1] < last_x(browser, "loss")
        cards = ("knn", "patch_projection", "heatmap", "loss")
        wait_for(lambda: all(browser.execute_script(RANGE, card) == zoomed for card in cards), "all axes are zoomed")

        click(browser, "[data-event='patch_embed@1011']")
        wait_for(lambda: "event=patch_embed%401011" in browser.current_url, "the address names the spike")
        wait_for(lambda: "rose first, at step 1,011" in text(browser, "#card-neighbourhood"), "the close-up opens")

        before = last_x(browser, "heatmap")
        wait_for(lambda: last_x(browser, "heatmap") > before + 20, "ticks go on")
        assert all(browser.execute_script(RANGE, card) == zoomed for card in cards)
        assert "event=patch_embed%401011" in browser.current_url

        click(browser, "#pause")
        wait_for(lambda: text(browser, "#link") == "paused", "it is paused")
        before = last_x(browser, "loss")
        wait_for(lambda: "1" in text(browser, "#detail"), "the summary is there")
        assert last_x(browser, "loss") == before
        click(browser, "#pause")
        click(browser, "#whole")
        wait_for(lambda: last_x(browser, "loss") > before, "it goes on after a pause")
        wait_for(lambda: browser.execute_script(RANGE, "knn")[1] > 1100, "the whole run is shown again")

        moved = root.parent / "gone"
        run.rename(moved)
        shutil.rmtree(moved, ignore_errors=True)
        wait_for(lambda: "deleted" in text(browser, "#badge"), "the deletion is shown")
        assert last_x(browser, "heatmap") > 1100  # what was read is still to be seen
        assert browser.execute_script("return window.notReloaded")
    assert severe(browser) == []


def test_a_run_that_appears(browser: Any, root: Path) -> None:
    with served(root) as address:
        browser.get(address)
        wait_for(lambda: "No runs yet" in text(browser, "#no-runs:not([hidden])"), "it says that there are none yet")
        synthetic.write_run(root / "first", synthetic.make(400, 4, planted=(synthetic.Planted(300, 6.0),)))
        wait_for(lambda: last_x(browser, "patch_projection") > 350, "the new run is shown")
        wait_for(lambda: "finished" in text(browser, "#badge"), "its state is shown")
        assert "All quiet" not in text(browser, "#headline")


def test_without_a_websocket_it_polls(browser: Any, root: Path) -> None:
    script = {"source": "delete window.SharedWorker; window.SharedWorker = undefined;"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        with being_written(root / "a", "--live", "40", "--start", "300", "--rows", "9000"), served(root) as address:
            browser.get(address)
            first = wait_for(lambda: max(0, last_x(browser, "loss")), "the first chart is drawn")
            wait_for(lambda: last_x(browser, "loss") > first + 40, "polling brings new points")
            assert text(browser, "#link") == "polling"
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


def test_from_the_list_to_a_spike_and_back(browser: Any, root: Path) -> None:
    """The list opens a run, a click an event, the strip zooms; the address reopens all of it, and Back goes back."""
    synthetic.write_run(root / "calm", synthetic.make(400, 4, planted=()))
    synthetic.write_run(root / "demo")
    with served(root) as address:
        browser.get(address)
        wait_for(lambda: text(browser, "[data-run='demo']"), "the list is there")
        browser.execute_script(SELECT_ALL)
        wait_for(lambda: text(browser, "#compare-selected") == "Compare 2 runs", "both runs are selected")
        click(browser, "#compare-selected")
        wait_for(lambda: text(browser, "#card-compare_runs caption") == "Runs", "they are compared")
        assert "with=calm" in browser.current_url
        browser.back()
        click(browser, "[data-run='demo']")
        wait_for(lambda: last_x(browser, "patch_projection") > 1400, "the run is shown")
        press(browser, "n")
        wait_for(lambda: "event=" in browser.current_url, "a key goes to a spike")
        drag(browser, "#brush")
        wait_for(lambda: "from=" in browser.current_url, "the strip zooms")
        wait_for(lambda: browser.execute_script(FINE), "finer columns come")
        set_props(browser, "layers", {"value": ["norm", "blocks.03"]})
        wait_for(lambda: "layers=norm" in browser.current_url, "the layers are in the address")
        wait_for(lambda: browser.execute_script(NAMES) == ["norm", "blocks.03"], "the layers are drawn")
        link, zoomed = browser.current_url, browser.execute_script(RANGE, "knn")
        press(browser, "e")
        wait_for(lambda: " rose " in text(browser, "#event-told"), "the event is told in full")
        wait_for(lambda: text(browser, "#card-event_onsets caption") == "Onsets", "and its onsets")
        browser.execute_script("window.foreshock.go('precursors')")
        wait_for(lambda: "at least 5 are needed" in text(browser, "#precursors-told"), "why it is not testable")
        browser.execute_script("window.foreshock.go('settings')")
        wait_for(lambda: "0 events" in text(browser, "#settings-told"), "config and log are shown")
        assert "view=settings" in browser.current_url
        browser.back()
        wait_for(lambda: text(browser, ".fs-view-precursors:not([hidden])"), "Back works")

        browser.get("about:blank")
        browser.get(link)
        wait_for(lambda: browser.execute_script(NAMES) == ["norm", "blocks.03"], "a link draws the same layers")
        assert browser.execute_script(RANGE, "knn") == pytest.approx(zoomed, abs=1)
        event = parse_qs(urlsplit(link).query)["event"][0].split("@")[1]
        wait_for(lambda: f"{int(event):,}" in text(browser, "#card-neighbourhood"), "and the same event")
        assert browser.execute_script(CSV).startswith("series,step,")
        press(browser, "0")
        wait_for(lambda: "from=" not in browser.current_url, "0 shows the whole run")
    assert severe(browser) == []


def test_another_event_is_shown_long_after_the_picture(browser: Any, root: Path) -> None:
    """A run that has ended sends beats only, and they must not keep the page from asking for another event."""
    synthetic.write_run(root / "demo")
    with served(root) as address:
        browser.get(f"{address}?view=event&run=demo&event=patch_embed@1011")
        wait_for(lambda: "1,011" in text(browser, "#event-told"), "an event is shown")
        set_props(browser, "push", {"data": {"run": "demo", "kind": "beat", "cursor": None}})
        browser.execute_script("window.foreshock.choose('patch_embed@619')")
        wait_for(lambda: "step 619" in text(browser, "#event-told"), "another one is")
    assert severe(browser) == []


def test_no_view_goes_on_showing_another_run(browser: Any, root: Path) -> None:
    """Where a run has nothing to show, the panels of the run before are put away, and it is said why."""
    synthetic.write_run(root / "demo")
    (root / "bad").mkdir()
    (root / "bad" / "zarr.json").write_text('{"attributes": {"format": "foreshock-trace"}}')
    with served(root) as address:
        browser.get(f"{address}?view=precursors&run=demo")
        for view in ("precursors", "event", "settings"):
            browser.execute_script("window.foreshock.go(arguments[0])", view)
            wait_for(lambda view=view: text(browser, f"#{view}-cards:not([hidden])"), f"{view} is shown")
        set_props(browser, "run", {"value": "bad"})
        for view in ("settings", "event", "precursors"):
            browser.execute_script("window.foreshock.go(arguments[0])", view)
            told = f"#{view}-told"
            wait_for(lambda told=told: "cannot be read" in text(browser, told), f"{view} says why")
            assert not text(browser, f"#{view}-cards:not([hidden])")
        set_props(browser, "run", {"value": "demo"})
        wait_for(lambda: text(browser, "#precursors-cards:not([hidden])"), "the run is shown again")
    assert severe(browser) == []


# Counts what is asked after the call, and zooms.
ZOOM = """
window.asked = 0;
const before = window.fetch;
window.fetch = (address, ...rest) => {
  window.asked += /columns$/.test(address) ? 1 : 0;
  return before(address, ...rest);
};
window.foreshock.setZoom([600, 700]);
window.foreshock.setZoom([600, 700]);
"""
PICTURES = "return document.querySelectorAll('#card-heatmap .imagelayer image').length"
POINT = """
const plot = document.querySelector("#card-heatmap .js-plotly-plot"), { xaxis, yaxis } = plot._fullLayout;
const box = plot.getBoundingClientRect(), fine = plot.data[0].fine, at = fine.x.indexOf(arguments[0]);
const x = box.left + xaxis._offset + xaxis._length * (fine.x[at] - xaxis.range[0]) / (xaxis.range[1] - xaxis.range[0]);
const y = box.top + yaxis._offset + yaxis._length * 0.5 / plot.data[0].layers.length;
plot.dispatchEvent(new MouseEvent("mousemove", { clientX: x, clientY: y, bubbles: true }));
return [plot.querySelector(".fs-tip").textContent, window.foreshock.map.value(fine, 0, at)];
"""


# Counts how often each chart is drawn from here on.
COUNTED = """
window.drawn = {};
Object.defineProperty(window, 'Plotly', { configurable: true, set(made) {
  const react = made.react;
  made.react = (node, ...rest) => {
    window.drawn[node.dataset.chart] = (window.drawn[node.dataset.chart] || 0) + 1;
    return react(node, ...rest);
  };
  Object.defineProperty(window, 'Plotly', { value: made });
} });
"""


def test_the_first_picture_is_asked_for_ahead_and_drawn_once(browser: Any, root: Path) -> None:
    synthetic.write_run(root / "a")
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNTED})
    try:
        with served(root) as address:
            browser.get(f"{address}?view=run&run=a&scale=z&from=900&to=1100")
            wait_for(lambda: text(browser, "#headline"), "Dash has answered too")
            wait_for(lambda: browser.execute_script(FINE), "the zoom has come")
            wait_for(lambda: last_x(browser, "loss") > 0, "the last chart is drawn")
            asked = browser.execute_script(
                "return performance.getEntriesByType('resource').map((e) => e.name.split('/').pop())"
            )
            assert asked.count("picture") == 1
            assert browser.execute_script("return window.drawn.knn") <= 3, "whole, and the zoom coarse and fine"
            wide = browser.execute_script("return document.querySelector('#card-knn .js-plotly-plot').clientWidth")
            assert abs(browser.execute_script("return window.foreshock.kept.columns") - (wide - 90)) <= 40
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


def test_a_zoom_asks_one_question(browser: Any, root: Path) -> None:
    """The map is a picture over a picture, the pointer is told its cell's value, hidden charts are not drawn."""
    run = synthetic.write_run(root / "demo")
    with served(root) as address:
        browser.get(address)
        wait_for(lambda: browser.execute_script(PICTURES) == 1, "the map is drawn")
        browser.execute_script("document.querySelector('#card-heatmap').scrollIntoView()")
        browser.execute_script(ZOOM)
        wait_for(lambda: browser.execute_script(PICTURES) == 2, "finer columns lie over the map")
        wait_for(lambda: browser.execute_script(RANGE, "knn") == [600, 700], "the other charts follow")
        time.sleep(2.5)  # longer than it takes to ask again
        assert browser.execute_script("return window.asked") == 1
        step = 619
        told, value = browser.execute_script(POINT, step)
        assert told.startswith("patch_embed at step 619: ")
        norms = open_trace(run).read("grad_norm", layer="patch_embed")
        assert value == pytest.approx(norms[step] / np.median(norms[step - 256 : step]), rel=0.06)
        assert browser.execute_script("return document.querySelectorAll('.fs-view-compare .main-svg').length") == 0
    assert severe(browser) == []


def press(browser: Any, key: str) -> None:
    ActionChains(browser).send_keys(key).perform()


def set_props(browser: Any, name: str, props: dict[str, Any]) -> None:
    browser.execute_script("window.dash_clientside.set_props(arguments[0], arguments[1])", name, props)
