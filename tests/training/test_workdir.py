import dataclasses
import json

import numpy as np
import pytest

from videomae_jax import VideoMAEForPreTraining, VideoMAEImageProcessor
from videomae_jax.data.sources import VideoSource
from videomae_jax.training.workdir import (
    best_model_folder,
    claim,
    is_best,
    keep_best,
    model_folder,
    recorded_config,
    write_model,
)

RECIPE = {"seed": 0, "log_steps": 5, "model": {"size": "tiny", "image_size": (32, 32)}, "data": {"workers": 2}}

SOURCE = VideoSource("videos", ("v/1.mp4", "v/2.mp4", "v/3.mp4"), np.array([0, 1, 1], np.int32), ("b", "a"))


@pytest.fixture
def started(tmp_path):
    """A folder of a run with a checkpoint."""
    claim(tmp_path, RECIPE, SOURCE.class_names, SOURCE)
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    return tmp_path


def changed(**sections):
    return {name: {**RECIPE[name], **value} if isinstance(value, dict) else value for name, value in sections.items()}


def recipe_of(workdir):
    return json.loads((workdir / "recipe.json").read_text())


def test_a_new_folder_gets_the_recipe_and_the_classes_in_their_order(tmp_path):
    claim(tmp_path / "runs" / "a", RECIPE, SOURCE.class_names, SOURCE)
    assert recipe_of(tmp_path / "runs" / "a")["model"]["image_size"] == [32, 32]
    assert (tmp_path / "runs" / "a" / "classes.txt").read_text() == "b\na\n"


def test_the_same_run_may_go_on_watched_and_spread_otherwise(started):
    claim(started, RECIPE | changed(log_steps=1, data={"workers": 0}), SOURCE.class_names, SOURCE)
    assert recipe_of(started)["log_steps"] == 1


def test_a_run_without_a_checkpoint_may_begin_anew_with_another_recipe(tmp_path):
    claim(tmp_path, RECIPE, SOURCE.class_names, SOURCE)
    (tmp_path / "checkpoints" / "100.orbax-checkpoint-tmp").mkdir(parents=True)
    claim(tmp_path, RECIPE | changed(seed=1), SOURCE.class_names, SOURCE)
    assert recipe_of(tmp_path)["seed"] == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(seed=1), "seed is 0 there and 1 here"),
        (dict(model={"size": "base"}), "model.size is tiny there and base here"),
        (dict(data={"stride": 4}), "data.stride is None there and 4 here"),
    ],
)
def test_another_run_is_refused_by_name_and_nothing_is_lost(started, change, named):
    before = (started / "recipe.json").read_text()
    with pytest.raises(ValueError, match=f"belongs to another run: {named}.*--workdir"):
        claim(started, RECIPE | changed(**change), SOURCE.class_names, SOURCE)
    assert (started / "recipe.json").read_text() == before


def test_other_training_videos_are_another_run(started):
    moved = dataclasses.replace(SOURCE, paths=tuple(f"elsewhere/{path}" for path in SOURCE.paths))
    claim(started, RECIPE, moved.class_names, moved)
    fewer = dataclasses.replace(SOURCE, paths=SOURCE.paths[:2], labels=SOURCE.labels[:2])
    with pytest.raises(ValueError, match="training_videos is 3 videos, .* there and 2 videos, .* here"):
        claim(started, RECIPE, fewer.class_names, fewer)


def test_a_model_without_checkpoints_is_not_overwritten(tmp_path):
    claim(tmp_path, RECIPE, SOURCE.class_names, SOURCE)
    model_folder(tmp_path).mkdir()
    with pytest.raises(ValueError, match="belongs to another run: seed"):
        claim(tmp_path, RECIPE | changed(seed=1), SOURCE.class_names, SOURCE)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="workdir .*file/run cannot be used: .*--workdir"):
        claim(tmp_path / "file" / "run", RECIPE, SOURCE.class_names, SOURCE)


def test_the_model_is_left_for_from_pretrained(make_trainer, tmp_path):
    trainer = make_trainer()
    (tmp_path / "model.new").mkdir()  # left by a killed run
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    write_model(model_folder(tmp_path), trainer, trainer.init_state().params, stride=4)
    assert [item.name for item in tmp_path.iterdir()] == ["model"]
    assert VideoMAEForPreTraining.from_pretrained(tmp_path).config == trainer.task.config
    assert {file.name for file in model_folder(tmp_path).iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    processor = VideoMAEImageProcessor.from_pretrained(tmp_path)
    assert processor == VideoMAEImageProcessor.for_model(trainer.task.config, resize_backend="opencv", frame_stride=4)
    assert processor.crop_size == {"height": 32, "width": 32}
    assert processor.image_mean == (0.485, 0.456, 0.406)


def test_the_best_model_is_the_one_with_the_best_score_by_the_same_measure(make_trainer, tmp_path):
    trainer = make_trainer()
    params = trainer.init_state().params
    assert is_best(tmp_path, 1, 10.0, "these")
    keep_best(tmp_path, 1, 10.0, "these", trainer, params, stride=4)
    assert VideoMAEForPreTraining.from_pretrained(best_model_folder(tmp_path)).config == trainer.task.config
    assert not is_best(tmp_path, 2, 9.0, "these")
    assert not is_best(tmp_path, 2, 10.0, "these")  # the first of equals
    assert is_best(tmp_path, 2, 10.5, "these")
    assert is_best(tmp_path, 2, 1.0, "others")
    keep_best(tmp_path, 5, 50.0, "these", trainer, params, stride=4)
    assert not is_best(tmp_path, 6, 20.0, "these")
    assert is_best(tmp_path, 4, 20.0, "these")  # step 5 was lost with an interrupted run, or comes again


def test_another_kind_of_run_is_said_in_one_sentence(tmp_path):
    claim(tmp_path, RECIPE, SOURCE.class_names, SOURCE)
    model_folder(tmp_path).mkdir()
    with pytest.raises(ValueError, match="another kind of run: pre-training, and this one is test. Give"):
        claim(tmp_path, {"mode": "test", "optim": {"x": 1}}, SOURCE.class_names, SOURCE)


def test_the_config_of_a_begun_run_is_found_again(config, tmp_path):
    assert recorded_config(tmp_path) is None
    claim(tmp_path, RECIPE | {"config": config.to_dict()}, SOURCE.class_names, SOURCE)
    assert recorded_config(tmp_path) is None  # nothing has been trained yet
    model_folder(tmp_path).mkdir()
    assert recorded_config(tmp_path) == config
    (tmp_path / "recipe.json").unlink()
    assert recorded_config(tmp_path) is None
