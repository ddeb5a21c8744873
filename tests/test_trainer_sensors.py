"""`--probe.sensors`: which further series a training run's trace holds, and that it is the same run with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_runs import same, tiny_config, write_fashion

from foreshock.traces import open_trace
from foreshock.trainer.config import ProbeConfig
from foreshock.trainer.loop import train
from foreshock.trainer.run import prepare


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion"))


def probe(*sensors: str) -> ProbeConfig:
    return ProbeConfig(sensors=sensors, knn_queue=1.0, knn_k=5)


ALL = ("activation", "attention", "collapse", "grad_cosine", "grad_max", "grad_to_variance", "memory", "throughput")
ALL = (*ALL, "update_ratio", "update_rms", "weight_norm")


def test_a_run_with_all_sensors_is_the_run_without(root: Path, tmp_path: Path) -> None:
    states = []
    for sensors in ((), ALL):
        config = tiny_config(root, trace=str(tmp_path / f"run{len(sensors)}"), probe=probe(*sensors))
        run = prepare(config)
        train(run, Console(quiet=True))
        states.append((run.model.state_dict(), torch.get_rng_state()))
        assert not any(m._forward_hooks for m in run.model.modules())
        assert not run.optimizer._optimizer_step_post_hooks
    assert same(*states)
    trace = open_trace(tmp_path / f"run{len(ALL)}")
    measured = {name: np.isfinite(trace[name]).any(1).sum() for name in trace.series}
    layers = len(trace.layers)
    assert measured.pop("attention_logit_max") == measured.pop("attention_entropy") == 2  # the blocks
    bare = {f"activation_{name}" for name in ("rms", "max", "kurtosis")}  # all but the class token
    assert {name: layers - n for name, n in measured.items()} == {name: int(name in bare) for name in measured}
    assert trace["update_ratio"][:, [0, 10]].max() > 0
    assert np.isfinite(trace["effective_rank"]).nonzero()[0].tolist() == [0]
    assert trace["items_per_second"][-1] > 0


def test_by_default_a_trace_tells_of_collapse(root: Path, tmp_path: Path) -> None:
    assert ProbeConfig().sensors == ("collapse",)
    train(tiny_config(root, trace=str(tmp_path / "run")), Console(quiet=True))
    trace = open_trace(tmp_path / "run")
    assert trace.series == ("grad_norm",)
    assert 1 <= trace["effective_rank"][0] <= 8
    assert trace["feature_std"][0] > 0


def test_a_resumed_run_samples_the_steps_of_one_that_was_not_stopped(root: Path, tmp_path: Path) -> None:
    def config(name: str, **changes):
        sensors = probe("collapse", "weight_norm", "update_ratio", "activation")
        saved = {"checkpoint_dir": str(tmp_path / name / "saved"), "checkpoint_every": 7, "checkpoint_keep": 9}
        return tiny_config(root, trace=str(tmp_path / name / "run"), probe=sensors, **saved, **changes)

    whole = config("whole")
    train(whole, Console(quiet=True))
    train(config("parts"), Console(quiet=True))
    for path in (tmp_path / "parts" / "saved").glob("*12*"):
        path.unlink()
    run = prepare(replace(config("parts"), resume=True))
    assert run.start == 7
    train(run, Console(quiet=True))
    one, other = open_trace(tmp_path / "whole" / "run"), open_trace(tmp_path / "parts" / "run")
    for name in ("weight_norm", "update_ratio", "activation_rms", "effective_rank", "feature_std", "grad_norm"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(
    ("sensors", "says"),
    [
        (("grad_norm",), "sensors names grad_norm, which a trace has anyhow"),
        (("feature_knn",), "leave it out .knn_every 0"),
        (("colapse",), "unknown sensor 'colapse'; the known ones are activation"),
        (("collapse", "collapse"), "give each once"),
    ],
)
def test_sensors_that_cannot_be(root: Path, tmp_path: Path, sensors: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(tiny_config(root, trace=str(tmp_path / "run"), probe=probe(*sensors)))


def test_a_sensor_that_the_optimizer_can_not_serve(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, trace=str(tmp_path / "run"), probe=probe("update_rms"))
    with pytest.raises(ValueError, match="update_rms needs the second moment of Adam"):
        prepare(replace(config, optim=replace(config.optim, name="lars")))
