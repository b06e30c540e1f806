import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEForPreTraining
from videomae_jax.training.tasks import Pretraining


@pytest.fixture
def saved(task, tmp_path):
    model = task.create(jax.random.key(7))
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path


def test_load_takes_the_weights_of_a_run(task, saved):
    model, folder = saved
    loaded = task.load(folder)
    for ours, theirs in zip(jax.tree.leaves(nnx.split(loaded)[1]), jax.tree.leaves(nnx.split(model)[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_load_may_change_the_target(task, saved):
    raw = dataclasses.replace(task, config=dataclasses.replace(task.config, norm_pix_loss=False))
    assert isinstance(raw.load(saved[1]), VideoMAEForPreTraining)
    assert raw.load(saved[1]).config.norm_pix_loss is False


@pytest.mark.parametrize("change", [dict(num_attention_heads=4), dict(position_embedding_type="sincos_3d")])
def test_load_refuses_another_model_even_where_all_shapes_fit(task, saved, change):
    other = dataclasses.replace(task, config=dataclasses.replace(task.config, **change))
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=rf"holds another model: {name} .* \(the recipe: {value}\)"):
        other.load(saved[1])


def test_load_of_an_empty_folder_says_what_it_looked_for(task, tmp_path):
    with pytest.raises(ValueError, match="No config.json and model.safetensors in"):
        task.load(tmp_path)


def test_trivial_loss_of_normalised_targets_is_that_of_predicting_zero(task, batch):
    assert isinstance(task, Pretraining) and task.config.norm_pix_loss
    _, logged = task.loss(task.create(jax.random.key(0)), batch)
    pixels = 2 * 8 * 8
    assert float(logged["trivial_loss"]) == pytest.approx((pixels - 1) / pixels, rel=1e-4)


def test_trivial_loss_of_raw_targets_is_the_clips_variance(task, batch):
    raw = dataclasses.replace(task, config=dataclasses.replace(task.config, norm_pix_loss=False))
    # Uniform noise: variance of the whole clip, whatever is masked.
    _, logged = raw.loss(raw.create(jax.random.key(0)), batch)
    assert float(logged["trivial_loss"]) == pytest.approx((batch["video"] / 255).var(), rel=0.02)
