"""What is said and drawn of a flagged layer whose onset is not clear, of dips whose spike is elsewhere, of nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from foreshock.dashboard.cards import said
from foreshock.dashboard.figures import band
from foreshock.dashboard.names import as_html, brief, pieces, plain
from foreshock.dashboard.neighbours import Neighbours
from foreshock.dashboard.panels import panel, panels_in
from foreshock.dashboard.view import View, look
from foreshock.dashboard.words import about_focus, about_slope, counts, headline, no_event
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
    assert {name for name, module in panels_in("main").items() if module.draw(bare).absent} == {"knn", "lr"}
    near = look(open_trace(tmp_path / "bare"), event="patch_embed@150")
    assert {name for name, module in panels_in("event").items() if module.draw(near).absent} >= {"event_knn"}
    assert panel("neighbourhood").draw(bare).absent
    assert not panel("neighbourhood").draw(view).absent


def test_one_of_a_kind_is_singular(view: View) -> None:
    one = replace(view, spikes=[view.spikes[0]], dips=view.dips[:1], pairs=(), event=None)
    assert panel("events").draw(one).words == "1 spike, 1 dip."
    spiky = replace(one, chosen=(view.spikes[0].layer,))
    assert ": one spike, " in panel("patch_projection").draw(spiky).words


def test_a_band_has_no_height_in_a_gap() -> None:
    """Plotly fills the wrong area where the edges are missing, so they meet there."""
    x, low, high = (
        np.arange(6.0),
        np.array([np.nan, 1, 2, np.nan, np.nan, 3]),
        np.array([np.nan, 2, 3, np.nan, np.nan, 5]),
    )
    lower, upper = band(x, low, high, "$knn")
    assert lower["y"] == [2, 1, 2, 3, 3, 3]
    assert upper["y"] == [2, 2, 3, 3, 3, 5]
    nothing = band(x, np.full(6, np.nan), np.full(6, np.nan), "$knn")
    assert nothing[0]["y"] == [None] * 6


def test_of_very_many_layers_those_that_rose_have_a_row(tmp_path: Path) -> None:
    made = synthetic.make(900, 78, planted=(synthetic.Planted(600, 6.0),))
    made.grad_norm[60:] = np.exp(np.random.default_rng(0).normal(0, 0.1, made.grad_norm[60:].shape))
    trace = open_trace(synthetic.write_run(tmp_path / "many", made))
    near = look(trace, find_spikes(trace), event="patch_embed@599")
    (table,) = panel("event_onsets").draw(near).tables
    assert len(table.rows) == 40
    assert {row[0] for row in table.rows} <= {f"blocks.{i:02d}" for i in range(60)} | {"patch_embed"}
    assert table.note == "The 40 that rose first, of 80 layers."


@given(
    st.lists(st.lists(st.sampled_from(["a", "encoder", "3", "11", "projection"]), min_size=1, max_size=6), max_size=8)
)
def test_short_names_fit_and_are_never_empty(parts: list[list[str]]) -> None:
    names = brief([".".join(one) for one in parts])
    assert len(names) == len(parts)
    assert all(0 < len(name) <= 16 for name in names)


def test_layers_of_one_depth_stay_apart() -> None:
    layers = [f"module.encoder.layers.{i:03d}.attention.self.query_key_value_projection" for i in range(150)]
    assert brief(layers) == [f"{i:03d}" for i in range(150)]
    assert brief([]) == []
    assert brief(["one.very.long.name.of.a.layer"]) == ["layer"]


LONG = "module.student_network.encoder.transformer_blocks.{:02d}.attention_with_positions.output_projection_and_norm"


@given(st.lists(st.text("abc_.0", min_size=1, max_size=60), min_size=2, max_size=30, unique=True))
def test_short_names_can_be_told_apart(layers: list[str]) -> None:
    assert len(set(brief(layers))) == len(layers)


def test_long_names_keep_their_numbers() -> None:
    layers = ["module.student_network.patch_embedding_with_a_convolutional_stem", *map(LONG.format, range(12))]
    assert ["03." in name for name in brief(layers)].index(True) == 4
    assert len(set(brief(layers))) == 13


def test_a_long_name_is_cut_in_a_sentence_and_whole_beside_it() -> None:
    told = f"{LONG.format(3)} rose 6.9× at step 1,011; kNN fell."
    assert "".join(whole for whole, _ in pieces(told)) == told
    shown = "".join(shown for _, shown in pieces(told))
    assert shown.endswith(" rose 6.9× at step 1,011; kNN fell.")
    assert len(shown) < 80
    assert ".03." in shown
    assert f"title='{LONG.format(3)}'" in as_html(told)
    assert said(told)[0].title == LONG.format(3)
    assert said("patch_embed rose.") == "patch_embed rose."


def test_no_part_of_a_name_is_read_as_a_tag(view: View) -> None:
    assert plain("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert as_html("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"
    odd = ("<a href='x'>patch</a>", *view.layers[1:])
    legend = [t.get("name") for t in panel("patch_projection").draw(replace(view, layers=odd)).figure["data"]]  # type: ignore[index]
    assert any(name and name.startswith("&lt;") for name in legend)
    assert not any("<a" in (name or "") for name in legend)


def test_quiet_is_said_only_where_something_could_have_been_found(tmp_path: Path, view: View) -> None:
    calm = replace(view, spikes=(), dips=(), pairs=())
    assert headline(calm) == "All quiet."
    assert headline(replace(calm, rows=10)).startswith("Too few steps to tell")
    halfway = replace(calm, searched=0.5)
    assert no_event(halfway) == headline(halfway) == "Looking for spikes: 50% of 1,500 steps read."
    assert "No spikes" not in counts(halfway)
    assert panel("events").draw(halfway).words == "0 spikes, 0 dips in the 50% searched so far."
    frozen = look(
        open_trace(synthetic.write_run(tmp_path / "nan", synthetic.make(200, 2, frozen=synthetic.layer_names(2))))
    )
    assert headline(frozen) == "No layer's gradient norm was measured."
    assert counts(frozen).startswith("No gradients")
    figure = panel("patch_projection").draw(frozen).figure
    assert figure["layout"]["annotations"][0]["text"] == "No layer's gradient norm was measured."  # type: ignore[index]
