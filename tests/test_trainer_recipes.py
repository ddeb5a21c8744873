"""Every recipe builds, says what it reproduces, and has the published numbers."""

import json
import pkgutil
from dataclasses import asdict

import pytest

from foreshock.trainer import recipes
from foreshock.trainer.config import TrainConfig
from foreshock.trainer.methods import build_method
from foreshock.trainer.recipes import load_recipe, recipe_names, summary


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_run(name: str) -> None:
    config = load_recipe(name)
    assert isinstance(config, TrainConfig)
    assert config == load_recipe(name.replace("-", "_"))
    json.dumps(asdict(config))
    text = summary(name)
    assert text.endswith((".", ":"))
    assert len(text) <= 120
    assert config.trace is None
    assert config.checkpoint_dir is None
    if config.vit.dim <= 64:
        build_method(config)


def test_the_folder_is_the_registry() -> None:
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(recipes.__path__)}
    assert set(recipe_names()) == files
    assert files >= {"demo", "fashion-vit-tiny", "paper-vit-s", "paper-vit-b", "official-vit-s"}


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="paper-vit-b") as found:
        load_recipe("papre")
    assert "papre" in str(found.value)
    with pytest.raises(ValueError, match="no recipe"):
        load_recipe("../config")


def test_published_numbers() -> None:
    base, small, official = (load_recipe(n) for n in ("paper-vit-b", "paper-vit-s", "official-vit-s"))
    for config in (base, small, official):
        assert config.lr == pytest.approx(2.4e-3)
        assert (config.batch_size, config.epochs, config.optim.warmup_epochs) == (4096, 300, 40)
        assert (config.method.temperature, config.method.momentum) == (0.2, 0.99)
        assert config.optim.weight_decay == 0.1
        assert config.method.patch_projection == "frozen"
        assert (config.heads.hidden, config.heads.out) == (4096, 256)
        assert config.augment.blur_p == (1.0, 0.1)
        assert config.augment.solarize_p == (0.0, 0.2)
        assert config.augment.crop_min == 0.08
        assert config.probe.knn_queue == 0.1
    assert (base.vit.dim, base.vit.heads) == (768, 12)
    assert (small.vit.dim, small.vit.heads, small.vit.depth) == (384, 12, 12)
    assert small.method.momentum_schedule == "constant"
    assert official.method.momentum_schedule == "cosine"


def test_the_demo_provokes_and_its_twin_does_not() -> None:
    demo, calm = load_recipe("demo"), load_recipe("fashion-vit-tiny")
    assert demo.vit == calm.vit
    assert demo.optim.base_lr > 3 * calm.optim.base_lr
    assert demo.optim.schedule == "constant"
