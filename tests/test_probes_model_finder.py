"""Model-level events while the run goes: the same however the steps come, and no more false ones than were allowed."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_probes_model_alarm import noise

from foreshock.probes import ModelEventFinder, model_events

LAYERS, STEPS = 8, 1500


def planted(seed: int = 0) -> np.ndarray:
    """f64[8, 1500]: noise, four events that run through most layers, one in a single layer."""
    x = noise(LAYERS, STEPS, sd=0.12, seed=seed)
    for at in (600, 800, 812, 1300):
        for layer in range(6):
            x[layer, at + layer : at + layer + 4] *= 9
    x[7, 1000:1004] *= 9
    return x


def told(events):
    return [(event.alarm, event.start, event.layers, event.needed) for event in events]


def alarms(finder: ModelEventFinder, x: np.ndarray, sizes: list[int]) -> list[tuple]:
    events, first = [], 0
    for size in [*sizes, x.shape[1]]:
        last = min(first + size, x.shape[1])
        events += finder.update(np.arange(first, last), x[:, first:last])
        first = last
    return told(events)


def finder(**options) -> ModelEventFinder:
    return ModelEventFinder([str(i) for i in range(LAYERS)], **options)


WHOLE = alarms(finder(), planted(), [])


def test_it_finds_what_runs_through_the_layers_and_not_what_one_layer_does() -> None:
    assert [alarm for alarm, *_ in WHOLE] == pytest.approx([601, 801, 1301], abs=4)
    assert all(2 <= needed <= 6 for *_, needed in WHOLE)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=12))
def test_the_cut_of_the_steps_is_no_matter(sizes: list[int]) -> None:
    assert alarms(finder(), planted(), sizes) == WHOLE


def test_a_step_at_a_time_is_told_at_its_own_step() -> None:
    own, x, events = finder(), planted(), []
    for step in range(STEPS):
        for event in own.update(step, x[:, step]):
            assert event.alarm == step
            events.append(event)
    assert told(events) == WHOLE


@pytest.mark.parametrize("at", [100, 605, 806, 1303])
def test_it_goes_on_from_a_saved_state(at: int) -> None:
    first, x = finder(), planted()
    before = first.update(np.arange(at), x[:, :at])
    saved = json.loads(json.dumps(first.state_dict()))
    second = finder()
    second.load_state_dict(copy.deepcopy(saved))
    assert second.state_dict() == saved
    after = second.update(np.arange(at, STEPS), x[:, at:])
    assert told(before + after) == WHOLE
    assert second.needed == first.needed or after
    with pytest.raises(ValueError, match="false_alarms"):
        finder(false_alarms=3).load_state_dict(saved)


@pytest.mark.parametrize("needed", [2, 3, 5, 7])
@pytest.mark.parametrize("within", [4, 16])
def test_with_a_given_number_its_alarms_are_those_of_the_whole_run(needed: int, within: int) -> None:
    x = planted(1)
    events = model_events(x, needed=needed, within=within)
    assert [e[:2] for e in alarms(finder(needed=needed, within=within), x, [])] == [(e.alarm, e.start) for e in events]


@pytest.mark.parametrize("common", [0.0, 0.5])
def test_noise_keeps_the_promise_without_peeking(common: float) -> None:
    false = steps = 0
    for seed in range(3):
        x = noise(12, 6000, common, seed=seed)
        false += len(ModelEventFinder([str(i) for i in range(12)], false_alarms=5).update(np.arange(6000), x))
        steps += 6000
    allowed = 5 * steps / 10_000
    assert false <= allowed + 2 * math.sqrt(allowed)


def test_the_warm_up_gives_no_alarm_and_too_little_past_asks_for_more() -> None:
    assert alarms(finder(warmup_steps=900), planted(), [])[0][0] > 900
    early = finder()
    early.update(np.arange(20), planted()[:, :20])
    assert early.needed == LAYERS + 1


def test_what_is_wrong_changes_nothing() -> None:
    own, x = finder(), planted()
    own.update(np.arange(500), x[:, :500])
    before = own.state_dict()
    bad = x[:, 500:700].copy()
    bad[3, 150] = -1.0
    with pytest.raises(ValueError, match="step 650"):
        own.update(np.arange(500, 700), bad)
    with pytest.raises(ValueError, match="shape"):
        own.update(np.arange(500, 700), bad[:, :5])
    with pytest.raises(ValueError, match="not beyond"):
        own.update(400, x[:, 400])
    assert own.state_dict() == before
    for options in ({"false_alarms": 0}, {"within": 0}, {"needed": 0}):
        with pytest.raises(ValueError, match="must be"):
            finder(**options)
