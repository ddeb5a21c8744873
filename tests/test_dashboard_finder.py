"""The dashboard's search: the same events however the rows came, and what cannot be searched is told."""

import json
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from foreshock.dashboard.finder import EventFinder
from foreshock.dashboard.follow import Follower
from foreshock.probes.dips import find_dips
from foreshock.probes.spikes import find_spikes
from foreshock.traces import Trace, TraceWriter, open_trace
from foreshock.traces.errors import TraceUnreachableError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return open_trace(synthetic.write_run(tmp_path_factory.mktemp("finder") / "a"))


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 1500), max_size=6), handed_on=st.integers(0, 6))
def test_the_same_events_however_the_rows_came(run: Trace, cuts: list[int], handed_on: int) -> None:
    finder = EventFinder(run)
    for i, stop in enumerate([*sorted(cuts), len(run)]):
        finder.take_norms(run, stop)
        finder.take_curve(run, stop)
        if i == handed_on:
            state = json.loads(json.dumps(finder.state_dict()))
            finder = EventFinder(run)
            finder.load_state_dict(state)
    assert finder.spikes == sorted(find_spikes(run), key=lambda spike: spike.onset)
    assert finder.dips == find_dips(run)
    assert finder.dips


@pytest.mark.parametrize(
    ("values", "told", "spikes", "dips"),
    [
        ({"knn_accuracy": np.full(900, 55.0)}, "No more dips are looked for: the accuracy at step 0 is 55", 1, 0),
        ({"knn_accuracy": np.r_[np.full(600, 0.5), np.full(20, 0.2), np.full(280, 0.5)]}, "", 1, 1),
    ],
)
def test_an_accuracy_in_per_cent_is_told_and_spikes_are_found(
    tmp_path: Path, values: dict[str, np.ndarray], told: str, spikes: int, dips: int
) -> None:
    with TraceWriter(tmp_path / "a", layers=["norm"]) as writer:
        writer.extend(np.arange(900), {"grad_norm": np.where(np.arange(900) == 700, 9.0, 1.0)[None], **values})
    seen = Follower("a", tmp_path / "a").snapshot()
    assert seen.message.startswith(told)
    assert bool(seen.message) == bool(told)
    assert (len(seen.spikes), len(seen.dips), seen.searched) == (spikes, dips, 1.0)


def test_rows_that_cannot_be_read_are_looked_at_later(run: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = EventFinder(run)
    with monkeypatch.context() as patch:
        patch.setattr(Trace, "read", lambda *_, **__: (_ for _ in ()).throw(TraceUnreachableError("no network")))
        for take in (finder.take_curve, finder.take_norms):
            with pytest.raises(TraceUnreachableError):
                take(run, len(run))
    finder.take_curve(run, len(run))
    finder.take_norms(run, len(run))
    assert finder.spikes == sorted(find_spikes(run), key=lambda spike: spike.onset)
    assert finder.dips == find_dips(run)
