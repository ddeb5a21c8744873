"""The written report: one file that needs nothing from elsewhere, whatever a run is called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import synthetic
from browsing import can_browse, chromium, wait_for

from foreshock.dashboard.panels import panels_in
from foreshock.dashboard.report import write_report
from foreshock.traces.reader import open_trace

NASTY = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt=1'>{0}"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    made = synthetic.make(1300)
    named = synthetic.Made((*made.layers[:-1], NASTY), made.steps, made.grad_norm, made.scalars)
    return write_report(open_trace(synthetic.write_run(folder / "demo", named)), folder / "deep" / "report.html")


def test_it_holds_everything_itself(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    without_plotly = re.sub(r"/\*\*\s*\* plotly\.js.*?</script>", "", text, flags=re.S)
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", without_plotly) == []
    assert "default-src 'none'" in text
    for name, panel in panels_in("main", "side", "event", "precursors", "signals").items():  # nothing to compare
        recorded = name not in ("collapse", "event_flight")  # no effective rank, no flight recorder in this run
        assert (f"<h2>{panel.TITLE}</h2>" in text) == recorded, name
    assert "patch_embed rose 6.7× at step 1,011" in text
    captions = re.findall("<caption>(.*?)</caption>", text)
    assert set(captions) == {"Spikes", "Dips", "Onsets", "Rates of patch_embed", "Layers", "Signals", "Facts"}
    assert report.stat().st_size < 8_000_000


def test_names_cannot_break_out(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert NASTY not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data is not None
    assert NASTY in json.loads(data[1])["figures"]["heatmap"]["data"][0]["y"]


@pytest.mark.parametrize("rows", [0, 5])
def test_a_run_with_little_in_it(tmp_path: Path, rows: int) -> None:
    made = synthetic.make(20, 2, planted=())
    writer = synthetic.open_writer(tmp_path / "a", synthetic.without(made, *made.scalars))
    synthetic.append(writer, synthetic.without(made, *made.scalars), slice(0, rows))
    writer.close()
    assert "foreshock" in write_report(open_trace(tmp_path / "a"), tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_run_without_events_has_no_empty_charts(tmp_path: Path) -> None:
    """What cannot be shown is left out; that it is not testable, and why, stands there."""
    trace = open_trace(synthetic.write_run(tmp_path / "calm", synthetic.make(900, 3, planted=())))
    text = write_report(trace, tmp_path / "r.html").read_text(encoding="utf-8")
    kept = {name for name in panels_in("main", "side", "event", "precursors", "signals") if f"id='card-{name}'" in text}
    assert kept == {"knn", "patch_projection", "heatmap", "loss", "lr", "events", "signal_order", "signal_board"}
    assert "The event close up" not in text
    assert "Not testable: 0 dips" in text


@pytest.mark.browser
@pytest.mark.skipif(not can_browse(), reason="no chromium and chromedriver here")
def test_a_browser_draws_it_without_a_network(report: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})  # fmt: skip  # noqa: E501
        browser.get(report.as_uri())
        wait_for(lambda: browser.execute_script("return document.documentElement.dataset.drawn"), "it is drawn")
        assert browser.execute_script("return document.querySelectorAll('.js-plotly-plot .main-svg').length") >= 5
        assert browser.execute_script("return window.hurt") is None
        chosen = (
            "const c = document.getElementById('close-up'); c.selectedIndex = 1; c.dispatchEvent(new Event('change'))"
        )
        before = browser.find_element("id", "words-neighbourhood").text
        browser.execute_script(chosen)
        wait_for(lambda: browser.find_element("id", "words-neighbourhood").text != before, "another spike is shown")
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
