"""Attentive pooling, against the pooler of transformers' V-JEPA 2, and the classifier that has one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from both_libraries import assert_close
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2AttentivePooler

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification
from videomae_jax.model.pooling import AttentivePooler
from videomae_jax.weights.arrays import from_checkpoint
from videomae_jax.weights.huggingface import HUGGINGFACE

pytestmark = pytest.mark.usefixtures("quick_compilation")
EPS = 0.1  # large enough to be seen
CONFIG = VideoMAEConfig(
    image_size=16,
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=128,  # V-JEPA's: four times the width
    layer_norm_eps=0.3,
    head_norm_eps=EPS,
    use_mean_pooling=False,
    attentive_pooling=True,
    num_labels=3,
)


def pooler(config=CONFIG, dtype=jnp.float32, deviation=0.3):
    return AttentivePooler(config, kernel_init=jax.nn.initializers.normal(deviation), dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def theirs():
    """V-JEPA 2's pooler with N(0, 0.3) added to every parameter."""
    config = transformers.VJEPA2Config(
        hidden_size=32, num_attention_heads=4, num_pooler_layers=0, layer_norm_eps=EPS, attn_implementation="eager"
    )
    torch.manual_seed(0)
    theirs = VJEPA2AttentivePooler(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return theirs.eval()


def as_ours(named):
    """Parameters, or gradients, of V-JEPA 2's pooler as those of ours; the key's bias has no place."""
    arrays = {f"pooler.{name}": array.detach().numpy() for name, array in named}
    arrays.pop("pooler.cross_attention_layer.cross_attn.k_proj.bias")
    params = flatten_dict(nnx.to_pure_dict(nnx.split(nnx.eval_shape(pooler))[1]), sep="/")
    wanted = {f"pooler/{path}": leaf.shape for path, leaf in params.items()}
    fitted = from_checkpoint(arrays, HUGGINGFACE, wanted, CONFIG.patch, as_array=jnp.asarray)
    assert not fitted.new and not fitted.unused
    return unflatten_dict(fitted.params, sep="/")["pooler"]


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 7, 32)).astype(np.float32)


def test_numbers_and_gradients_are_those_of_v_jepa_2(theirs, tokens):
    graphdef = nnx.split(pooler())[0]
    weight = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)

    def loss(params, tokens):
        pooled = nnx.merge(graphdef, params)(tokens)
        return (pooled * weight).sum(), pooled

    (_, pooled), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        as_ours(theirs.named_parameters()), tokens
    )
    theirs.zero_grad()
    their_tokens = torch.tensor(tokens, requires_grad=True)
    their_pooled = theirs(their_tokens)
    (their_pooled * torch.tensor(weight)).sum().backward()

    np.testing.assert_allclose(pooled, their_pooled.detach().numpy(), rtol=0, atol=1e-5)
    assert_close(grads[1], their_tokens.grad)
    their_grads = as_ours((name, parameter.grad) for name, parameter in theirs.named_parameters())
    for path, grad in flatten_dict(their_grads, sep="/").items():
        assert abs(grad).max() > 1e-3, path
    jax.tree.map(lambda ours, wanted: assert_close(ours, torch.tensor(np.asarray(wanted))), grads[0], their_grads)


def test_the_vector_stays_fp32_where_products_are_bfloat16(tokens):
    exact, rough = pooler()(tokens), pooler(dtype=jnp.bfloat16)(tokens.astype(jnp.bfloat16))
    assert rough.dtype == jnp.float32
    assert 1e-5 < jnp.std(rough - exact) / jnp.std(exact) < 0.05


def test_without_biases_for_query_and_value():
    paths = flatten_dict(nnx.to_pure_dict(nnx.split(pooler())[1]), sep="/").keys()
    fewer = flatten_dict(nnx.to_pure_dict(nnx.split(pooler(dataclasses.replace(CONFIG, qkv_bias=False)))[1]), sep="/")
    assert paths - fewer.keys() == {"attention/query/bias", "attention/value/bias"}


@pytest.fixture(scope="module")
def model():
    return VideoMAEForVideoClassification(dataclasses.replace(CONFIG, initializer_range=0.3), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *CONFIG.clip_size, 3)).astype(np.uint8)


def test_the_classifier_sees_what_the_pooler_takes_of_the_normed_tokens(model, clips):
    assert model.fc_norm is None and model.videomae.layernorm is not None
    pooled = model.pooler(model.videomae(clips).last_hidden_state)
    np.testing.assert_allclose(model(clips).logits, pooled @ model.classifier.kernel[...], rtol=0, atol=1e-7)


def test_the_classifier_drops_what_the_pooler_gives_it_and_the_pooler_nothing(model, clips):
    key = jax.random.key(0)
    np.testing.assert_array_equal(model(clips, key=key).logits, model(clips).logits)
    config = dataclasses.replace(model.config, head_dropout_prob=0.5)
    dropping = nnx.merge(nnx.split(VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0)))[0], nnx.split(model)[1])
    assert (dropping(clips, key=key).logits != model(clips).logits).all()


def test_a_new_pooler_is_drawn_normal_with_one_deviation():
    config = dataclasses.replace(CONFIG, hidden_size=96, initializer_range=0.02)
    model = VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))
    for path, leaf in flatten_dict(nnx.to_pure_dict(nnx.split(model.pooler)[1]), sep="/").items():
        if path.endswith(("kernel", "query")):
            assert abs(leaf.std() / 0.02 - 1) < 5 / np.sqrt(2 * leaf.size), path
        else:
            assert (leaf == path.endswith("scale")).all(), path


def test_the_pooler_has_the_heads_eps_and_the_encoders_norm_its_own(model):
    assert model.pooler.layernorm_before.epsilon == model.pooler.layernorm_after.epsilon == EPS
    assert model.videomae.layernorm.epsilon == 0.3
