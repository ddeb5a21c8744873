"""What was done to a run and the staleness control's accuracies in its charts; very many layers around one event."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from foreshock.dashboard.follow import Follower
from foreshock.dashboard.panels import panel
from foreshock.dashboard.pushes import Look, update
from foreshock.dashboard.view import View, look
from foreshock.probes.dips import find_dips
from foreshock.probes.spikes import find_spikes
from foreshock.traces.reader import open_trace

SKIPPED = "patch_embed rose 6.9-fold: its update was skipped"
STALE = (
    "kNN accuracy 48.0 % against a queue of the last 24 steps, 51.0 % against the same images encoded anew: half is it"
)
FRESH = 0.51


def written(path: Path, *, close: bool = True) -> Path:
    """A run with a dip at 1024, its accuracy against fresh keys, and two remarks."""
    made = synthetic.make(1500, 12)
    fresh = np.full(1500, np.nan)
    fresh[1024] = FRESH
    made = replace(made, scalars={**made.scalars, "knn_accuracy_fresh": fresh})
    writer = synthetic.open_writer(path, made)
    synthetic.append(writer, made, slice(0, 1500))
    writer.event(1012, "intervention", SKIPPED)
    writer.event(1024, "staleness", STALE)
    writer.event(1100, "note", "by hand")
    writer.close() if close else writer.flush()
    return path


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    trace = open_trace(written(tmp_path_factory.mktemp("marks") / "run"))
    return look(trace, find_spikes(trace), find_dips(trace))


def trace_of(figure: Any, name: str) -> Any:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


@pytest.mark.parametrize("name", ["knn", "patch_projection"])
def test_an_intervention_is_marked_and_told(view: View, name: str) -> None:
    drawn = panel(name).draw(view)
    marks = trace_of(drawn.figure, "intervention")
    assert marks["x"] == [1012]
    assert marks["showlegend"] is drawn.figure["layout"]["showlegend"] is True  # type: ignore[index]
    assert marks["hovertext"] == [f"step 1,012: {SKIPPED}"]
    assert f"1 intervention, the last at step 1,012: {SKIPPED}." in drawn.words
    quiet = panel(name).draw(replace(view, remarks=()))
    assert trace_of(quiet.figure, "intervention")["showlegend"] is False
    assert "intervention" not in quiet.words


def test_the_staleness_control_is_drawn_and_told(view: View) -> None:
    drawn = panel("knn").draw(view)
    fresh = trace_of(drawn.figure, "fresh keys")
    assert fresh["y"] == [pytest.approx(100 * FRESH)]
    assert abs(fresh["x"][0] - 1024) <= 2
    assert fresh["meta"] == "columns"  # it grows with the run
    assert trace_of(drawn.figure, "dip")["hovertext"][0].endswith("<br>half is it")
    assert "and recovered by 1,032, half is it" in drawn.words
    scalars = {k: v for k, v in view.columns.scalars.items() if k != "knn_accuracy_fresh"}
    without = panel("knn").draw(replace(view, columns=replace(view.columns, scalars=scalars), remarks=()))
    assert not without.figure["layout"]["showlegend"]  # type: ignore[index]


def test_a_new_remark_reaches_a_page_that_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreshock.dashboard.follow.REFRESH_S", 0.0)
    made = synthetic.make(1500, 4)
    writer = synthetic.open_writer(tmp_path / "run", made)
    synthetic.append(writer, made, slice(0, 1500))
    writer.flush()
    follower = Follower("run", tmp_path / "run")
    first = update(follower.snapshot(), None, Look())
    assert first is not None
    writer.event(1012, "intervention", SKIPPED)
    writer.flush()
    second = update(follower.snapshot(), first.cursor, Look())
    assert second is not None
    assert second.drawn is not None
    assert SKIPPED in second.drawn["patch_projection"].words
    assert trace_of(second.push["figures"]["knn"], "intervention")["x"] == [1012]
    writer.close()


def many(path: Path, rising: int) -> View:
    """150 layers, of which the first `rising` rise at 600."""
    made = synthetic.make(900, 148, planted=(synthetic.Planted(600, 6.0),))
    calm = np.exp(np.random.default_rng(0).normal(0, 0.1, made.grad_norm.shape)).astype(np.float32)
    calm[:rising] = made.grad_norm[:rising]
    trace = open_trace(synthetic.write_run(path, replace(made, grad_norm=calm)))
    spikes = [spike for spike in find_spikes(trace) if spike.layer == "patch_embed"]
    return look(trace, spikes, event=f"patch_embed@{spikes[0].onset}")


@pytest.mark.parametrize("name", ["neighbourhood", "event_layers"])
def test_of_very_many_layers_those_that_rose_are_ridges(tmp_path: Path, name: str) -> None:
    figure = panel(name).draw(many(tmp_path / "few", 5)).figure
    ticks = figure["layout"]["yaxis"]["ticktext"]  # type: ignore[index]
    assert ticks[0] == "<b>patch_embed</b>"
    rose = len(ticks) - 1
    assert 5 <= rose < 12  # a calm layer may seem to rise
    assert ticks[-1] == f"{150 - rose} others"
    lines = [trace for trace in figure["data"] if trace.get("fill") == "tonexty"]  # type: ignore[index]
    assert len(lines) == rose + 1
    rest = lines[-1]["customdata"]
    assert max(rest) < 2  # the highest of those that stayed calm
    assert "fill" not in panel(name).draw(many(tmp_path / "all", 150)).figure["data"][0]  # type: ignore[index]


def test_where_very_many_rose_there_is_a_map(tmp_path: Path) -> None:
    figure = panel("neighbourhood").draw(many(tmp_path / "all", 150)).figure
    assert figure["data"][0]["type"] == "heatmap"  # type: ignore[index]
    assert figure["data"][0]["z"]["shape"][0] == 150  # type: ignore[index]
    assert len(figure["data"][1]["x"]) > 100  # type: ignore[index]
