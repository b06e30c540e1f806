import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.model.readout import pooled_features

CONFIG = VideoMAEConfig.from_size(
    "tiny",
    image_size=16,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=48,
    decoder_num_hidden_layers=1,
    initializer_range=0.3,
)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *CONFIG.clip_size, 3)).astype(np.uint8)


def normed(x, eps=1e-6):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_of_an_encoder_it_is_the_mean_of_its_normed_tokens(cls, clips):
    model = cls(CONFIG, rngs=nnx.Rngs(0))
    encoder = model if cls is VideoMAEModel else model.videomae
    blocks = encoder(clips, output_hidden_states=True).hidden_states[-1]
    pooled = pooled_features(model, clips)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, normed(blocks).mean(axis=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attentive", "first token"])
def test_of_a_classifier_it_is_what_the_classifier_sees(pooling, clips):
    fields = dict(use_mean_pooling=pooling == "mean", attentive_pooling=pooling == "attentive")
    model = VideoMAEForVideoClassification(dataclasses.replace(CONFIG, **fields), rngs=nnx.Rngs(0))
    pooled = pooled_features(model, clips)
    np.testing.assert_allclose(model.classifier(pooled), model(clips).logits, rtol=0, atol=1e-6)
    tokens = model.videomae(clips).last_hidden_state
    wanted = {
        "mean": lambda: normed(np.asarray(tokens).mean(axis=1)),
        "attentive": lambda: model.pooler(tokens),
        "first token": lambda: tokens[:, 0],
    }
    np.testing.assert_allclose(pooled, wanted[pooling](), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attentive", "first token", "no classifier"])
def test_it_is_fp32_whatever_the_model_computes_in(pooling, clips):
    fields = dict(use_mean_pooling=pooling == "mean", attentive_pooling=pooling == "attentive")
    cls = VideoMAEModel if pooling == "no classifier" else VideoMAEForVideoClassification
    model = nnx.eval_shape(lambda: cls(dataclasses.replace(CONFIG, **fields), dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    shape = jax.eval_shape(lambda params: pooled_features(nnx.merge(graphdef, params), clips), state)
    assert (shape.shape, shape.dtype) == ((2, 32), jnp.float32)
