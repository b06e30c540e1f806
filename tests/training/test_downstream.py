import ast
import importlib.util
import re
import runpy
from pathlib import Path

import pytest

from videomae_jax.data.randaugment import RandAugment
from videomae_jax.training.downstream import DownstreamRecipe, Published, finetuning, published

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name, options=""):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(options)
    config.init_from = "somewhere"
    return DownstreamRecipe.from_config(config)


# Epochs, batch, views, learning rate, its end (times 256 / batch), layer decay, drop path, head dropout, weight decay,
# stride, segments x crops: from the scripts of V1 and V2 and the paper's appendix.
PUBLISHED = {
    ("k400_finetune", "size=small"): (150, 384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=base"): (75, 384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=large"): (35, 128, 2, 1e-3, 1e-6, 0.75, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=huge"): (50, 512, 2, 2e-3, 1e-5, 0.75, 0.2, 0.5, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=small,recipe=paper"): (150, 512, 2, 2e-3, 1e-6, 0.7, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=large,recipe=paper"): (50, 512, 2, 2e-3, 1e-6, 0.75, 0.2, 0.5, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=base,recipe=v2"): (90, 512, 2, 1.4e-3, 1e-6, 0.75, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=large,recipe=v2"): (35, 192, 2, 1.5e-3, 1e-6, 0.75, 0.2, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=huge,recipe=v2"): (40, 128, 2, 5e-4, 1e-6, 0.8, 0.2, 0.5, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=giant,recipe=v2"): (30, 192, 2, 7.5e-4, 1e-6, 0.9, 0.2, 0, 0.1, 4, (5, 3)),
    ("k400_finetune", "size=base,recipe=paper"): (75, 512, 2, 2e-3, 1e-6, 0.75, 0.1, 0, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=huge,recipe=paper"): (50, 512, 2, 2e-3, 1e-6, 0.75, 0.2, 0.5, 0.05, 4, (5, 3)),
    ("k400_finetune", "size=giant,recipe=v2_k710"): (3, 96, 2, 3.75e-6, 1e-6, 0.9, 0.25, 0, 0.1, 4, (5, 3)),
    ("ssv2_finetune", "size=small,recipe=paper"): (40, 512, 2, 2e-3, 1e-6, 0.7, 0.1, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=base,recipe=paper"): (40, 512, 2, 1e-3, 1e-6, 0.75, 0.1, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=large,recipe=v2"): (20, 192, 2, 3.75e-4, 1e-6, 0.75, 0.2, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=small"): (40, 384, 2, 1.5e-3, 1e-6, 0.7, 0.1, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=base"): (30, 384, 2, 7.5e-4, 1e-6, 0.75, 0.1, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=large,recipe=paper"): (30, 512, 2, 1e-3, 1e-6, 0.75, 0.2, 0.5, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=base,recipe=v2"): (25, 256, 2, 2e-3, 1e-6, 0.65, 0.1, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=huge,recipe=v2"): (20, 128, 2, 2.5e-4, 1e-6, 0.8, 0.2, 0, 0.05, None, (2, 3)),
    ("ssv2_finetune", "size=giant,recipe=v2"): (20, 96, 2, 1.125e-4, 1e-6, 0.9, 0.25, 0, 0.05, None, (2, 3)),
    ("ucf101_finetune", ""): (100, 128, 2, 2.5e-4, 1e-5, 0.7, 0.2, 0.5, 0.05, 4, (5, 3)),
    ("ucf101_finetune", "recipe=v2,size=giant"): (50, 24, 2, 9.375e-5, 1e-6, 0.9, 0.35, 0.5, 0.05, 4, (5, 3)),
    ("hmdb51_finetune", ""): (50, 128, 2, 5e-4, 1e-6, 0.7, 0.2, 0.5, 0.05, 2, (10, 3)),
    ("hmdb51_finetune", "recipe=v2,size=giant"): (15, 24, 2, 4.6875e-5, 1e-6, 0.9, 0.35, 0.5, 0.05, 2, (5, 3)),
}


@pytest.mark.parametrize(("name", "options"), PUBLISHED)
def test_recipes_are_the_published_ones(name, options):
    recipe = load(name, options)
    optim, data = recipe.optim, recipe.data
    assert PUBLISHED[name, options] == (
        recipe.total_epochs,
        data.batch_size,
        data.views,
        pytest.approx(optim.base_lr * data.batch_size / 256),
        optim.min_lr,
        optim.layer_decay,
        recipe.model["drop_path_rate"],
        recipe.model["head_dropout_prob"],
        optim.weight_decay,
        data.stride,
        (recipe.test.segments, recipe.test.crops),
    )
    assert (recipe.mode, optim.optimizer, optim.b1, optim.b2) == ("finetune", "adamw", 0.9, 0.999)
    assert (optim.warmup_epochs, optim.clip_norm) == (1 if "k710" in options else 5, None)
    augment = recipe.augment
    assert (augment.crop, augment.flip, augment.erasing) == ("resized", not name.startswith("ssv2"), 0.25)
    assert (augment.mixup, augment.cutmix, augment.mix_probability, augment.mix_switch) == (0.8, 1.0, 1.0, 0.5)
    assert augment.label_smoothing == 0.1
    from_paper = "paper" in options or (name, options) == ("hmdb51_finetune", "")
    wanted = RandAugment(9.0, 2, 0.5) if from_paper else RandAugment(7.0, 4, 0.5)
    assert RandAugment.from_name(augment.randaugment) == wanted


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda file: file.stem)
def test_keys_that_a_config_mentions_are_its_own_and_take_their_values(file):
    module = runpy.run_path(str(file))
    config = module["get_config"]()
    for key, value in re.findall(r"\b((?:\w+\.)*\w+)=([\d.e-]*\d)\b", module["__doc__"]):
        config.update_from_flattened_dict({key.removeprefix("config."): ast.literal_eval(value)})


def test_the_linear_probe_is_the_papers():
    recipe = load("linear_probe")
    assert (recipe.mode, recipe.total_epochs, recipe.data.batch_size) == ("linear", 100, 1024)
    optim = recipe.optim
    assert (optim.optimizer, optim.base_lr, optim.b1, optim.b2) == ("sgd", 0.1, 0.9, None)
    assert (optim.weight_decay, optim.warmup_epochs, optim.layer_decay) == (0, 10, 1)
    augment = recipe.augment
    assert (augment.crop, augment.randaugment, augment.erasing) == ("multi_scale", None, 0)
    assert (augment.mixup, augment.cutmix, augment.label_smoothing) == (0, 0, 0)


@pytest.mark.parametrize("config", ["linear_probe", "attentive_probe", "knn"])
def test_probes_never_mirror(config):
    assert load(config).augment.flip is False


def test_a_size_that_was_not_published_is_an_error_that_names_those_that_were():
    table = {"script": {"base": Published(1, 2, 3.0), "small": Published(1, 2, 3.0)}}
    with pytest.raises(ValueError, match="recipe=script has no size=huge; it has base, small."):
        published("script", "huge", table)


def test_unknown_keys_and_other_types_are_errors():
    config = finetuning("base")
    config.init_from = "x"
    config.data.path = "x"
    DownstreamRecipe.from_config(config)
    config.augment.flop = True
    with pytest.raises(ValueError, match="config.augment.flop is unknown"):
        DownstreamRecipe.from_config(config)
    del config.augment["flop"]
    with config.ignore_type():
        config.test.crops = 1.5
    with pytest.raises(ValueError, match="config.test.crops must be int, got 1.5"):
        DownstreamRecipe.from_config(config)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("optim.layer_decay", 0.0, "optim.layer_decay must be above 0 and at most 1, got 0.0"),
        ("optim.ema_decay", 1.0, "optim.ema_decay must be above 0 and below 1, got 1.0"),
        ("knn.temperature", -1.0, "knn.temperature must be positive, got -1.0"),
        ("augment.erasing", 25.0, "augment.erasing must be from 0 to 1, got 25.0"),
        ("augment.label_smoothing", 2.0, "augment.label_smoothing must be from 0 to 1, got 2.0"),
        ("mode", "linear", "config.mode=linear sees the whole encoder: set model.drop_path_rate=0.0"),
        ("augment.crop", "centre", "augment.crop must be one of resized, multi_scale, got 'centre'"),
        ("problem_type", "ranking", "problem_type must be one of regression"),
        ("test.segments", 0, "config.test.segments must be at least 1, got 0"),
        ("data.path", "", "config.data.path is missing"),
        ("optim.freeze", "[", "config.optim.freeze='.' is no regular expression"),
    ],
)
def test_values_that_make_no_sense_are_errors(key, value, wanted):
    config = finetuning("base")
    config.update_from_flattened_dict({"init_from": "x", "data.path": "x"} | {key: value})
    with pytest.raises(ValueError, match=wanted):
        DownstreamRecipe.from_config(config)


def test_what_adapters_trained_is_tested_with_the_same_recipe():
    config = finetuning("base")
    config.update_from_flattened_dict({"init_from": "x", "data.path": "x", "optim.adapter_rank": 8})
    config.mode, config.data.test_path = "test", "y"
    assert DownstreamRecipe.from_config(config).mode == "test"


def test_several_classes_cannot_be_smoothed():
    config = finetuning("base")
    config.update_from_flattened_dict({"init_from": "x", "data.path": "x"})
    config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="label_smoothing=0.1 is for one class a video"):
        DownstreamRecipe.from_config(config)
