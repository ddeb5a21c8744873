"""`leaderboard`: signals at equal false alarms, against slow twins and in worlds where the answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreshock.cli.__main__ import main
from foreshock.probes import Dip, Leaderboard, leaderboard
from foreshock.probes.alarms import APART, Falls, Scored, calm_steps, heard
from foreshock.probes.unusual import crossings, peaks, sliding_max, unusual
from foreshock.traces import Trace, TraceWriter, open_trace

ROWS = 8000


class Run:
    """A trace in memory: what the probes need of one."""

    def __init__(self, norms: np.ndarray, **scalars: np.ndarray) -> None:
        self.layers = tuple(f"blocks.{k:02d}" for k in range(len(norms)))
        self.steps = np.arange(norms.shape[1])
        self.series, self.scalars, self.meta = ("grad_norm",), tuple(scalars), {}
        self._values = {"grad_norm": norms, **scalars}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]


def dip(at: int) -> Dip:
    times = {"onset_after": at - 1, "onset_by": at, "nadir": at + 2, "end": at + 9, "t50": 4, "t90": 8}
    return Dip(**times, depth=0.1, area=0.5, kind="dip", base=0.6, staleness=None)


def world(seed: int, caused: int) -> tuple[Run, list[Dip]]:
    """Three layers with 20 spikes each and 8 dips, `caused` of them 12 steps after a spike of the first layer."""
    rng = np.random.default_rng(seed)
    norms = np.exp(rng.normal(0, 0.1, (3, ROWS)))
    at = np.array([rng.choice(np.arange(300, ROWS - 300, 20), 20, replace=False) for _ in range(3)])
    for row, own in zip(norms, at, strict=True):
        row[own] *= 5
    alone = rng.choice(np.arange(310, ROWS - 300, 20), 8 - caused, replace=False)
    dips = sorted({*(at[0][:caused] + 12).tolist(), *alone.tolist()})
    return Run(norms, loss=np.exp(rng.normal(0, 0.05, ROWS)), lr=np.linspace(1, 0, ROWS)), [dip(t) for t in dips]


def board(seed: int, caused: int, **options: float) -> Leaderboard:
    run, dips = world(seed, caused)
    return leaderboard(run, dips, **({"lag": 32, "false_alarms": 20.0, "surrogates": 199} | options))


def test_the_signal_that_warns_is_first_with_its_lead() -> None:
    found = board(0, caused=7)
    best = found.signals[0]
    assert (best.name, best.lead.median) == ("grad_norm/blocks.00", 12)
    assert best.warned.hits >= 7
    assert best.p is not None
    assert best.p <= 0.01
    assert best.skill > 0.8
    assert f"grad_norm/blocks.00 warns of {best.warned.hits} of 8 dips, 12 [12, " in found.verdict
    assert {signal.name for signal in found.signals} == {"loss", *(f"grad_norm/blocks.0{k}" for k in range(3))}


def test_all_signals_give_the_same_number_of_false_alarms() -> None:
    found = board(1, caused=4)
    assert found.allowed == 15  # 20 per 10,000 in about 7,700 calm steps
    for signal in found.signals:
        assert signal.false_alarms == pytest.approx(20, abs=3)
    fewer = board(1, caused=4, false_alarms=5.0)
    assert all(a.threshold <= b.threshold for a, b in zip(sorted_(found), sorted_(fewer), strict=True))


def sorted_(found: Leaderboard) -> list:
    return sorted(found.signals, key=lambda signal: signal.name)


def test_signals_that_know_nothing_are_seldom_called_precursors() -> None:
    smallest = [min(signal.p for signal in board(seed, caused=0, surrogates=99).signals) for seed in range(24)]
    assert sum(p <= 0.05 for p in smallest) <= 4  # 1.2 expected; more than 4 has p < .01


def test_few_dips_and_short_runs_are_ranked_but_not_tested() -> None:
    run, dips = world(0, caused=4)
    few = leaderboard(run, dips[:3], lag=32)
    assert not few.testable
    assert few.signals[0].p is None
    assert few.verdict.startswith("not testable: 3 dips")
    assert "20 times the lag" in leaderboard(run, dips, lag=1000).reason
    none = leaderboard(run, [], lag=32)
    json.loads(none.to_json(), parse_constant=lambda name: pytest.fail(name))
    none.figure()


def test_several_seeds_share_a_threshold_and_the_report_shows_itself() -> None:
    runs, dips = zip(*(world(seed, caused=3) for seed in range(2)), strict=True)
    found = leaderboard(list(runs), list(dips), lag=32, false_alarms=20.0, surrogates=199)
    assert (found.runs, found.dips) == (2, sum(map(len, dips)))
    assert found.signals[0].name == "grad_norm/blocks.00"
    assert found.table()[0]["warned_hits"] == found.signals[0].warned.hits
    assert "grad_norm/blocks.00" in found._repr_html_()
    assert len(found.figure().data) == 3
    again = leaderboard(list(runs), list(dips), lag=32, false_alarms=20.0, surrogates=199)
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lag": 0}, "lag"),
        ({"false_alarms": 0.0}, "false_alarms"),
        ({"surrogates": 3}, "surrogates"),
        ({"layers": ["blocks.99"]}, "blocks.99"),
    ],
)
def test_bad_options_are_named(options: dict, says: str) -> None:
    run, dips = world(0, caused=4)
    with pytest.raises(ValueError, match=says):
        leaderboard(run, dips, **options)
    with pytest.raises(ValueError, match="list for each"):
        leaderboard([run], [])


def test_a_score_is_the_slow_twins() -> None:
    rng = np.random.default_rng(3)
    x = np.exp(rng.normal(0, 0.2, 700))
    x[rng.random(700) < 0.1] = np.nan
    x[500] = np.inf
    scores = unusual(x, np.arange(700), 0, 699)
    rows = np.flatnonzero(~np.isnan(x))
    y = np.log(x[rows])
    for k, row in enumerate(rows):
        if k < 64 or row == 500:
            continue
        start = 64 + 8 * ((k - 64) // 8)  # the usual is told anew every 8 values
        past = y[max(0, start - 256) : start]
        past = np.where(np.isfinite(past), past, np.interp(500, rows[np.isfinite(y)], y[np.isfinite(y)]))
        middle = np.median(past)
        scatter = max(1.4826 * np.median(np.abs(past - middle)), 0.05)
        assert scores[row] == pytest.approx(abs(y[k] - middle) / scatter, rel=0.02)
    assert scores[500] > 1e6
    assert np.isneginf(scores[np.isnan(x)]).all()


def test_values_below_zero_are_scored_as_they_are_and_constants_never_alarm() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, 400)
    x[300] = -9
    assert unusual(x, np.arange(400), 0, 399).argmax() == 300
    assert not len(peaks(unusual(np.full(400, -2.0), np.arange(400), 0, 399), 10))
    assert np.isneginf(unusual(np.full(400, np.nan), np.arange(400), 0, 399)).all()


scores_ = st.lists(st.integers(-2, 6), min_size=1, max_size=60)


@given(scores_, st.integers(1, 20))
def test_sliding_maxima_peaks_and_crossings_are_the_slow_twins(values: list[int], width: int) -> None:
    x = np.array(values, float)
    n = len(values)
    assert sliding_max(x, width).tolist() == [max(values[max(0, t - width) : t], default=-np.inf) for t in range(n + 1)]
    twin = [
        t
        for t in range(n)
        if x[t] > 0 and all(x[t] > x[max(0, t - width) : t]) and all(x[t] >= x[t + 1 : t + 1 + width])
    ]
    assert peaks(x, width).tolist() == twin
    begun = [t for t in range(n) if x[t] > 2 and not (x[max(0, t - width) : t] > 2).any()]
    assert crossings(x, 2.0, width).tolist() == begun


@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(1, 40))
def test_what_a_signal_hears_is_the_slow_twin(seed: int, allowed: int, lag: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 30, 600) * (rng.random(600) < 0.1).astype(float)
    by = np.sort(rng.choice(np.arange(60, 580), 3, replace=False))
    after, end = by - rng.integers(1, 4, 3), by + rng.integers(0, 15, 3)
    falls = Falls(0, 599, after, by, end)
    found = heard([Scored(scores, 0, lag, sorted(set((by - after).tolist())))], [falls], lag, allowed)
    busy = {t for a, e in zip(after, end, strict=True) for t in range(a + 1 - lag, e + 1)}
    calm = sorted((scores[t] for t in peaks(scores, APART) if t not in busy), reverse=True)
    threshold = calm[allowed] if len(calm) > allowed else 0.0
    assert found.threshold == threshold
    twin = [max(scores[max(0, a + 1 - lag) : b], default=0) > threshold for a, b in zip(after, by, strict=True)]
    assert found.warned.tolist() == twin
    assert calm_steps(falls, lag) == 600 - len({t for t in busy if 0 <= t < 600})


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path: Path = tmp_path_factory.mktemp("board") / "run"
    run, dips = world(0, caused=7)
    accuracy = 0.6 + np.random.default_rng(1).normal(0, 0.002, ROWS)
    for fall in dips:
        accuracy[fall.onset_by : fall.onset_by + 8] -= 0.1
    values = {"grad_norm": run["grad_norm"].astype(np.float32), "loss": run["loss"], "lr": run["lr"]}
    with TraceWriter(path, layers=run.layers) as writer:
        writer.extend(run.steps, {**values, "knn_accuracy": accuracy})
    return open_trace(path)


def test_the_command(trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--lag", "32", "--false-alarms", "20", "--surrogates", "199"]
    assert main(["leaderboard", str(trace.path), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["signals"][0]["name"] == "grad_norm/blocks.00"
    assert len(told["signals"]) == 4
    assert main(["leaderboard", str(trace.path), *options, "--signal", "loss"]) == 0
    printed = capsys.readouterr().out
    assert "loss" in printed
    assert "blocks.00" not in printed
    assert main(["leaderboard", str(trace.path), "--signal", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert main(["leaderboard"]) == 2


def test_a_csv_file_has_signals_too(trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["step", "a", "b", "accuracy"]
    columns = [trace.steps, *trace["grad_norm"][:2], trace["knn_accuracy"]]
    text = "\n".join([",".join(names), *(",".join(map(str, map(float, row))) for row in zip(*columns, strict=True))])
    (tmp_path / "run.csv").write_text(text, encoding="utf-8")
    options = ["--lag", "32", "--false-alarms", "20", "--surrogates", "99", "--json"]
    assert main(["leaderboard", str(tmp_path / "run.csv"), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["signals"][0]["name"] == "grad_norm/a"
    assert len(told["signals"]) == 2
