"""Every recipe builds, says what it reproduces, and has the published numbers."""

import itertools
import json
import pkgutil
from dataclasses import asdict, replace

import pytest
import torch

from foreshock.trainer import recipes
from foreshock.trainer.config import TrainConfig
from foreshock.trainer.methods import build_method
from foreshock.trainer.recipes import load_recipe, recipe_groups, recipe_names, summary


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_run(name: str) -> None:
    config = load_recipe(name)
    assert isinstance(config, TrainConfig)
    json.dumps(asdict(config))
    text = summary(name)
    assert text.endswith(".")
    assert len(text) <= 70
    assert config.trace is None
    assert config.checkpoint_dir is None
    if name.startswith(("demo", "fashion")):
        build_method(config)
    else:
        with torch.device("meta"):
            build_method(config)


def test_the_folder_is_the_registry() -> None:
    files = [m.name for m in pkgutil.iter_modules(recipes.__path__) if not m.name.startswith("_")]
    assert len(recipe_groups()) == len(files)
    assert len(set(recipe_names())) == len(recipe_names())
    assert all(title.endswith(".") for title in recipe_groups())


def test_there_is_a_recipe_for_every_figure_and_table_with_a_training_run() -> None:
    starts = ("fig1-", "fig2-", "fig3-", "fig4-", "fig5-", "fig6-", "fig8-", "sec42-", "sec62-", "table4-", "paper-")
    for start in (*starts, "official-", "fashion-"):
        assert any(name.startswith(start) for name in recipe_names())
    assert {"fig1-batch-4096", "fig2-lr-1.5e-4", "fig5-frozen", "table4-swav-vit-b"} <= set(recipe_names())


def test_every_recipe_of_a_group_is_another_run() -> None:
    for group in recipe_groups().values():
        configs = [recipe.config for recipe in group.values()]
        assert all(a != b for a, b in itertools.combinations(configs, 2))


@pytest.mark.parametrize("method", ["mocov3", "simclr", "byol", "swav"])
def test_table_4_treats_all_methods_alike(method: str) -> None:
    ours, theirs = load_recipe("table4-mocov3-vit-b"), load_recipe(f"table4-{method}-vit-b")
    for field in ("vit", "heads", "data", "augment", "batch_size", "epochs", "amp"):
        assert getattr(ours, field) == getattr(theirs, field)
    assert theirs.method.patch_projection == "frozen"
    assert theirs.optim.warmup_epochs == 40


def test_fig_5_differs_in_the_patch_projection_alone() -> None:
    frozen, learned = load_recipe("fig5-frozen"), load_recipe("fig5-learned")
    assert replace(frozen, method=learned.method) == learned
    assert replace(frozen.method, patch_projection="learned") == learned.method
    assert learned == load_recipe("fig2-lr-1.5e-4")


def test_the_resnet_is_the_appendixes() -> None:
    config = load_recipe("paper-r50")
    assert (config.lr, config.optim.weight_decay, config.method.temperature) == (pytest.approx(4.8), 1.5e-6, 1.0)
    assert (config.method.momentum, config.method.momentum_schedule) == (0.996, "cosine")
    assert config.augment.crop_min == 0.2


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*paper-vit-b") as found:
        load_recipe("paper-vit-x")
    assert "paper-vit-x" in str(found.value)
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
