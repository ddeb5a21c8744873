"""What is said and drawn of a flagged layer whose onset is not clear, of dips whose spike is elsewhere, of nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from foreshock.dashboard.neighbours import Neighbours
from foreshock.dashboard.panels import panel, panels_in
from foreshock.dashboard.view import View, look
from foreshock.dashboard.words import about_focus, about_slope
from foreshock.probes.dips import find_dips
from foreshock.probes.spikes import find_spikes
from foreshock.traces.reader import open_trace


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """A run with three spikes, close up on one that a dip follows."""
    trace = open_trace(synthetic.write_run(tmp_path_factory.mktemp("told") / "run"))
    return look(trace, find_spikes(trace), find_dips(trace), event="patch_embed@1011")


def blurred(view: View, *layers: str) -> View:
    """The same view, were the onsets of `layers` not clear of the noise; without names, none would be."""
    assert view.event is not None
    focus = view.event.focus
    onset = focus.onset.copy()
    onset[[focus.layers.index(layer) for layer in layers or focus.layers]] = np.nan
    return replace(view, event=replace(view.event, focus=replace(focus, onset=onset)))


def parts(view: View) -> tuple[Neighbours, Any]:
    assert view.event is not None
    return view.event.focus, view.event.spikes


def test_a_flagged_layer_is_never_said_not_to_have_risen(view: View) -> None:
    focus, spikes = parts(blurred(view))
    told = about_focus(focus, spikes)
    assert told.startswith("patch_embed rose 6.7× at step 1,011, ")
    assert told.endswith(
        "no rise stands clear of the noise of the steps before, so which layer was first can't be told."
    )
    assert about_slope(focus) == "No layer rose clear of the noise: too few for an order."
    rows = {row[0]: row for row in panel("event_onsets").draw(blurred(view)).tables[0].rows}
    assert rows["patch_embed"] == ("patch_embed", "1,011", "+0", "6.7×, not clear")
    flagged = {spike.layer for spike in spikes}
    assert all((row[3] == "no clear rise") == (layer not in flagged) for layer, row in rows.items())


def test_one_unclear_layer_among_clear_ones_is_told_apart(view: View) -> None:
    near = blurred(view, "norm")
    focus, spikes = parts(near)
    assert about_focus(focus, spikes).endswith(" norm spiked too. Its onset is not clear of the noise.")
    assert "norm spiked too" not in about_focus(*parts(view))
    drawn = panel("event_layers").draw(near)
    marks = drawn.figure["data"][-1]  # type: ignore[index]
    spike = next(spike for spike in spikes if spike.layer == "norm")
    assert (marks["x"], marks["y"]) == ([spike.onset - focus.step], [-float(focus.layers.index("norm"))])
    assert panel("event_layers").draw(view).figure["data"][-1]["x"] == []  # type: ignore[index]


def test_a_dip_whose_spike_is_in_another_layer_has_its_thread_too(view: View) -> None:
    (pair,) = [pair for pair in view.pairs if pair.spike.layer == "blocks.08"][:1]
    alone = replace(view, chosen=("norm", "blocks.05"), pairs=[pair], event=None)
    data = panel("patch_projection").draw(alone).figure["data"]  # type: ignore[index]
    thread = next(trace for trace in data if trace.get("line", {}).get("dash") == "dot")
    assert thread["x"] == [pair.spike.peak, pair.dip.onset_by, None]
    assert data[-1]["customdata"] == [f"blocks.08@{pair.spike.onset}"]
    labels = panel("patch_projection").draw(alone).figure["layout"]["annotations"]  # type: ignore[index]
    assert labels[0]["text"].startswith("blocks.08: −")


def test_a_card_that_has_nothing_to_show_is_left_out(tmp_path: Path, view: View) -> None:
    assert {name for name, module in panels_in("main").items() if module.draw(view).absent} == {"collapse"}
    made = synthetic.without(synthetic.make(200, 2, planted=()), "lr", "knn_accuracy", "knn_queries")
    made.scalars["effective_rank"] = np.full(200, np.nan)  # recorded, though not measured yet
    bare = look(open_trace(synthetic.write_run(tmp_path / "bare", made)))
    assert {name for name, module in panels_in("main").items() if module.draw(bare).absent} == {"lr"}


def test_one_of_a_kind_is_singular(view: View) -> None:
    one = replace(view, spikes=[view.spikes[0]], dips=view.dips[:1], pairs=(), event=None)
    assert panel("events").draw(one).words == "1 spike, 1 dip."
    spiky = replace(one, chosen=(view.spikes[0].layer,))
    assert ": one spike, " in panel("patch_projection").draw(spiky).words
