"""Which signal warns of dips and which layer is first, as the precursor view shows it; or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic

from foreshock.dashboard import signals as kept
from foreshock.dashboard.follow import Follower
from foreshock.dashboard.panels import panel, panels_in
from foreshock.dashboard.signals import Reports, Signals, signals_of
from foreshock.dashboard.view import Drawn
from foreshock.probes.dips import find_dips
from foreshock.probes.leaderboard import leaderboard
from foreshock.probes.onset_order import onset_order
from foreshock.probes.spikes import find_spikes
from foreshock.traces.reader import Trace, open_trace

PLANTED = tuple(synthetic.Planted(at, 6.0, dip=0.12) for at in range(400, 2400, 250))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return open_trace(
        synthetic.write_run(tmp_path_factory.mktemp("signals") / "a", synthetic.make(2500, 4, planted=PLANTED))
    )


@pytest.fixture(scope="module")
def found(trace: Trace) -> Signals:
    return signals_of("a", trace, find_spikes(trace), find_dips(trace))


def drawn(name: str, signals: Signals) -> Drawn:
    part = panel(name).draw(signals)
    json.dumps(part.figure, allow_nan=False)
    return part


def test_the_best_signal_is_on_top_with_its_numbers(trace: Trace, found: Signals) -> None:
    best = leaderboard(trace, find_dips(trace)).signals[0]
    part = drawn("signal_board", found)
    assert best.name in part.words
    assert "corrected for" in part.words
    figure: Any = part.figure
    assert figure["data"][1]["x"][0] == best.warned.value
    assert figure["layout"]["yaxis"]["range"][1] < 0  # the first row is the highest
    assert best.layer == "patch_embed"
    assert part.tables[0].rows[0][:2] == (best.layer, f"{best.warned.hits}/{best.warned.trials}")


def test_the_order_over_all_events_says_steps_interval_and_p(trace: Trace, found: Signals) -> None:
    order = onset_order(trace, [spike for spike in find_spikes(trace) if not spike.warmup])
    part = drawn("signal_order", found)
    assert order.testable
    assert part.words.startswith("Earlier layers rise first: +")
    assert f"(p = {order.p:.2g})" in part.words
    assert "too sure" in part.words  # where the test is, as its docstring says
    first = max(order.first, key=lambda name: order.first[name])
    assert part.tables[0].rows[0][:2] == (first, f"{order.first[first]:.0%}")


@pytest.mark.parametrize(
    ("made", "board", "order"),
    [
        (synthetic.make(1500, 4), "at least 5 are needed", "5 are needed"),
        (synthetic.make(1500, 2, planted=()), "Not testable: no dips.", "no spikes beyond the warm-up"),
        (synthetic.without(synthetic.make(600, 2, planted=()), "knn_accuracy"), "no kNN curve", "no spikes"),
        (synthetic.make(0, 2, planted=()), "no kNN curve", "no spikes"),
    ],
)
def test_too_little_is_not_testable_and_says_why(tmp_path: Path, made: synthetic.Made, board: str, order: str) -> None:
    run = open_trace(synthetic.write_run(tmp_path / "a", made))
    dips = find_dips(run) if "knn_accuracy" in run.scalars and len(run) else []
    signals = signals_of("a", run, find_spikes(run) if len(run) else [], dips)
    for name, why in (("signal_board", board), ("signal_order", order)):
        words = drawn(name, signals).words
        assert words.startswith("Not testable: "), name
        assert why in words


def test_a_very_long_run_is_left_to_the_commands(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_VALUES", 1000)
    signals = signals_of("a", trace, find_spikes(trace), find_dips(trace))
    assert "the command foreshock leaderboard does it" in drawn("signal_board", signals).words
    assert "the command foreshock onset-order does it" in drawn("signal_order", signals).words


def test_reports_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Follower("a", synthetic.write_run(tmp_path / "a", synthetic.make(1500, 2))).snapshot()
    reports = Reports()
    first = reports.of(snapshot)
    monkeypatch.setattr("foreshock.dashboard.signals.signals_of", None)
    assert reports.of(snapshot) is first


def test_both_panels_stand_in_the_place_of_signals() -> None:
    assert list(panels_in("signals")) == ["signal_order", "signal_board"]
