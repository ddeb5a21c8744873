"""Learning rate and momentum over a run: their ends, their shape, and the same by step as by epoch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreshock.trainer.config import MethodConfig, OptimConfig, TrainConfig
from foreshock.trainer.schedules import Schedules, lr_at, momentum_at

RUN = {"peak": 2.0, "epochs": 10.0, "warmup_epochs": 3.0}


def test_the_first_step_has_lr_0_the_end_of_the_warmup_the_peak_and_the_end_0():
    assert lr_at(0.0, **RUN) == 0.0
    assert lr_at(1.5, **RUN) == 1.0
    assert lr_at(3.0, **RUN) == 2.0
    assert lr_at(6.5, **RUN) == pytest.approx(1.0)
    assert lr_at(10.0, **RUN) == pytest.approx(0.0, abs=1e-15)


def test_a_constant_schedule_warms_up_and_stays():
    assert lr_at(1.5, **RUN, schedule="constant") == 1.0
    assert lr_at(9.9, **RUN, schedule="constant") == 2.0


def test_without_a_warmup_the_first_step_has_the_peak():
    assert lr_at(0.0, peak=2.0, epochs=10.0) == 2.0


@given(st.floats(0, 10), st.floats(0, 10))
def test_lr_rises_through_the_warmup_and_falls_after_it(a, b):
    a, b = sorted((a, b))
    if b <= 3:
        assert lr_at(a, **RUN) <= lr_at(b, **RUN)
    elif a >= 3:
        assert lr_at(a, **RUN) >= lr_at(b, **RUN)


@given(st.floats(0, 10))
def test_momentum_goes_from_base_to_1(epoch):
    assert momentum_at(epoch, base=0.99, epochs=10) == 0.99
    assert 0.99 <= momentum_at(epoch, base=0.99, epochs=10, schedule="cosine") <= 1.0


def test_by_step_is_by_epoch():
    config = TrainConfig(
        epochs=10,
        steps=None,
        optim=OptimConfig(base_lr=2.0, warmup_epochs=3),
        method=MethodConfig(momentum_schedule="cosine"),
    )
    schedules = Schedules(config, steps_per_epoch=20)
    assert (schedules.total_steps, schedules.warmup_steps) == (200, 60)
    for step in (0, 1, 59, 60, 61, 130, 199):
        assert schedules.lr(step) == lr_at(step / 20, **RUN)
        expected = momentum_at(step / 20, base=0.99, epochs=10, schedule="cosine")
        assert schedules.momentum(step) == expected


def test_a_run_in_steps_is_the_same_whatever_the_data():
    config = TrainConfig(steps=200, optim=OptimConfig(base_lr=2.0, warmup_steps=60))
    small, large = Schedules(config, steps_per_epoch=7), Schedules(config, steps_per_epoch=5000)
    assert (large.total_steps, large.warmup_steps) == (200, 60)
    for step in range(200):
        assert small.lr(step) == pytest.approx(large.lr(step), rel=1e-12)


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="steps_per_epoch 0 must be at least 1"):
        Schedules(TrainConfig(), steps_per_epoch=0)


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="must be shorter than the run"):
        Schedules(TrainConfig(steps=100, optim=OptimConfig(warmup_epochs=2)), steps_per_epoch=50)
