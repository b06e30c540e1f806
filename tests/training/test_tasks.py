import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.training.tasks import Pretraining
from videomae_jax.weights.arrays import to_checkpoint
from videomae_jax.weights.files import write_arrays
from videomae_jax.weights.original import ORIGINAL_PRETRAINING
from videomae_jax.weights.pretrained import flat_params


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


def test_load_resamples_positions_when_the_recipe_says_so(task, saved):
    model, folder = saved
    longer = dataclasses.replace(task, config=dataclasses.replace(task.config, num_frames=8))
    with pytest.raises(ValueError, match=r"a grid of \(2, 4, 4\) .* \(4, 4, 4\).*model.position_grid='\(2, 4, 4\)'"):
        longer.load(folder)
    longer = dataclasses.replace(task, config=dataclasses.replace(longer.config, position_grid=(2, 4, 4)))
    loaded = longer.load(folder)
    assert loaded.config == longer.config
    for ours, theirs in zip(jax.tree.leaves(nnx.split(loaded)[1]), jax.tree.leaves(nnx.split(model)[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_load_takes_an_original(task, tmp_path):
    config = VideoMAEConfig.from_size(
        "small", patch_size=8, num_hidden_layers=1, decoder_num_hidden_layers=1, image_size=32, num_frames=4
    )
    task = dataclasses.replace(task, config=dataclasses.replace(config, position_grid=(8, 28, 28)))
    model = task.create(jax.random.key(7))
    params = flat_params(nnx.split(model)[1])
    write_arrays(tmp_path / "x.pth", to_checkpoint(params, ORIGINAL_PRETRAINING, config.patch))
    with pytest.warns(UserWarning, match="taken for the published num_attention_heads=6"):
        loaded = task.load(tmp_path / "x.pth")
    for ours, theirs in zip(jax.tree.leaves(nnx.split(loaded)[1]), jax.tree.leaves(nnx.split(model)[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_load_of_an_encoder_starts_a_decoder(task, saved, tmp_path):
    model, _ = saved
    model.videomae.save_pretrained(tmp_path / "encoder")
    other = dataclasses.replace(task, config=dataclasses.replace(task.config, decoder_num_hidden_layers=2))
    with pytest.warns(UserWarning, match="holds an encoder alone"):
        loaded = other.load(tmp_path / "encoder")
    assert loaded.config.decoder_num_hidden_layers == 2
    np.testing.assert_array_equal(
        loaded.videomae.encoder.layer.attention.qkv.kernel[...], model.videomae.encoder.layer.attention.qkv.kernel[...]
    )


def test_load_of_an_empty_folder_says_what_it_looked_for(task, tmp_path):
    with pytest.raises(ValueError, match=f"init_from={tmp_path}: {tmp_path} has none of model.safetensors, "):
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
