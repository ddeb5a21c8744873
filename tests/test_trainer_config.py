"""The configuration: derived values, the command line made from it, and the settings it refuses."""

import json
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass

import pytest
import tyro

from foreshock.trainer.config import (
    AugmentConfig,
    DataConfig,
    HeadConfig,
    MethodConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
    VitConfig,
)


def test_the_papers_learning_rate_follows_from_its_batch():
    config = TrainConfig(batch_size=4096, optim=OptimConfig(base_lr=1.5e-4))
    assert config.lr == pytest.approx(2.4e-3)


def test_the_defaults_of_heads_method_optimizer_and_views_are_the_papers():
    assert HeadConfig() == HeadConfig(hidden=4096, out=256)
    assert (MethodConfig().temperature, MethodConfig().momentum) == (0.2, 0.99)
    assert (OptimConfig().base_lr, OptimConfig().weight_decay, OptimConfig().betas) == (1.5e-4, 0.1, (0.9, 0.999))
    assert (AugmentConfig().blur_p, AugmentConfig().solarize_p) == ((1.0, 0.1), (0.0, 0.2))


def test_nothing_can_be_changed():
    config = TrainConfig()
    with pytest.raises(FrozenInstanceError):
        config.batch_size = 3  # pyright: ignore
    with pytest.raises(FrozenInstanceError):
        config.vit.depth = 3  # pyright: ignore


def test_a_configuration_is_json():
    assert json.loads(json.dumps(asdict(TrainConfig())))["optim"]["warmup_steps"] == 150


def test_grid_and_size_of_square_and_other_images():
    assert VitConfig(image_size=28, patch_size=7).grid == (4, 4)
    assert VitConfig(image_size=(16, 24), patch_size=8).grid == (2, 3)
    assert VitConfig(image_size=(16, 24), patch_size=8).size == (16, 24)


def test_length_of_run_and_warmup_in_either_unit():
    by_epoch = TrainConfig(epochs=4, steps=None, optim=OptimConfig(warmup_epochs=1))
    assert (by_epoch.total_steps(50), by_epoch.warmup_epochs(50)) == (200, 1.0)
    by_step = TrainConfig(steps=200, optim=OptimConfig(warmup_steps=25))
    assert (by_step.total_steps(50), by_step.warmup_epochs(50)) == (200, 0.5)
    assert TrainConfig(optim=OptimConfig()).warmup_epochs(50) == 0.0


def test_a_warmup_that_outlasts_a_run_of_another_unit_is_found_once_the_data_is_known():
    config = TrainConfig(steps=100, optim=OptimConfig(warmup_epochs=2))
    assert config.warmup_epochs(steps_per_epoch=10) == 2
    with pytest.raises(ValueError, match="must be shorter than the run"):
        config.warmup_epochs(steps_per_epoch=50)


def test_the_command_line_reaches_every_part():
    line = "--vit.image-size 32 16 --vit.patch-size 8 --optim.name lars --steps None --epochs 2.5 "
    line += "--optim.warmup-steps None --method.patch-projection frozen --augment.blur-p 0.5 0"
    config = tyro.cli(TrainConfig, args=line.split())
    assert config.vit == VitConfig(image_size=(32, 16), patch_size=8)
    assert config.optim == OptimConfig("lars", base_lr=8e-3)
    assert (config.steps, config.epochs) == (None, 2.5)
    assert config.method.patch_projection == "frozen"
    assert config.augment.blur_p == (0.5, 0.0)


def test_every_option_has_help_text(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"], console_outputs=True)
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option in (
        f for part in (TrainConfig(), *vars(TrainConfig()).values()) if is_dataclass(part) for f in fields(part)
    ):
        assert option.name.replace("_", "-") in text
    for phrase in ("Side of a patch in pixels", "Number of neighbours that vote", "Probability of a horizontal flip"):
        assert phrase in text


REFUSED = [
    (VitConfig, {"image_size": 30}, "image_size 30"),
    (VitConfig, {"image_size": (28, 30)}, "multiple of patch_size 7"),
    (VitConfig, {"image_size": 0}, "image_size 0"),
    (VitConfig, {"dim": 30, "heads": 3}, "multiple of 4"),
    (VitConfig, {"dim": 32, "heads": 3}, "heads 3: choose for instance 24"),
    (VitConfig, {"depth": 0}, "depth 0"),
    (HeadConfig, {"hidden": 0}, "hidden 0"),
    (MethodConfig, {"temperature": 0.0}, "temperature"),
    (MethodConfig, {"momentum": 1.1}, "between 0 and 1"),
    (MethodConfig, {"momentum_schedule": "linear"}, "one of constant, cosine"),
    (MethodConfig, {"patch_projection": "freeze"}, "one of learned, frozen"),
    (OptimConfig, {"name": "adam"}, "one of adamw, lars"),
    (OptimConfig, {"base_lr": float("nan")}, "base_lr nan"),
    (OptimConfig, {"weight_decay": -0.1}, "weight_decay -0.1"),
    (OptimConfig, {"betas": (0.9, 1.0)}, "betas"),
    (OptimConfig, {"warmup_epochs": 1.0, "warmup_steps": 10}, "set one of them to None"),
    (OptimConfig, {"name": "lars", "betas": (0.9, 0.95)}, "betas .* would have no effect with optimizer 'lars'"),
    (OptimConfig, {"momentum": 0.8}, "momentum 0.8 would have no effect with optimizer 'adamw'"),
    (OptimConfig, {"name": "lars", "momentum": 1.0}, "momentum 1.0"),
    (DataConfig, {"dataset": "folder:"}, "folder:PATH"),
    (DataConfig, {"dataset": "folder:a", "data_root": "b"}, "data_root b would have no effect"),
    (DataConfig, {"limit": 0}, "limit 0"),
    (AugmentConfig, {"crop_min": 0.0}, "crop_min 0.0"),
    (AugmentConfig, {"hue": 0.6}, "0.5 turns"),
    (AugmentConfig, {"blur_p": (1.0, 2.0)}, "blur_p"),
    (AugmentConfig, {"blur_sigma": (2.0, 0.1)}, "smaller number first"),
    (ProbeConfig, {"knn_every": 0, "knn_k": 20}, "knn_k 20 would have no effect with knn_every 0"),
    (ProbeConfig, {"knn_queue": 0.0}, "knn_queue"),
    (TrainConfig, {"batch_size": 1}, "at least 2"),
    (TrainConfig, {"epochs": 3.0}, "None for the other"),
    (TrainConfig, {"steps": None}, "None for the other"),
    (TrainConfig, {"steps": 150}, "warmup_steps 150 must be less than steps 150"),
    (TrainConfig, {"augment": AugmentConfig()}, "no effect on gray images"),
    (TrainConfig, {"amp": "fp8"}, "one of off, bf16, fp16"),
    (TrainConfig, {"resume": True}, "resume True would have no effect without checkpoint_dir"),
    (TrainConfig, {"checkpoint_every": 5}, "without checkpoint_dir"),
    (TrainConfig, {"overwrite": True}, "without trace"),
    (TrainConfig, {"overwrite": True, "trace": "a", "resume": True, "checkpoint_dir": "b"}, "contradict"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_refused_in_one_sentence(kind, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        kind(**settings)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
