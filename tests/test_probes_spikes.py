"""Spikes: what is one, what is told of it, and that a live stream finds the same ones."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.probes import Spike, SpikeFinder, find_spikes
from foreshock.probes.detectors import known
from foreshock.traces import TraceWriter, open_trace

SMALL = {"window": 12, "minimum": 4, "rebaseline": 6, "merge": 3}  # so that short series show everything


class FakeTrace:
    """What find_spikes asks of a trace."""

    layers = ("patch_embed", "blocks.00")

    def __init__(self, grad_norm, loss=None, meta=None):
        self.data = {"grad_norm": np.asarray(grad_norm, np.float32), "loss": loss}
        self.steps = np.arange(1000, 1000 + 5 * len(self.data["grad_norm"][0]), 5)
        self.meta = meta or {}

    def __getitem__(self, name):
        return self.data[name]


def calm(length=300, value=0.5):
    return np.full(length, value)


def only(spikes) -> Spike:
    assert len(spikes) == 1
    return spikes[0]


class TestEvent:
    def test_every_field_by_hand(self):
        x = calm()
        x[199:204] = 0.7, 1.5, 4.0, 2.0, 0.56
        spike = only(find_spikes(x))
        assert (spike.layer, spike.kind, spike.warmup) == ("series", "spike", False)
        assert (spike.start, spike.onset, spike.peak, spike.end, spike.duration) == (200, 200, 201, 203, 4)
        assert spike.ratio == pytest.approx(8)
        assert spike.z == pytest.approx(math.log(8) / 0.05)
        assert spike.area == pytest.approx(sum(math.log(v / 0.5) for v in (1.5, 4.0, 2.0, 0.56)))

    def test_onset_is_where_half_of_the_log_peak_is_reached(self):
        x = calm()
        x[200:205] = 0.5 * np.array([2.1, 3.9, 4.1, 16.0, 3.0])  # half of 16-fold is 4-fold
        assert only(find_spikes(x)).onset == 202
        assert only(find_spikes(x)).start == 200

    def test_onset_looks_back_before_the_flag(self):
        x = calm()
        x[196:202] = 0.5 * np.array([1.3, 1.6, 1.7, 1.9, 2.1, 2.2])  # half of 2.2-fold is 1.48-fold
        spike = only(find_spikes(x))
        assert (spike.onset, spike.start, spike.peak) == (197, 200, 201)

    def test_simultaneous_rises_of_unequal_height_have_one_onset(self):
        shape = np.exp(-0.5 * ((np.arange(300) - 200) / 4) ** 2)
        layers = np.array([np.exp(shape * math.log(top)) for top in (12, 9, 7, 5, 4)])
        assert len({spike.onset for spike in find_spikes(layers)}) == 1

    def test_events_up_to_merge_steps_apart_are_one(self):
        for gap, events in ((10, 1), (11, 2)):
            x = calm()
            x[[200, 200 + gap]] = 4.0
            spikes = find_spikes(x)
            assert len(spikes) == events
            assert (spikes[0].start, spikes[-1].end) == (200, 200 + gap)
        assert len(find_spikes(x, merge=11)) == 1

    def test_level_shift_is_one_event_and_becomes_the_baseline(self):
        x = calm(700)
        x[300:] *= 5
        x[600] *= 5
        shift, spike = find_spikes(x)
        assert (shift.kind, shift.onset, shift.end) == ("level_shift", 300, 427)
        assert (spike.kind, spike.onset, spike.ratio) == ("spike", 600, pytest.approx(5))

    def test_a_fall_is_no_spike(self):
        x = calm()
        x[200:] = 0.01
        assert find_spikes(x) == []

    def test_still_open_at_the_end(self):
        x = calm()
        x[298:] = 4.0
        assert only(find_spikes(x)).end == 299

    def test_one_step_in_twenty_thousand(self):
        x = np.exp(np.random.default_rng(0).normal(0, 0.2, 20_000))
        x[12_345] = 4.0
        assert only(find_spikes(x)).peak == 12_345

    def test_warm_up_is_told_apart(self):
        x = calm()
        x[[100, 200]] = 4.0
        assert [spike.warmup for spike in find_spikes(x, warmup_steps=150)] == [True, False]

    def test_sorted_by_onset_then_layer(self):
        x = np.vstack([calm()] * 3)
        x[0, 250] = x[1, 200] = x[2, 200] = 9.0
        spikes = find_spikes(x, layers=["c", "b", "a"])
        assert [(s.onset, s.layer) for s in spikes] == [(200, "b"), (200, "a"), (250, "c")]


class TestNotFinite:
    def test_nan_from_the_start_is_not_measured(self):
        x = np.vstack([np.full(300, np.nan), calm()])
        x[1, 200] = 4.0
        assert [spike.layer for spike in find_spikes(x)] == ["1"]

    def test_a_layer_measured_later_starts_its_baseline_then(self):
        x = calm()
        x[:100] = np.nan
        x[163] = 9.0  # the 64th value: no baseline yet
        x[200] = 9.0
        assert only(find_spikes(x)).onset == 200

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_after_numbers_is_an_event_at_once(self, value):
        x = calm()
        x[5] = value  # long before there is a baseline
        spike = only(find_spikes(x))
        assert (spike.kind, spike.start, spike.onset, spike.peak, spike.end) == ("nonfinite", 5, 5, 5, 5)
        assert spike.ratio == spike.z == math.inf
        assert spike.area == 0

    def test_inf_is_an_event_even_as_the_first_value(self):
        x = calm()
        x[0] = np.inf
        assert only(find_spikes(x)).kind == "nonfinite"

    def test_a_blow_up_to_nan_is_one_event(self):
        x = calm()
        x[200:203] = 2.0, 50.0, 1e9
        x[203:] = np.nan
        spike = only(find_spikes(x))
        assert (spike.kind, spike.start, spike.onset, spike.end) == ("nonfinite", 200, 203, 299)

    def test_the_baseline_survives(self):
        x = calm()
        x[100:150] = np.inf
        x[200] = 4.0
        kinds = [(spike.kind, spike.onset, spike.ratio) for spike in find_spikes(x)]
        assert kinds == [("nonfinite", 100, math.inf), ("spike", 200, pytest.approx(8))]

    def test_gap_says_nan_is_no_value(self):
        x = np.full(3000, np.nan)
        x[::10] = calm()
        x[2000] = 4.0
        assert only(find_spikes(x, nan="gap")).onset == 2000
        assert find_spikes(x)[0].kind == "nonfinite"

    def test_zeros_are_calm_and_stay_out_of_the_baseline(self):
        x = calm()
        x[::3] = 0
        x[200] = 4.0
        assert only(find_spikes(x)).ratio == pytest.approx(8)
        assert find_spikes(np.zeros(300)) == []

    def test_negative_values_are_an_error_that_names_the_place(self):
        x = calm()
        x[200] = -0.1
        with pytest.raises(ValueError, match=r"series is -0.1 at step 200; spikes are sought in series of values >= 0"):
            find_spikes(x)


CUT = {
    "cusum": {"merge": 3, "window": 12, "minimum": 4},
    "find_peaks": {"merge": 3, "window": 9},
    "lightning": {"merge": 3},
    "llm_foundry": {"merge": 3, "window": 4, "patience": 1},
    "olmo2": {"merge": 3, "window": 12, "minimum": 4, "sigmas": 2.0},
    "olmo_core": {"merge": 3, "window": 12, "minimum": 4, "sigmas": 2.0},
    "rms": {"merge": 3},
    "robust": SMALL,
    "robust_z": SMALL,
    "zclip": {"merge": 3, "warmup": 4},
}

# Values with ties, spikes, levels, zeros and non-finite ones, all of them frequent.
VALUES = st.one_of(st.sampled_from([0.5, 0.5, 0.5, 0.6, 1.0, 1.5, 4.0, 0.0, math.nan, math.inf]), st.floats(1e-3, 1e3))


@st.composite
def streams(draw, layers=3):
    length = draw(st.integers(0, 60))
    rows = [draw(st.lists(VALUES, min_size=length, max_size=length)) for _ in range(layers)]
    gaps = draw(st.lists(st.integers(1, 4), min_size=length, max_size=length))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    return np.cumsum([0, *gaps])[1:], np.array(rows).reshape(layers, length), cuts


def stream(steps, x, cuts, restart, **options):
    """Feed blocks; after each, with `restart`, a new finder goes on from a state that went through JSON."""
    names = [f"layer {i}" for i in range(len(x))]
    finder, spikes = SpikeFinder(names, **options), []
    for part_steps, part in zip(np.split(steps, cuts), np.split(x, cuts, axis=1), strict=True):
        spikes += finder.update(part_steps, part)
        if restart:
            state = json.loads(json.dumps(finder.state_dict(), allow_nan=False))
            finder = SpikeFinder(names, **options)
            finder.load_state_dict(state)
    return sorted(spikes + finder.close(), key=lambda s: (s.onset, s.layer, s.start)), names


@settings(deadline=None, max_examples=120)
@given(
    streams(),
    st.booleans(),
    st.sampled_from(["nonfinite", "gap"]),
    st.sampled_from(known()),
)
def test_any_chunking_finds_identical_events(case, restart, nan, detector):
    steps, x, cuts = case
    options = {"detector": detector, "nan": nan, **CUT[detector]}
    spikes, names = stream(steps, x, cuts, restart, **options)
    assert spikes == find_spikes(x, steps=steps, layers=names, **options)
    one_by_one, _ = stream(steps, x, range(1, x.shape[1]), restart, **options)
    assert one_by_one == spikes


@settings(deadline=None, max_examples=100)
@given(streams(layers=1), st.floats(1e-6, 1e6))
def test_scale_changes_nothing(case, factor):
    _, x, _ = case
    for plain, scaled in zip(find_spikes(x, **SMALL), find_spikes(x * factor, **SMALL), strict=True):
        assert (plain.start, plain.onset, plain.peak, plain.end) == (
            scaled.start,
            scaled.onset,
            scaled.peak,
            scaled.end,
        )
        assert (plain.kind, plain.ratio) == (scaled.kind, pytest.approx(scaled.ratio))


@settings(deadline=None, max_examples=100)
@given(streams(layers=1))
def test_an_event_is_in_order_and_apart_from_the_next(case):
    steps, x, _ = case
    # Which rows count as measured is another matter; here every row does.
    x[0, : 1 if len(steps) else 0] = 0.5
    spikes = find_spikes(x, steps=steps, **SMALL)
    for spike in spikes:
        assert {spike.start, spike.onset, spike.peak, spike.end} <= set(steps.tolist())
        assert spike.start <= spike.peak <= spike.end
        assert spike.onset <= spike.peak
        assert spike.ratio > 1
    row = {step: i for i, step in enumerate(steps.tolist())}
    by_start = sorted(spikes, key=lambda spike: spike.start)
    for before, after in itertools.pairwise(by_start):
        assert row[after.start] - row[before.end] > SMALL["merge"]
        assert after.onset > before.end


class TestFinder:
    def test_closes_as_soon_as_it_can_grow_no_more(self):
        finder = SpikeFinder(["a"])
        closed = {}
        for step in range(300):
            for spike in finder.update(step, [4.0 if step in (200, 205) else 0.5]):
                closed[step] = spike
            if step == 204:
                assert only(finder.open_events()).end == 200
        assert list(closed) == [215]
        assert (closed[215].start, closed[215].end) == (200, 205)
        assert finder.open_events() == finder.close() == []

    def test_close_returns_an_open_event_once(self):
        finder = SpikeFinder(["a"])
        finder.update(np.arange(100), np.r_[calm(99), 4.0][None])
        assert only(finder.close()).onset == 99
        assert finder.close() == []

    def test_looks_back_across_blocks(self):
        x = calm()
        x[196:202] = 0.5 * np.array([1.3, 1.6, 1.7, 1.9, 2.1, 2.2])
        finder = SpikeFinder(["a"])
        assert only([s for step in range(300) for s in finder.update(step, x[step : step + 1])]).onset == 197

    def test_errors_change_nothing(self):
        finder = SpikeFinder(["a", "b"])
        finder.update([0, 1], np.ones((2, 2)))
        before = finder.state_dict()
        for steps, values, message in [
            ([1], np.ones((2, 1)), "step 1 is not beyond step 1"),
            ([3, 2], np.ones((2, 2)), "step 2 follows step 3"),
            ([2, 3], np.ones((3, 2)), r"values has shape \(3, 2\)"),
            (2, np.ones(3), r"give \(2,\)"),
            ([2], np.array([[1.0], [-1.0]]), "b is -1 at step 2"),
            ([2.5], np.ones((2, 1)), "whole numbers"),
        ]:
            with pytest.raises(ValueError, match=message):
                finder.update(steps, values)
            assert finder.state_dict() == before

    def test_a_state_of_other_settings_is_refused(self):
        state = SpikeFinder(["a"]).state_dict()
        with pytest.raises(ValueError, match="thresholds"):
            SpikeFinder(["a"], ratio=3.0).load_state_dict(state)
        with pytest.raises(ValueError, match="layers"):
            SpikeFinder(["b"]).load_state_dict(state)
        with pytest.raises(ValueError, match="detector"):
            SpikeFinder(["a"], detector="rms").load_state_dict(state)
        with pytest.raises(ValueError, match="nan"):
            SpikeFinder(["a"], nan="gap").load_state_dict(state)


class TestSources:
    def test_a_trace_brings_its_steps_layers_and_warm_up(self):
        x = np.vstack([calm(), calm()])
        x[0, 100] = x[1, 200] = 4.0
        trace = FakeTrace(x, meta={"warmup_steps": 1600})
        first, second = find_spikes(trace)
        assert (first.layer, first.onset, first.warmup) == ("patch_embed", 1500, True)
        assert (second.layer, second.onset, second.warmup) == ("blocks.00", 2000, False)
        assert find_spikes(trace, layer="blocks.00") == [second]
        assert find_spikes(trace, layer=["blocks.00", "patch_embed"]) == [first, second]
        assert not find_spikes(trace, warmup_steps=0)[0].warmup

    def test_nan_in_a_scalar_series_is_not_measured(self):
        loss = np.full(300, 2.0)
        loss[::2] = np.nan
        loss[251] = 9.0
        trace = FakeTrace(np.vstack([calm(), calm()]), loss)
        spike = only(find_spikes(trace, series="loss"))
        assert (spike.layer, spike.onset, spike.kind) == ("loss", 1000 + 5 * 251, "spike")
        assert find_spikes(trace, series="loss", nan="nonfinite")[0].kind == "nonfinite"

    def test_nan_in_a_layer_of_a_trace_is_not_measured(self):
        frozen = calm()
        frozen[200:] = np.nan  # frozen in mid-run: a sensor records a broken gradient as inf
        broken = calm()
        broken[250] = np.inf
        trace = FakeTrace(np.vstack([frozen, broken]))
        found = [(spike.layer, spike.kind) for spike in find_spikes(trace)]
        assert found == [("blocks.00", "nonfinite")]
        assert ("patch_embed", "nonfinite") in {(s.layer, s.kind) for s in find_spikes(trace, nan="nonfinite")}

    def test_a_long_trace_is_read_in_blocks(self, tmp_path, monkeypatch):
        rng = np.random.default_rng(2)
        x = np.exp(rng.normal(0, 0.2, (3, 5000))).astype(np.float32)
        x[:, 1020:1030] *= 9  # across the border of two blocks
        x[1, 4000:] = np.nan
        with TraceWriter(tmp_path / "run", layers=["a", "b", "c"]) as writer:
            writer.extend(np.arange(0, 10_000, 2), {"grad_norm": x, "loss": x[0].astype(float)})
        trace, most = open_trace(tmp_path / "run"), []
        monkeypatch.setattr("foreshock.probes.series._BLOCK_VALUES", 3 * 1024)
        read = type(trace).read
        monkeypatch.setattr(type(trace), "read", lambda *a, **k: most.append(k["stop"] - k["start"]) or read(*a, **k))
        expected = find_spikes(x, layers=["a", "b", "c"], steps=trace.steps, nan="gap")
        assert find_spikes(trace) == expected
        assert max(most) == 1024
        assert len(most) == 5
        assert set(find_spikes(trace, layer=["c", "a"])) == {spike for spike in expected if spike.layer != "b"}
        (onset,) = {spike.onset for spike in find_spikes(trace, series="loss") if spike.ratio > 5}
        assert onset == 2040
        with pytest.raises(ValueError, match="unknown layer 'd'; known are a, b, c"):
            find_spikes(trace, layer="d")
        with pytest.raises(ValueError, match="lr"):
            find_spikes(trace, series="lr")

    def test_a_trace_without_steps_has_no_spikes(self, tmp_path):
        TraceWriter(tmp_path / "run", layers=["a"]).close()
        assert find_spikes(open_trace(tmp_path / "run")) == []

    def test_lists_and_integers_will_do(self):
        assert only(find_spikes([1] * 100 + [9])).ratio == 9

    @pytest.mark.parametrize(
        ("source", "options", "message"),
        [
            (np.ones((2, 3, 4)), {}, r"shape \(2, 3, 4\); give one series \[T\] or one row a layer \[L, T\]"),
            (np.float64(1), {}, r"shape \(\)"),
            (["a", "b"], {}, "give real numbers"),
            (np.ones(9), {"layer": "blocks.00"}, r"unknown layer 'blocks\.00'; known are series"),
            (np.ones((2, 9)), {"layers": ["a"]}, "for 2 rows"),
            (np.ones((2, 9)), {"layers": ["a", "a"]}, "a name of its own"),
            (np.ones(9), {"steps": np.arange(8)}, r"shape \(8,\), the series has 9 values"),
            (np.ones(3), {"steps": [1, 3, 3]}, "step 3 follows step 3"),
            (np.ones(9), {"window": -5}, "window=-5 must be a whole number at least 2"),
            (np.ones(9), {"ratio": math.nan}, "ratio=nan must be a number at least 1"),
            (
                np.ones(9),
                {"sigma": 3},
                "unknown threshold 'sigma' for detector 'robust'; allowed are close, false_alarms, fl",
            ),
            (np.ones(9), {"detector": "best"}, "unknown detector 'best'; known are cusum, find_peaks, lightning"),
            (np.ones(9), {"nan": "ignore"}, 'allowed are "nonfinite" and "gap"'),
            (FakeTrace(np.ones((2, 9))), {"steps": np.arange(9)}, "a trace, which has its own"),
        ],
    )
    def test_errors(self, source, options, message):
        with pytest.raises(ValueError, match=message):
            find_spikes(source, **options)

    def test_no_steps_no_spikes(self):
        assert find_spikes([]) == find_spikes(np.empty((3, 0))) == []
