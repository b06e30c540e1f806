import importlib.util
from pathlib import Path

import pytest

from videomae_jax.training.recipe import Recipe, parse_options, pretraining

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name, options=""):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(options)


def complete():
    config = pretraining("base")
    config.data.path = "videos.csv"
    return config


def test_a_complete_config_is_a_recipe():
    recipe = Recipe.from_config(complete())
    assert (recipe.data.path, recipe.mask.ratio, recipe.total_steps) == ("videos.csv", 0.9, None)


def test_an_unknown_key_is_an_error_that_lists_the_known_ones():
    config = complete()
    config.data.strid = 4
    with pytest.raises(ValueError, match=r"config.data.strid is unknown. config.data has the keys path, .*stride"):
        Recipe.from_config(config)


def test_a_missing_key_is_an_error():
    config = complete()
    del config.optim.b2
    with pytest.raises(ValueError, match="config.optim.b2 is missing"):
        Recipe.from_config(config)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "batch_size", 2.5),
        ("data", "flip", "no"),
        ("data", "batch_size", True),
        ("optim", "base_lr", "fast"),
        ("mesh", "data", "all"),
        ("mask", "kind", 3),
    ],
)
def test_a_value_of_another_type_is_an_error(section, key, value):
    config = complete()
    with config[section].ignore_type():
        config[section][key] = value
    with pytest.raises(ValueError, match=rf"config\.{section}\.{key} must be .*, got {value!r}"):
        Recipe.from_config(config)


@pytest.mark.parametrize("key", ["batch_size", "stride"])
def test_a_count_below_one_is_an_error(key):
    config = complete()
    config.data[key] = 0
    with pytest.raises(ValueError, match=f"config.data.{key} must be at least 1, got 0"):
        Recipe.from_config(config)


def test_no_workers_no_flip_and_seed_zero_are_fine():
    config = complete()
    config.data.workers, config.data.flip, config.seed = 0, False, 0
    assert Recipe.from_config(config).data.workers == 0


def test_options_have_defaults_and_refuse_the_unknown():
    assert parse_options("", size=("base", "large")).size == "base"
    assert parse_options("size=large", size=("base", "large")).size == "large"
    for wrong in ("size=medium", "sise=base", "large"):
        with pytest.raises(ValueError, match=f"'{wrong}' is not an option of this config. Options: size=base|large"):
            parse_options(wrong, size=("base", "large"))


# Epochs, clips a step, stride, mask, learning rate of a step, decoder blocks: facts of the scripts and of the paper.
PUBLISHED = {
    ("k400_pretrain", "size=small"): (1600, 1024, 4, 0.9, 6e-4, 4),
    ("k400_pretrain", "size=base"): (1600, 2048, 4, 0.9, 1.2e-3, 4),
    ("k400_pretrain", "size=large"): (1600, 512, 4, 0.9, 3e-4, 12),
    ("k400_pretrain", "size=huge"): (1600, 1024, 4, 0.9, 6e-4, 12),
    ("k400_pretrain", "recipe=paper"): (800, 1024, 4, 0.9, 6e-4, 4),
    ("ssv2_pretrain", "size=base"): (2400, 2048, 2, 0.9, 1.2e-3, 4),
    ("ssv2_pretrain", "recipe=paper"): (800, 1024, 2, 0.9, 6e-4, 4),
    ("ucf101_pretrain", ""): (3200, 192, 4, 0.75, 2.25e-4, 4),
    ("hmdb51_pretrain", ""): (4800, 192, 2, 0.75, 2.25e-4, 4),
}


@pytest.mark.parametrize(("name", "options"), PUBLISHED)
def test_recipes_are_the_published_ones(name, options):
    from videomae_jax import VideoMAEConfig

    recipe = Recipe.from_config(load(name, options))
    assert PUBLISHED[name, options] == (
        recipe.total_epochs,
        recipe.data.batch_size,
        recipe.data.stride,
        recipe.mask.ratio,
        pytest.approx(recipe.optim.base_lr * recipe.data.batch_size / 256),
        VideoMAEConfig.from_size(**recipe.model).decoder_num_hidden_layers,
    )
    assert (recipe.optim.warmup_epochs, recipe.optim.weight_decay, recipe.optim.b2) == (40, 0.05, 0.95)


def test_only_the_papers_k400_recipe_mirrors_clips():
    flips = {key: load(*key).data.flip for key in PUBLISHED}
    assert [key for key, flip in flips.items() if flip] == [("k400_pretrain", "recipe=paper")]


# V2's: epochs, warm-up, clips a step, learning rate, clipped norm, size of the model.
PUBLISHED_V2 = {
    "base": (200, 20, 1024, 4e-3, None, "base"),
    "large": (300, 30, 1536, 6e-3, None, "large_v2"),
    "huge": (300, 30, 2048, 8e-3, None, "huge_v2"),
    "giant": (300, 30, 2048, 4.8e-3, 0.02, "giant"),
}


@pytest.mark.parametrize("size", PUBLISHED_V2)
def test_v2_recipes_are_the_published_ones(size):
    from videomae_jax import VideoMAEConfig

    recipe = Recipe.from_config(load("k400_pretrain", f"recipe=v2,size={size}"))
    assert PUBLISHED_V2[size] == (
        recipe.total_epochs,
        recipe.optim.warmup_epochs,
        recipe.data.batch_size,
        pytest.approx(recipe.optim.base_lr * recipe.data.batch_size / 256),
        recipe.optim.clip_norm,
        recipe.model["size"],
    )
    assert (recipe.mask.decoder_kind, recipe.mask.decoder_ratio, recipe.data.views) == ("running_cell", 0.5, 4)
    assert VideoMAEConfig.from_size(**recipe.model).decoder_num_hidden_layers == 4
