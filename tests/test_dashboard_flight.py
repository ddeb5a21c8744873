"""The event view's panel of single parameters: the flight recorder's numbers, named, and no card without them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from starlette.testclient import TestClient

from foreshock.dashboard.app import create_app
from foreshock.dashboard.flight import detail_of
from foreshock.dashboard.panels import panel
from foreshock.dashboard.report import write_report
from foreshock.dashboard.view import View, look
from foreshock.probes import find_spikes
from foreshock.probes.alerts import Alerts
from foreshock.probes.flight import BY_PARAMETER, FlightRecorder
from foreshock.traces import TraceWriter, open_trace
from foreshock.traces.reader import Trace

MADE = synthetic.make(1500, 2)
NAMES = {f"encoder.{layer}.{kind}": layer for layer in MADE.layers for kind in ("weight", "bias", "frozen")}
SHARE = {"weight": 0.8, "bias": 0.6, "frozen": np.nan}


def norms() -> np.ndarray:
    """Each layer's norm, parted: every bias rises late, at twice the height."""
    rows = [MADE.grad_norm[MADE.layers.index(layer)] * SHARE[name.rsplit(".", 1)[1]] for name, layer in NAMES.items()]
    rows = np.stack(rows)
    rows[1::3, 1015] *= 40
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs `flown`, with a flight recorder, and `plain`, without."""
    root = tmp_path_factory.mktemp("runs")
    synthetic.write_run(root / "plain", MADE)
    writer = synthetic.open_writer(root / "flown", MADE, parameters=NAMES)
    alerts: Any = Alerts(writer, (), flight=FlightRecorder(writer))
    each = norms()
    for start in range(0, 1500, 64):
        rows = slice(start, start + 64)
        values = {name: series[rows] for name, series in MADE.scalars.items()}
        alerts.extend(MADE.steps[rows], {"grad_norm": MADE.grad_norm[:, rows], BY_PARAMETER: each[:, rows], **values})
    alerts.close()
    return root


def event_view(trace: Trace, near: int = 1012) -> View:
    spikes = find_spikes(trace)
    spike = min(spikes, key=lambda s: (abs(s.onset - near), trace.layers.index(s.layer)))
    return look(trace, spikes, [], columns=1, event=f"{spike.layer}@{spike.onset}")


def test_the_numbers_are_the_recorded_ones(root: Path) -> None:
    trace = open_trace(root / "flown")
    view = event_view(trace)
    assert view.event is not None
    detail = view.event.flight
    assert detail is not None
    assert set(detail.layers) == {spike.layer for spike in view.event.spikes}
    first = min(spike.onset for spike in view.event.spikes)
    steps = (view.event.step + detail.offsets).astype(int)
    assert (steps[0], steps[-1]) == (view.event.step - 24, view.event.step + view.event.last_offset)
    for name, row, peak in zip(detail.parameters, detail.ratio, detail.peaks, strict=True):
        all_steps = norms()[list(NAMES).index(name)]
        expected = all_steps[steps] / np.median(all_steps[first - 128 : first])
        np.testing.assert_allclose(row, expected, rtol=1e-5)
        if not name.endswith("frozen"):
            assert peak == pytest.approx(expected[steps >= view.event.step].max(), rel=1e-5)
    assert np.isneginf(detail.peaks[2::3]).all()


def test_the_panel_names_the_loudest(root: Path) -> None:
    view = event_view(open_trace(root / "flown"))
    drawn = panel("event_flight").draw(view)
    assert not drawn.absent
    assert drawn.figure is not None
    named = [line for line in drawn.figure["data"] if "name" in line]
    assert len(named) == 4
    assert all(line["name"].endswith(".bias") for line in named)
    low, high = drawn.figure["layout"]["yaxis"]["range"]
    assert all(low < np.log10(y) < high for line in named for y in line["y"])
    (table,) = drawn.tables
    assert len(table.rows) == 4
    assert {row[1] for row in table.rows} == {"1,015"}
    assert f"Loudest of the {3 * len(view.layers)} parameters of {len(view.layers)} layers: " in drawn.words


def test_the_rest_is_drawn_thin_up_to_a_number(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = panel("event_flight")
    monkeypatch.setattr(module, "THIN", 2)
    drawn = module.draw(event_view(open_trace(root / "flown")))
    assert sum(y is None for y in drawn.figure["data"][0]["y"]) == 2
    assert "are not drawn" in drawn.words


@pytest.mark.parametrize("run", ["plain", "flown"])
def test_no_card_without_a_window(root: Path, run: str) -> None:
    trace = open_trace(root / run)
    view = look(trace, [], [], columns=1, event="norm@150")  # calm
    assert panel("event_flight").draw(view).absent
    assert panel("event_flight").draw(look(trace, [], [], columns=1)).absent  # no event yet


def test_two_windows_leave_a_gap_and_a_frozen_one_nothing(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "a", layers=["a"], parameters={"w": "a", "dead": "a"}) as writer:
        writer.extend(np.arange(300), {"grad_norm": np.ones((1, 300))})
        for first, last in ((80, 104), (110, 140)):
            steps = np.arange(first, last + 1)
            both = np.stack([np.full(len(steps), 2.0), np.zeros(len(steps))])
            writer.add_flight(steps, both, cause="error" if first == 110 else "spike", cut=first == 80)
    detail = detail_of(open_trace(tmp_path / "a"), 100, (90, 130), {"a"})
    assert detail is not None
    assert detail.offsets.tolist() == [*range(-10, 5), 4.5, *range(10, 31)]
    assert np.flatnonzero(np.isnan(detail.ratio[0])).tolist() == [15]
    assert np.isnan(detail.ratio[1]).all()  # a normal of 0 has no multiples
    assert detail.peaks.tolist() == [1.0, -np.inf]
    view = look(open_trace(tmp_path / "a"), [], [], columns=1, event="a@100")
    words = panel("event_flight").draw(view).words
    assert words == (
        "Loudest of the 2 parameters of a: w 1.0×. The spike went on for longer than the recorder keeps. "
        "The run ended here by an error."
    )


def test_the_server_sends_the_panel_or_hides_its_card(root: Path) -> None:
    with TestClient(create_app(root).server, base_url="http://127.0.0.1:8050") as client:
        for run, is_there in (("flown", True), ("plain", False)):
            view = event_view(open_trace(root / run))
            assert view.event is not None
            body = {
                "output": "focus.data",
                "outputs": {"id": "focus", "property": "data"},
                "inputs": [{"id": "wanted-focus", "property": "data", "value": {"run": run, "event": view.event.key}}],
                "changedPropIds": ["wanted-focus.data"],
            }
            answer = client.post("/_dash-update-component", json=body)
            assert answer.status_code == 200
            assert ("The loudest parameters" in answer.text) == is_there
            assert answer.json()["sideUpdate"]["card-event_flight"]["hidden"] != is_there


def test_the_report_has_it_too(root: Path, tmp_path: Path) -> None:
    for run, is_there in (("flown", True), ("plain", False)):
        write_report(open_trace(root / run), tmp_path / f"{run}.html")
        assert ("from the flight recorder" in (tmp_path / f"{run}.html").read_text()) == is_there
