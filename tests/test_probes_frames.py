"""`to_frame`: what is in the records is in the frame."""

import builtins
import math

import numpy as np
import pandas
import pytest

from foreshock.probes import (
    Dip,
    Precedence,
    Spike,
    find_dips,
    find_spikes,
    onset_order,
    preceding,
    precursors,
    to_frame,
)


def series() -> tuple[np.ndarray, np.ndarray]:
    norms = np.exp(np.random.default_rng(0).normal(0, 0.1, (2, 900)))
    norms[:, 500:503] *= 8
    accuracy = np.full(900, 0.6)
    accuracy[510:520] = 0.4
    return norms, accuracy


def test_spikes_dips_and_pairs() -> None:
    norms, accuracy = series()
    spikes, dips = find_spikes(norms), find_dips(accuracy)
    frame = to_frame(spikes)
    assert frame["onset"].tolist() == [500, 500]
    assert frame["layer"].tolist() == ["0", "1"]
    assert list(frame.columns) == list(to_frame([], Spike).columns)
    assert math.isclose(to_frame(dips)["depth"][0], 0.2)
    pairs = to_frame(preceding(spikes, dips))
    assert pairs["lag"].tolist() == [10, 10]
    assert pairs["spike_onset"].tolist() == [500, 500]
    assert list(pairs.columns) == list(to_frame([], Precedence).columns)


@pytest.mark.parametrize("kind", [Spike, Dip, Precedence])
def test_nothing_found_is_an_empty_frame_with_columns(kind: type) -> None:
    frame = to_frame([], kind)
    assert len(frame) == 0
    assert len(frame.columns) >= 3
    assert len(to_frame([])) == 0


def test_reports_are_their_tables() -> None:
    norms, accuracy = series()
    report = precursors(find_spikes(norms), find_dips(accuracy), 900)
    pandas.testing.assert_frame_equal(to_frame(report), pandas.DataFrame(report.table()))
    order = onset_order(norms, [500], surrogates=99)
    assert len(to_frame(order)) == len(order.table())


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="int"):
        to_frame([1, 2])
    with pytest.raises(ValueError, match="Dip, Spike"):
        to_frame(find_spikes(series()[0]), Dip)


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"foreshock\[pandas\]"):
        to_frame([])
