"""The CSV of a panel: exactly the recorded values of the visible range, and a clean refusal of anything else."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from browsing import can_browse, chromium, served, wait_for
from starlette.testclient import TestClient

from foreshock.dashboard import rows as kept
from foreshock.dashboard.app import create_app
from foreshock.dashboard.panels import panels
from foreshock.traces.reader import Trace, open_trace

ORIGIN = "http://127.0.0.1:8050"
BIG = 4321.0  # a spike of one step


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rows")
    made = synthetic.make(1500, 3)
    made.grad_norm[0, 777] = BIG
    made.grad_norm[2, 778] = np.inf
    named = synthetic.Made((*made.layers[:-1], 'a "name", with commas'), made.steps, made.grad_norm, made.scalars)
    synthetic.write_run(root / "a/b", named)
    return root


@pytest.fixture(scope="module")
def trace(root: Path) -> Trace:
    return open_trace(root / "a/b")


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(create_app(root).server, base_url=ORIGIN) as client:
        yield client


def ask(client: TestClient, **given: Any) -> Any:
    return client.get("/rows.csv", params={"run": "a/b", "panel": "knn", "from": "0", "to": "100", **given})


def table(answer: Any) -> tuple[list[str], np.ndarray]:
    """Header, and the cells as f64[rows, columns], NaN where nothing stands."""
    assert answer.status_code == 200, answer.text
    head, *rows = csv.reader(io.StringIO(answer.text))
    return head, np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])


def test_the_map_has_every_layer_at_every_step_to_the_last_bit(client: TestClient, trace: Trace) -> None:
    answer = ask(client, panel="heatmap", **{"from": "699.5", "to": "900.2"})
    head, cells = table(answer)
    assert head == ["step", *(f"grad_norm/{layer}" for layer in trace.layers)]
    np.testing.assert_array_equal(cells[:, 0], np.arange(700, 901))
    np.testing.assert_array_equal(cells[:, 1:].astype(np.float32), trace["grad_norm"][:, 700:901].T)
    assert cells[77, 1] == BIG
    assert np.isinf(cells[78, 3])
    assert answer.headers["content-disposition"] == 'attachment; filename="a_b-heatmap.csv"'


def test_scalars_are_exact_and_unmeasured_is_empty(client: TestClient, trace: Trace) -> None:
    head, cells = table(ask(client, panel="knn", **{"from": "1400", "to": "1e9"}))
    assert head == ["step", "knn_accuracy", "knn_queries"]
    np.testing.assert_array_equal(cells[:, 1], trace["knn_accuracy"][1400:])
    assert np.isnan(cells[1, 1])
    head, _ = table(ask(client, panel="loss"))
    assert head == ["step", "loss", "chance_loss"]  # of the panel's series those that the run has


def test_lines_are_the_usual_layers_or_the_chosen_ones(client: TestClient) -> None:
    head, _ = table(ask(client, panel="patch_projection"))
    assert head == ["step", "grad_norm/patch_embed", "grad_norm/blocks.01", "grad_norm/blocks.02"]
    head, _ = table(ask(client, panel="patch_projection", layers=["blocks.00", 'a "name", with commas']))
    assert head == ["step", "grad_norm/blocks.00", 'grad_norm/a "name", with commas']


def test_an_event_counts_from_its_onset(client: TestClient, trace: Trace) -> None:
    for panel, columns in (("event_layers", 5), ("neighbourhood", 5), ("event_knn", 2), ("event_loss", 1)):
        head, cells = table(ask(client, panel=panel, event="patch_embed@777", **{"from": "-24.5", "to": "72.5"}))
        assert len(head) == columns + 1
        np.testing.assert_array_equal(cells[:, 0], np.arange(777 - 24, 777 + 73))


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({"run": "nothing"}, 404, "no run called 'nothing'"),
        ({"run": "../rows"}, 404, "no run called"),
        ({"run": "/etc/passwd"}, 404, "no run called"),
        ({"panel": "nothing"}, 404, "choose one of"),
        ({"panel": "precursor_lags"}, 404, "choose one of knn"),
        ({"from": "x"}, 400, "from='x' is not a step"),
        ({"to": "nan"}, 400, "is not a step"),
        ({"to": "1e999"}, 400, "is not a step"),
        ({"from": "9" * 5000}, 400, "is not a step"),
        ({"panel": "heatmap", "layers": "nothing"}, 400, "no layer 'nothing'"),
        ({"panel": "event_knn"}, 400, "Which event?"),
        ({"panel": "event_knn", "event": "nothing@3"}, 400, "no spike is called"),
        ({"panel": "event_knn", "event": "patch_embed@x"}, 400, "no spike is called"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    client: TestClient, given: dict[str, str], status: int, why: str
) -> None:
    answer = ask(client, **given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert why in answer.text
    assert len(answer.text) < 500


def test_a_missing_range_is_refused_and_so_is_another_site(client: TestClient) -> None:
    assert client.get("/rows.csv", params={"run": "a/b", "panel": "knn"}).status_code == 400
    assert client.get("/rows.csv").status_code == 404
    assert client.post("/rows.csv").status_code == 405
    assert client.get("/rows.csv", headers={"host": "evil.example"}).status_code == 403


def test_a_range_outside_the_run_holds_no_rows(client: TestClient) -> None:
    assert ask(client, **{"from": "-900", "to": "-1"}).text == "step,knn_accuracy,knn_queries\n"


def test_a_huge_range_is_refused_with_the_remedy(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_VALUES", 1000)
    assert ask(client, panel="heatmap", **{"from": "0", "to": "199"}).status_code == 200  # 5 layers, 200 steps
    answer = ask(client, panel="heatmap", **{"from": "0", "to": "200"})
    assert answer.status_code == 413
    assert "zoom in" in answer.text


def test_a_run_that_is_deleted_or_broken_is_refused(client: TestClient, root: Path) -> None:
    run = synthetic.write_run(root / "gone", synthetic.make(300, 2))
    (root / "bad").mkdir()
    (root / "bad" / "zarr.json").write_text('{"attributes": {"format": "foreshock-trace"}}')
    wait_for(lambda: ask(client, run="gone").status_code == 200, "it is listed")
    wait_for(lambda: ask(client, run="bad").status_code == 409, "the broken one is listed")
    shutil.rmtree(run)
    assert ask(client, run="gone", panel="heatmap").status_code == 409


def test_every_chart_of_one_run_has_rows() -> None:
    for name, panel in panels().items():
        if panel.PLACE in ("main", "event", "side") and panel.HEIGHT:
            assert kept.rows_kind(panel) or name == "event_flight", name


@pytest.mark.browser
@pytest.mark.skipif(not can_browse(), reason="no chromium and chromedriver here")
def test_a_click_saves_the_rows_in_view_and_tells_of_a_refusal(root: Path, tmp_path: Path) -> None:
    with served(root) as address, chromium(tmp_path / "profile") as browser:
        browser.get(f"{address}?view=run&run=a/b&from=700&to=799&event=patch_embed@777")
        drawn = "return document.querySelectorAll('#card-{} .scatterlayer .trace').length"
        wait_for(lambda: browser.execute_script(drawn.format("loss")), "it is drawn")
        wait_for(lambda: browser.execute_script(drawn.format("neighbourhood")), "the close-up is drawn")
        browser.execute_script(CATCH)
        for card, rows in (("heatmap", 100), ("neighbourhood", 97)):
            browser.execute_script("window.caught = null")
            browser.execute_script(f"document.querySelector(\"[data-save='csv'][data-panel='{card}']\").click()")
            text = wait_for(lambda: browser.execute_script("return window.caught"), f"{card} is saved")
            lines = text.splitlines()
            assert lines[0].startswith("step,grad_norm/patch_embed,")
            assert len(lines) == rows + 1
            assert any(line.startswith(f"777,{BIG}") for line in lines)
        browser.execute_script("window.fetch = async () => ({ok: false, text: async () => 'Too much.'})")
        browser.execute_script("document.querySelector(\"[data-save='csv'][data-panel='loss']\").click()")
        note = "return (document.querySelector('#card-loss [role=alert]') || {}).textContent"
        assert wait_for(lambda: browser.execute_script(note), "it says why") == "Too much."


# Instead of being downloaded, a file is kept as text.
CATCH = """
URL.createObjectURL = (blob) => { blob.text().then((text) => { window.caught = text; }); return "#"; };
HTMLAnchorElement.prototype.click = function () {};
"""
