"""What the panels draw: columns against a slow twin, the tail against the whole, words, and the law of the panels."""

from __future__ import annotations

import base64
import copy
import doctest
import importlib
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from pushed import unfolded
from scipy.stats import linregress, t

from foreshock import dashboard
from foreshock.dashboard import panels as registry
from foreshock.dashboard.columns import SCALES, baseline, columns_of, grid, inside, median_rows, width_for
from foreshock.dashboard.follow import Follower
from foreshock.dashboard.panels import panel, panels, panels_in
from foreshock.dashboard.pushes import Cursor, Look, close_up, full, update
from foreshock.dashboard.theme import SCHEMES
from foreshock.dashboard.view import View, episodes, key_of, look, numbers, parse_key
from foreshock.dashboard.words import about_event, about_focus, counts, headline, times
from foreshock.probes.dips import Dip, find_dips
from foreshock.probes.spikes import Spike, find_spikes
from foreshock.traces.reader import Trace, open_trace


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return open_trace(synthetic.write_run(tmp_path_factory.mktemp("demo") / "demo"))


def seen(trace: Trace, **options: Any) -> View:
    spikes = find_spikes(trace) if len(trace) else []
    dips = find_dips(trace) if "knn_accuracy" in trace.scalars and len(trace) else []
    return look(trace, spikes, dips, **options)


MODULES = [
    ".".join(path.relative_to(Path(dashboard.__file__).parent).with_suffix("").parts)
    for path in sorted(Path(dashboard.__file__).parent.rglob("*.py"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"foreshock.dashboard.{name}".removesuffix(".__init__"))
    assert doctest.testmod(module).failed == 0


# ---- columns ----


@given(rows=st.integers(0, 10**7), columns=st.integers(1, 2000))
def test_width_is_the_smallest_power_of_two_that_fits(rows: int, columns: int) -> None:
    width = width_for(rows, columns)
    assert width & (width - 1) == 0
    assert math.ceil(rows / width) <= columns
    assert width == 1 or math.ceil(rows / (width // 2)) > columns


@given(st.integers(0, 5000), st.integers(1, 400), st.integers(0, 5000), st.integers(0, 5000))
def test_a_grid_covers_every_row_once(rows: int, columns: int, low: int, high: int) -> None:
    cut = grid(rows, columns, slice(min(low, high), max(low, high)))
    edges = [edge for start, stop, _ in cut.pieces for edge in (start, stop)]
    assert edges[1:-1:2] == edges[2::2]
    assert (edges[0], edges[-1]) == (0, rows) if rows else not edges
    assert len(cut.starts) <= 2 * columns


def slow_baseline(mean: np.ndarray, width: int) -> np.ndarray:
    reach, hop = max(8, 256 // width), max(1, 16 // width)
    result = np.full(mean.shape, np.nan)
    for layer in range(mean.shape[0]):
        for column in range(mean.shape[1]):
            start = column // hop * hop
            before = mean[layer, :16] if start < 16 else mean[layer, max(0, start - reach) : start]
            usable = before[np.isfinite(before)]
            result[layer, column] = np.median(usable) if len(usable) else np.nan
    return result


@given(
    seed=st.integers(0, 10**6),
    columns=st.integers(1, 120),
    width=st.sampled_from([1, 2, 8, 16, 64, 256]),
    holes=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_baseline_is_that_of_the_slow_twin(seed: int, columns: int, width: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    mean = np.where(rng.random((3, columns)) < holes, np.nan, rng.lognormal(size=(3, columns)))
    mean[0, rng.integers(columns)] = np.inf
    np.testing.assert_allclose(baseline(mean, width), slow_baseline(mean, width))


def test_a_baseline_never_changes_when_columns_are_added() -> None:
    mean = np.random.default_rng(1).lognormal(size=(2, 400))
    whole = baseline(mean, 2)
    for stop in (16, 17, 100, 399):
        np.testing.assert_array_equal(baseline(mean[:, :stop], 2), whole[:, :stop])


def test_medians_of_rows_without_numbers_are_missing() -> None:
    assert median_rows(np.empty((2, 0))).tolist() == pytest.approx([np.nan] * 2, nan_ok=True)


def test_columns_hold_every_peak(demo: Trace) -> None:
    for columns in (7, 100, 1000):
        cut = columns_of(demo, grid(len(demo), columns), scalars=("loss",))
        assert len(cut) <= columns
        raw = demo["loss"]
        for first, last, high in zip(cut.first, cut.last, cut.scalars["loss"].high, strict=True):
            assert high == raw[first : last + 1].max()


def test_a_spike_of_one_step_is_seen_at_any_zoom(tmp_path: Path) -> None:
    made = synthetic.make(6000, 3, planted=())
    made.grad_norm[2, 4321] *= 30
    trace = open_trace(synthetic.write_run(tmp_path / "a", made))
    for window in (None, (4000.0, 4700.0), (4300.0, 4340.0)):
        for columns in (100, 600):
            for scale, least in {"ratio": 3.9, "z": 20, "norm": 0.5}.items():
                view = seen(trace, columns=columns, window=window, scale=scale)
                assert view.columns.ratio.high[2].max() > 15
                z = np.array(decoded(panel("heatmap").draw(view).figure)["data"][0]["z"])
                assert np.nanmax(z[2]) > least


# ---- the whole and its tail ----


def decoded(figure: Any) -> Any:
    """A figure with its packed matrices as lists of numbers on the colour scale."""
    figure = copy.deepcopy(figure)
    for trace in figure["data"]:
        if trace and isinstance(trace.get("z"), dict):
            z = trace["z"]
            levels = np.frombuffer(base64.b64decode(z["levels"]), "<u2" if z["bits"] == 16 else "u1").reshape(
                z["shape"]
            )
            trace["z"] = np.where(levels == 0, np.nan, z["low"] + (levels - 1.0) * z["step"]).tolist()
    return figure


def merged(held: dict[str, Any], push: dict[str, Any]) -> dict[str, Any]:
    """What the browser makes of a tail (assets/draw.js), the slow way."""
    result = {}
    for name, part in unfolded(push).items():
        old, new = decoded(held[name]), decoded(part)
        data = []
        for trace, tail in zip(old["data"], new["data"], strict=True):
            if tail is None or "type" in tail:
                data.append(tail or trace)
                continue
            kept = [i for i, x in enumerate(trace["x"]) if push["from"] is None or x < push["from"]]
            grown = {**trace, "x": [trace["x"][i] for i in kept] + tail["x"]}
            if "z" in tail:
                grown["z"] = [[row[i] for i in kept] + more for row, more in zip(trace["z"], tail["z"], strict=True)]
            else:
                grown["y"] = [trace["y"][i] for i in kept] + tail["y"]
            data.append(grown)
        result[name] = {"data": data, "layout": part["layout"] or old["layout"]}
    return result


@pytest.mark.parametrize(
    "wanted", [Look(200), Look(1000), Look(200, ("blocks.01", "norm"), "z"), Look(200, (), "norm")]
)
@pytest.mark.parametrize("hops", [(700, 701, 709, 800, 1023), (650, 1010, 1016, 1022, 1030, 1040), (300, 999, 1000)])
def test_tails_add_up_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Look, hops: tuple[int, ...]
) -> None:
    monkeypatch.setattr("foreshock.dashboard.follow.REFRESH_S", 0.0)
    made = synthetic.make(1200, 5, frozen=("blocks.02",))
    follower = Follower("a", tmp_path / "a")
    with synthetic.open_writer(tmp_path / "a", made) as writer:
        synthetic.append(writer, made, slice(0, hops[0]))
        writer.flush()
        message = full(follower.snapshot(), wanted)
        held, tails = decoded_all(unfolded(message.push)), 0
        for start, stop in zip(hops, (*hops[1:], 1200), strict=True):
            synthetic.append(writer, made, slice(start, stop))
            writer.flush()
            cursor = Cursor.parse(json.loads(json.dumps(message.push["cursor"])))
            snapshot = follower.snapshot()
            message = update(snapshot, cursor, wanted)
            assert message is not None
            if message.push["kind"] == "full":
                held = decoded_all(unfolded(message.push))
            else:
                held, tails = merged(held, message.push), tails + 1
            whole = decoded_all(unfolded(full(snapshot, wanted).push))
            assert_same(held, whole)
    assert tails >= 2


def decoded_all(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: decoded(figure) for name, figure in figures.items()}


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name in right:
        for ours, theirs in zip(left[name]["data"], right[name]["data"], strict=True):
            for key in theirs:
                if key == "z":
                    np.testing.assert_array_equal(np.array(ours[key]), np.array(theirs[key]))
                elif key not in ("zmin", "zmax", "colorbar"):  # of the norms they are those of the last whole picture
                    assert ours[key] == theirs[key], (name, key)
        assert left[name]["layout"] == right[name]["layout"]


def test_nothing_new_sends_nothing(demo: Trace, tmp_path: Path) -> None:
    snapshot = Follower("demo", demo.path).snapshot()
    message = full(snapshot, Look(800))
    assert update(snapshot, message.cursor, Look(800)) is None
    assert update(snapshot, None, Look(800)) is not None
    other = update(snapshot, message.cursor, Look(800, ("norm",)))
    assert other is not None
    assert other.push["kind"] == "full"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("window", [(0, 300), (700.5, 760), (1200, 1500)])
def test_a_zoom_after_the_whole_picture_is_the_zoom_of_a_fresh_page(
    demo: Trace, scale: str, window: tuple[float, float]
) -> None:
    fresh = look(open_trace(demo.path), columns=200, window=window, scale=scale).columns
    known = open_trace(demo.path)
    look(known, columns=200, scale=scale)  # from then on it is known what is normal over the whole run
    again = look(known, columns=200, window=window, scale=scale).columns
    np.testing.assert_array_equal(again.steps, fresh.steps)
    np.testing.assert_array_equal(again.heat, fresh.heat)
    np.testing.assert_array_equal(again.ratio.mean, fresh.ratio.mean)


def test_a_run_that_stands_still_is_answered_from_memory(demo: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreshock.dashboard.follow.REFRESH_S", 0.0)
    follower = Follower("demo", demo.path)
    assert follower.snapshot() is follower.snapshot()


@pytest.mark.parametrize("window", [(1000.0, 1050.0), (-50.0, 3.0), (1490.0, 9000.0), (5000.0, 6000.0), (7.0, 7.0)])
def test_the_columns_of_a_window_fit_into_the_whole(demo: Trace, window: tuple[float, float]) -> None:
    snapshot = Follower("demo", demo.path).snapshot()
    coarse = unfolded(full(snapshot, Look(200)).push)["heatmap"]["data"][0]["x"]
    push = close_up(snapshot, Look(200), window)
    if push["low"] is None:
        assert not unfolded(push)["heatmap"]["data"][0]["x"]
        return
    x = unfolded(push)["heatmap"]["data"][0]["x"]
    assert push["low"] <= max(0, window[0])
    assert len(x) <= 300
    assert [step for step in coarse if push["low"] <= step <= push["high"]]
    width = push["cursor"]["width"]
    assert push["low"] % width == 0  # the demo's steps are its rows
    for name, part in unfolded(push).items():
        assert part["layout"] is None, name
        assert all(trace is None or set(trace) <= {"x", "y", "z"} for trace in part["data"])


@given(st.integers(1, 5000), st.integers(1, 400), st.integers(0, 5000), st.integers(0, 5000))
def test_a_window_holds_what_was_asked_for(rows: int, columns: int, one: int, other: int) -> None:
    low, high = sorted((min(one, rows), min(other, rows)))
    cut = inside(rows, columns, slice(low, high))
    for start, stop, width in cut.pieces:
        assert start <= low
        assert stop >= high
        assert start % cut.width == 0
        assert width <= cut.width or stop - start > columns * 3 // 2
    assert len(cut.starts) <= columns * 3 // 2 + 1


def test_layers_are_chosen_by_depth_and_unknown_ones_left_out(demo: Trace) -> None:
    view = look(demo, layers=("norm", "nothing", "blocks.03"))
    assert view.shown_layers == ("blocks.03", "norm")
    drawn = panel("patch_projection").draw(view)
    assert "blocks.03: no spikes; norm: no spikes." in drawn.words
    assert look(demo).shown_layers == ("patch_embed", "blocks.06", "blocks.11")


def test_the_z_scale_shows_what_is_rare(demo: Trace) -> None:
    z = look(demo, columns=400, scale="z").columns.heat
    row = demo.layers.index("patch_embed")
    calm = z[row, 100:140]
    assert np.nanmax(z[row]) > 12 > 5 > np.nanmax(calm)
    assert abs(np.nanmedian(z[:, 60:])) < 1


# ---- the law of the panels ----


def empty_run(folder: Path) -> Path:
    made = synthetic.make(10, 2)
    synthetic.open_writer(folder, made).close()
    return folder


RUNS = {
    "normal": lambda folder: synthetic.write_run(folder),
    "without steps": empty_run,
    "of one step": lambda folder: synthetic.write_run(folder, synthetic.make(1, 2, planted=())),
    "of 40 steps": lambda folder: synthetic.write_run(folder, synthetic.make(40, 2, planted=())),
    "with frozen layers": lambda folder: synthetic.write_run(folder, synthetic.make(400, 3, frozen=("patch_embed",))),
    "all frozen": lambda folder: synthetic.write_run(
        folder, synthetic.make(300, 2, frozen=synthetic.layer_names(2), planted=())
    ),
    "without kNN": lambda folder: synthetic.write_run(
        folder, synthetic.without(synthetic.make(300, 3), "knn_accuracy", "knn_queries")
    ),
    "without scalars": lambda folder: synthetic.write_run(
        folder, synthetic.without(synthetic.make(300, 3), *synthetic.make(300, 3).scalars)
    ),
    "of 80 blocks": lambda folder: synthetic.write_run(folder, synthetic.make(300, 80)),
    "with Inf": lambda folder: synthetic.write_run(folder, with_infinity()),
}


def with_infinity() -> synthetic.Made:
    made = synthetic.make(400, 3, planted=())
    made.grad_norm[1, 300] = np.inf
    made.scalars["loss"][300] = np.inf
    return made


@pytest.mark.parametrize("kind", RUNS)
def test_every_panel_draws_every_run(tmp_path: Path, kind: str) -> None:
    trace = open_trace(RUNS[kind](tmp_path / "run"))
    for event in ("", f"{trace.layers[0]}@{len(trace) // 2}", "knn_accuracy@1024"):
        for name, module, scale in [
            (*item, scale) for item in panels_in("main", "side", "event").items() for scale in SCALES
        ]:
            view = seen(trace, event=event, scale=scale)
            drawn = module.draw(view)
            assert drawn.words or drawn.tables or drawn.figure["layout"]["annotations"], name
            assert (drawn.figure is not None) == (module.HEIGHT > 0)
            text = json.dumps(drawn.figure, allow_nan=False)  # plain JSON: no NaN, no numpy
            tokens = {token.split("/")[0].split("~")[0] for token in find_tokens(json.loads(text))}
            assert tokens <= set(SCHEMES["light"]["tokens"]), name
            for table in drawn.tables:
                assert all(len(row) == len(table.header) for row in table.rows)
                assert not table.keys or len(table.keys) == len(table.rows)
        assert headline(view)


def find_tokens(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value} if value.startswith("$") else set()
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*(find_tokens(item) for item in inside))


def test_panels_are_the_files_of_their_folder() -> None:
    folder = Path(registry.__file__).parent
    assert set(panels()) == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    for name, module in panels().items():
        assert module.__doc__, name
        assert module.TITLE
        assert module.HELP
        assert f'"{module.PLACE}"' in (registry.__doc__ or ""), name
    with pytest.raises(ValueError, match="choose one of knn"):
        panel("nothing")


def test_the_panel_in_the_readme_is_one(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch, demo: Trace
) -> None:
    """Its text, put into the folder of panels under a name, is found and draws what it says."""
    (text,) = re.findall(r"```py\n(.*?)```", (repo_root / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(text.splitlines()) <= 30
    (tmp_path / "contrast.py").write_text(text)
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(tmp_path)])
    panels.cache_clear()
    try:
        figure = panel("contrast").draw(seen(demo)).figure
        assert figure is not None
        assert figure["data"][0]["y"][-1] == pytest.approx(100 * demo["contrastive_accuracy"][-2:].mean(), rel=0.02)
        assert list(panels_in("main"))[-4:] == ["loss", "contrast", "lr", "collapse"]
    finally:
        panels.cache_clear()
        sys.modules.pop("foreshock.dashboard.panels.contrast", None)


def test_both_schemes_have_the_same_tokens() -> None:
    assert SCHEMES["light"]["tokens"].keys() == SCHEMES["dark"]["tokens"].keys()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out_from_the_card(scheme: str) -> None:
    """WCAG: 4.5 to 1 for text, 3 to 1 for marks."""
    tokens = SCHEMES[scheme]["tokens"]
    for name in ("$ink", "$muted", "$dip"):
        assert contrast(tokens[name], tokens["$surface"]) >= 4.5, name
    for name in ("$first", "$middle", "$last", "$knn", "$loss"):
        assert contrast(tokens[name], tokens["$surface"]) >= 3, name


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_frozen_layers_stay_missing(tmp_path: Path) -> None:
    trace = open_trace(synthetic.write_run(tmp_path / "a", synthetic.make(400, 3, frozen=("blocks.01",))))
    drawn = panel("heatmap").draw(seen(trace))
    z = np.array(decoded(drawn.figure)["data"][0]["z"])
    assert np.isnan(z[2]).all()
    assert np.isfinite(z[[0, 1, 3]]).all()
    assert "Not measured: blocks.01." in drawn.words


def test_dips_are_shaded_and_met_by_a_thread(demo: Trace) -> None:
    view = seen(demo)
    dip = view.dips[0]
    shapes = panel("knn").draw(view).figure["layout"]["shapes"]  # type: ignore[index]
    assert [(shape["x0"], shape["x1"]) for shape in shapes] == [(dip.onset_after, dip.end)]
    data = panel("patch_projection").draw(view).figure["data"]  # type: ignore[index]
    thread = next(trace for trace in data if trace.get("line", {}).get("dash") == "dot")
    assert view.pairs[0].spike.peak in thread["x"]
    assert dip.onset_by in thread["x"]


# ---- one spike close up, and words ----


def test_the_neighbourhood_tells_the_order(demo: Trace) -> None:
    focus = seen(demo, event="patch_embed@1011").focus
    assert focus is not None
    assert focus.rose.all()
    assert np.corrcoef(np.arange(len(focus.layers)), focus.onset)[0, 1] > 0.95
    assert focus.onset[-1] - focus.onset[0] == pytest.approx(9, abs=2)
    text = about_focus(focus)
    assert text.startswith("patch_embed rose first, at step 1,01")
    assert "deeper layers later" in text


def test_a_calm_place_is_told_to_be_calm(demo: Trace) -> None:
    focus = seen(demo, event="blocks.03@850").focus
    assert focus is not None
    assert not focus.rose.any()
    assert about_focus(focus) == "No layer rose clearly around step 850."


@pytest.mark.parametrize("step", [0, 1, 1499, 5_000_000])
def test_the_neighbourhood_of_an_edge_is_drawn(demo: Trace, step: int) -> None:
    assert panel("neighbourhood").draw(seen(demo, event=f"patch_embed@{step}")).figure is not None


def test_an_event_in_a_sentence(demo: Trace) -> None:
    event = seen(demo, event="patch_embed@1011").event
    assert event is not None
    assert (event.kind, event.step) == ("spike", 1011)
    told = about_event(event)
    assert told.startswith("patch_embed rose 6.7× at step 1,011, blocks.00 ")
    assert "kNN fell 8.1 points by step 1,024 and recovered by" in told
    assert told.count(".") - told.count("0.") >= 1


def test_a_dip_is_shown_around_the_spike_before_it(demo: Trace) -> None:
    view = seen(demo)
    dip = view.dips[0]
    event = seen(demo, event=key_of(dip)).event
    assert event is not None
    assert (event.kind, event.dip) == ("dip", dip)
    assert event.step in {pair.spike.onset for pair in view.pairs}
    assert event.last_offset >= (dip.end or dip.nadir) - event.step
    offsets, knn = event.curves["knn_accuracy"]
    assert knn[offsets == dip.nadir - event.step] == pytest.approx(dip.base - dip.depth)


def test_a_place_without_an_event_says_so(demo: Trace) -> None:
    event = seen(demo, event="blocks.03@850").event
    assert event is not None
    assert about_event(event) == "No spike and no dip begins at step 850."


def test_the_slope_over_depth_has_an_interval(demo: Trace) -> None:
    focus = seen(demo, event="patch_embed@1011").focus
    assert focus is not None
    slope = focus.slope
    assert slope is not None
    assert slope.low < 9 / 13 < slope.high  # planted: 9 steps over 14 layers
    depth = np.flatnonzero(focus.rose)
    fit = linregress(depth, focus.onset[focus.rose])
    assert slope.steps == pytest.approx(fit.slope)
    assert slope.high - slope.steps == pytest.approx(fit.stderr * t.ppf(0.975, len(depth) - 2))
    table = panel("event_onsets").draw(seen(demo, event="patch_embed@1011")).tables[0]
    assert [row[0] for row in table.rows] == list(demo.layers)
    assert table.rows[0][1:3] == ("1,011", "+0")


def spike(layer: str, onset: int, ratio: float = 3.0, **more: Any) -> Spike:
    given = {"start": onset, "peak": onset + 1, "end": onset + 2, "z": 9.0, "area": 3.0, "kind": "spike", **more}
    return Spike(layer=layer, onset=onset, ratio=ratio, **given)


def test_episodes_join_what_begins_together() -> None:
    layers = ("a", "b", "c")
    found = [spike("b", 105), spike("a", 100), spike("c", 121), spike("a", 138), spike("b", 138)]
    groups = episodes(found, layers)
    assert [[s.layer for s in group.spikes] for group in groups] == [["a", "b", "c"], ["a", "b"]]


def test_headlines(demo: Trace) -> None:
    view = seen(demo)
    assert headline(view).startswith("patch_embed rose 6.7× at step 1,011; kNN fell 8.1 points by step 1,024 and")
    assert counts(view) == "3 spikes and 1 dip in 1,500 steps."
    quiet = look(demo)
    assert headline(quiet) == "All quiet."
    assert counts(quiet) == "No spikes and no dips in 1,500 steps."
    warm = look(demo, [spike("patch_embed", 5, 40.0, warmup=True)])
    assert headline(warm) == "All quiet."
    broken = look(demo, [spike("norm", 50, math.inf, kind="nonfinite")])
    assert headline(broken) == "norm became non-finite at step 50."
    dip = Dip(
        onset_after=400, onset_by=404, nadir=410, end=None, depth=0.2, area=1.0, t50=None, t90=None,
        kind="partial_restart", base=0.5, staleness=None,
    )  # fmt: skip
    assert headline(look(demo, [], [dip])).endswith("climbed anew from a lower place.")


def test_numbers_are_json() -> None:
    assert numbers(np.array([0.123456, np.nan, np.inf, -np.inf, 0.0])) == [0.1235, None, 1e30, -1e30, 0.0]
    assert times(float("nan")) == "beyond measure"


@pytest.mark.parametrize("key", ["", "@", "patch_embed", "patch_embed@x", "x@3", "patch_embed@-1", "patch_embed@٣"])
def test_keys_that_name_no_spike(key: str) -> None:
    with pytest.raises(ValueError, match="no spike is called"):
        parse_key(key, ["patch_embed"])
