import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification
from videomae_jax.model.attention import attend
from videomae_jax.model.layers import QKV, layer_norm
from videomae_jax.model.sharding import splits_heads


def random(*shape, offset=0.0):
    return (offset + np.random.default_rng(0).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("offset", [0, 1000])
def test_layer_norm_is_torchs(offset):
    """Far from zero too, where a variance taken as E[x^2] - E[x]^2 has no digits left."""
    x = random(4, 32, offset=offset)
    theirs = torch.nn.functional.layer_norm(torch.tensor(x), (32,), eps=1e-6)
    # At 1000 fp32 itself has steps of 6e-5, and the mean is off by some of them.
    np.testing.assert_allclose(layer_norm(32, 1e-6, nnx.Rngs(0))(x), theirs, atol=5e-4 if offset else 1e-5)


def test_layer_norm_computes_in_fp32():
    x = jnp.asarray(random(4, 32), jnp.bfloat16)
    normed = layer_norm(32, 1e-6, nnx.Rngs(0))(x)
    assert normed.dtype == jnp.float32
    np.testing.assert_allclose(normed, layer_norm(32, 1e-6, nnx.Rngs(0))(x.astype(jnp.float32)), atol=1e-6)


def test_attention_is_torchs():
    query, key, value = random(3, 2, 5, 4, 8) * 3
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(torch.tensor(part).transpose(1, 2) for part in (query, key, value))
    )
    np.testing.assert_allclose(attend(query, key, value), theirs.transpose(1, 2), atol=1e-5)


def test_attention_takes_its_softmax_in_fp32():
    """Scores of 100 and 100.625: bfloat16 has steps of 0.5 there, and would give the second key 0.62."""
    query, key, value = (
        jnp.array(numbers, jnp.bfloat16).reshape(1, -1, 1, 1) for numbers in ([10], [10, 10.0625], [0, 1])
    )
    np.testing.assert_allclose(attend(query, key, value).item(), 1 / (1 + np.exp(-0.625)), atol=2**-9)


def test_a_program_does_not_grow_with_depth():
    def instructions(depth):
        config = VideoMAEConfig.from_size("tiny", image_size=32, num_frames=4, num_hidden_layers=depth)
        graphdef, state = nnx.split(nnx.eval_shape(lambda: VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))))
        clips = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), jnp.uint8)

        def loss(state, clips):
            return nnx.merge(graphdef, state)(clips).logits.sum()

        return len(jax.jit(jax.grad(loss)).lower(state, clips).as_text().splitlines())

    assert instructions(24) == instructions(3)


def test_heads_that_are_split_over_devices_get_the_same_queries_keys_and_values():
    qkv = QKV(8, bias=True, kernel_init=nnx.initializers.normal(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    qkv.q_bias[...] = random(8)
    graphdef, state = nnx.split(qkv)
    project = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    x = random(4, 3, 8)
    alone = project(state, x)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert splits_heads()
        together = project(state, x)
    assert not splits_heads()
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(alone, np.einsum("BND,DcF->cBNF", x, qkv.kernel[...]) + biases(qkv), atol=1e-6)


def biases(qkv):
    return np.stack([qkv.q_bias[...], np.zeros(8), qkv.v_bias[...]])[:, None, None]
