"""What a visitor may do in any view, in a real browser: keys, links, odd runs, runs that are cut short or deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import synthetic
from browsing import being_written, can_browse, chromium, served, severe, text, wait_for
from selenium.webdriver import ActionChains

from foreshock.dashboard.views import views

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not can_browse(), reason="no chromium and chromedriver here")]

ODD = (
    "<b>x</b>",
    "$first",
    "$s1/0.5",
    "a&b",
    "名前",
    "module.student_network.encoder." + "very_long_name." * 6 + "norm",
)
GO = "window.foreshock.go(arguments[0])"
SHOWN = "return (document.querySelector('.fs-view:not([hidden])') || {className: ''}).className.split('fs-view-')[1]"
KEPT = "return window.foreshock.kept[arguments[0]]"
SCHEME = "return document.documentElement.dataset.mantineColorScheme"
SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Whether the charts of the view in front that are on the screen are drawn, and there is one at all.
DRAWN = """
const shown = document.querySelectorAll('.fs-view:not([hidden]) .fs-card:not([hidden]) .js-plotly-plot');
return !window.foreshock.charts.busy() && shown.length > 0;
"""
# What asks for runs and comparisons every few seconds asks at the next one.
SOON = "Object.assign(window.foreshock.kept, {askedRuns: 0, askedCompare: 0})"
LAST = "const x = window.foreshock.kept.raw.loss; return x ? x.data[2].x.at(-1) : -1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("visits")
    synthetic.write_run(root / "demo")
    odd = synthetic.make(1300, 4)
    synthetic.write_run(root / "odd", replace(odd, layers=ODD))
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as address:
        yield address


def press(browser: Any, key: str) -> None:
    ActionChains(browser).send_keys(key).perform()


def query(browser: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(browser.current_url).query)


def test_no_view_writes_an_error_to_the_console(browser: Any, address: str) -> None:
    """Not for a run that has ended, with names that plotly or the colours might take for their own."""
    for run in ("odd", "demo"):
        browser.get(f"{address}?view=run&run={run}")
        wait_for(lambda: browser.execute_script(DRAWN), "the page is there")
        for view in views():
            browser.execute_script(GO, view)
            wait_for(lambda view=view: browser.execute_script(SHOWN) == view, f"{view} is in front")
            if view in ("run", "event"):
                wait_for(lambda: browser.execute_script(DRAWN), f"the charts of {view} are drawn")
            assert browser.execute_script(SIDEWAYS) <= 0
        assert severe(browser) == []


def test_nor_while_a_run_is_written(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    run = tmp_path / "runs" / "live"
    with being_written(run, "--live", "40", "--start", "1100", "--rows", "100000"), served(run.parent) as address:
        browser.get(f"{address}?view=run&run=live")
        first = wait_for(lambda: max(0, browser.execute_script(LAST)), "the first picture is there")
        for view in views():
            browser.execute_script(GO, view)
            wait_for(lambda view=view: browser.execute_script(SHOWN) == view, f"{view} is in front")
            before = browser.execute_script(LAST)
            wait_for(
                lambda before=before: browser.execute_script(LAST) > before, f"points come while {view} is in front"
            )
        assert browser.execute_script(LAST) > first
        assert severe(browser) == []


def test_every_key_does_what_the_help_says(browser: Any, address: str) -> None:
    browser.get(f"{address}?view=run&run=demo")
    wait_for(lambda: browser.execute_script(DRAWN), "the charts are drawn")
    press(browser, "n")
    first = wait_for(lambda: query(browser).get("event"), "n goes to a spike")
    press(browser, "p")
    wait_for(lambda: query(browser).get("event", first) != first, "p goes back")
    press(browser, "+")
    closer = wait_for(lambda: browser.execute_script(KEPT, "zoom"), "+ zooms in")
    press(browser, "+")
    wait_for(lambda: browser.execute_script(KEPT, "zoom") != closer, "and further")
    press(browser, "-")
    wait_for(lambda: browser.execute_script(KEPT, "zoom") == closer, "- zooms out")
    press(browser, "0")
    wait_for(lambda: browser.execute_script(KEPT, "zoom") is None, "0 shows the whole run")
    scheme = browser.execute_script(SCHEME)
    press(browser, "t")
    wait_for(lambda: browser.execute_script(SCHEME) != scheme, "t changes the scheme")
    browser.refresh()
    wait_for(lambda: browser.execute_script(DRAWN), "the charts are drawn")
    assert browser.execute_script(SCHEME) != scheme  # it is remembered
    press(browser, "t")
    press(browser, "?")
    wait_for(lambda: browser.execute_script("return document.getElementById('help').open"), "? opens the list")
    press(browser, "n")  # nothing is done behind it
    browser.execute_script("document.getElementById('help').close()")
    wait_for(
        lambda: browser.execute_script("return !document.activeElement.closest('dialog')"), "the page has the keys"
    )
    press(browser, "e")
    wait_for(lambda: browser.execute_script(SHOWN) == "event", "e shows the event")
    for number, view in enumerate(views(), 1):
        press(browser, str(number))
        wait_for(lambda view=view: browser.execute_script(SHOWN) == view, f"{number} shows {view}")
    assert severe(browser) == []


def test_a_link_opens_the_same_in_every_view(browser: Any, address: str) -> None:
    given = {"run": "demo", "layers": "patch_embed,norm", "scale": "z", "from": "600", "to": "700"}
    given |= {"event": "patch_embed@1011"}
    for view in views():
        browser.get("about:blank")
        browser.get(f"{address}?{urlencode({'view': view, **given})}")
        wait_for(lambda view=view: browser.execute_script(SHOWN) == view, f"{view} is in front")
        browser.execute_script(GO, "run")
        wait_for(lambda: browser.execute_script(DRAWN), "the run's charts are drawn")
        assert query(browser) == {name: [value] for name, value in {"view": "run", **given}.items()}
        wait_for(lambda: "step 1,011" in text(browser, "#card-neighbourhood"), f"from {view} the event is the same")


def test_a_run_that_goes_on_from_an_earlier_step_is_drawn_anew(browser: Any, tmp_path: Path) -> None:
    made, run = synthetic.make(1500, 4), tmp_path / "runs" / "a"
    synthetic.write_run(run, made)
    with served(run.parent) as address:
        browser.get(f"{address}?view=run&run=a")
        wait_for(lambda: browser.execute_script(LAST) > 1450, "all of it is drawn")
        synthetic.open_writer(run, made, resume_at=900).close("failed", "RuntimeError: loss is NaN")
        wait_for(lambda: 0 < browser.execute_script(LAST) < 900, "what was cut off is gone")
        wait_for(lambda: "loss is NaN" in text(browser, "#detail"), "why it failed is told")
        wait_for(lambda: text(browser, "#badge") == "failed", "and the badge says so")
        assert browser.execute_script(KEPT, "extent")[1] < 900
    assert severe(browser) == []


def test_a_deleted_run_is_told_in_every_view(browser: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for view in views():
        synthetic.write_run(runs / f"of-{view}", synthetic.make(400, 3, planted=(synthetic.Planted(300, 6.0),)))
    places = {"runs": "#runs-grid", "compare": "#card-compare_runs tbody"}

    def told(view: str, word: str) -> bool:
        browser.execute_script(SOON)
        return word in text(browser, places.get(view, "#badge"))

    with served(runs) as address:
        for view in views():
            there, gone = (f"of-{view}", None) if view in places else ("finished", "deleted")
            browser.get(f"{address}?view={view}&run=of-{view}")
            wait_for(partial(told, view, there), f"{view} shows the run")
            shutil.rmtree(runs / f"of-{view}")
            if gone:
                wait_for(partial(told, view, gone), f"{view} says that it is gone")
            else:
                wait_for(lambda view=view, there=there: not told(view, there), f"it leaves {view}")
            assert severe(browser) == []
