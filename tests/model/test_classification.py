"""The classification model by its definition; its numbers are compared in test_transformers_parity.py."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = VideoMAEConfig(
    image_size=16,
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    num_labels=3,
    initializer_range=0.3,
    head_norm_eps=0.1,  # large enough to be seen
)


@pytest.fixture(scope="module", params=[True, False], ids=["mean", "first_token"])
def model(request):
    return VideoMAEForVideoClassification(dataclasses.replace(TINY, use_mean_pooling=request.param), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *TINY.clip_size, 3)).astype(np.uint8)


def test_the_head_sees_the_normed_mean_or_the_first_normed_token(model, clips):
    tokens = np.asarray(model.videomae(clips).last_hidden_state, np.float64)
    pooled = tokens[:, 0]
    if model.config.use_mean_pooling:
        mean = tokens.mean(axis=1)
        deviation = np.sqrt(mean.var(axis=1, keepdims=True) + 0.1)
        pooled = (mean - mean.mean(axis=1, keepdims=True)) / deviation
    else:
        assert model.fc_norm is None
    output = model(clips)
    assert output.logits.shape == (2, 3) and output.loss is None
    np.testing.assert_allclose(output.logits, pooled @ model.classifier.kernel[...], atol=1e-7)


def test_bytes_and_normalised_floats_give_the_same(model, clips):
    floats = (clips / 255 - TINY.pixel_mean) / TINY.pixel_std
    np.testing.assert_allclose(model(floats.astype(np.float32)).logits, model(clips).logits, atol=1e-7)


def test_a_processors_mapping_is_the_call(model, clips):
    np.testing.assert_array_equal(model(**{"pixel_values": clips}).logits, model(clips).logits)


def test_labels_may_be_a_list(model, clips):
    assert model(clips, [0, 2]).loss == model(clips, np.array([0, 2])).loss
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\]"):
        model(clips, [0, 3])


def test_bfloat16_is_near_fp32_and_its_logits_are_fp32(model, clips):
    rounded = VideoMAEForVideoClassification(model.config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    rough, exact = rounded(clips, np.array([0, 1])), model(clips, np.array([0, 1]))
    assert rough.logits.dtype == rough.loss.dtype == jnp.float32
    assert 1e-5 < jnp.std(rough.logits - exact.logits) / jnp.std(exact.logits) < 0.05
    np.testing.assert_allclose(rough.loss, exact.loss, rtol=1e-2)


def test_a_new_model_is_drawn_as_the_originals_for_fine_tuning():
    """Matrices normal with one deviation, the head's a thousandth; the patch embedding is torch's, biases are 0."""
    config = TINY.adapt(hidden_size=96, num_labels=50, initializer_range=0.02)
    state = nnx.split(VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)))[1]
    for path, leaf in flatten_dict(nnx.to_pure_dict(state), sep="/").items():
        name = path.split("/")[-1]
        if "projection" in path:
            assert 0.95 < abs(leaf).max() * config.patch_dim**0.5 <= 1.001, path
        elif name == "kernel":
            wanted = 2e-5 if path.startswith("classifier") else 0.02
            assert abs(leaf.std() / wanted - 1) < 5 / np.sqrt(2 * leaf.size), path
            assert abs(leaf).max() > 3 * wanted, path  # normal, not uniform
        else:
            assert (leaf == (name == "scale")).all(), path


def test_the_encoder_alone_is_drawn_as_for_pretraining():
    kernel = VideoMAEModel(TINY, rngs=nnx.Rngs(0)).encoder.layer.mlp.intermediate.kernel[...]
    assert 0.98 < abs(kernel).max() / np.sqrt(6 / (32 + 48)) <= 1.001
