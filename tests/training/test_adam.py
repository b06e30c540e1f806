import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from videomae_jax.training.adam import scale_by_adam, when_finite

PARAMS = {"kernel": jnp.ones((3, 40, 50)), "bias": jnp.zeros(7), "frozen": None}


def gradient(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS)


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_and_moments_are_those_of_optax(dtype):
    ours, theirs = scale_by_adam(0.9, 0.95, 1e-8, dtype), optax.scale_by_adam(0.9, 0.95, 1e-8, mu_dtype=dtype)
    states = [ours.init(PARAMS), theirs.init(PARAMS)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for step in range(4):
        updates, states[0] = ours.update(gradient(step), states[0])
        expected, states[1] = theirs.update(gradient(step), states[1])
        assert_same(updates, expected, rtol=1e-6)
        # Two roundings may fall otherwise, in bfloat16 by one digit of eight.
        assert_same(states[0], states[1], rtol=1e-6 if dtype == "float32" else 2**-7)


@pytest.mark.parametrize("optimizer", [scale_by_adam(0.9, 0.95, 1e-8, "float32"), when_finite(optax.trace(0.9))])
def test_what_is_not_finite_leaves_the_state_as_it_is(optimizer):
    _, state = optimizer.update(gradient(0), optimizer.init(PARAMS), finite=jnp.array(True))
    assert np.abs(jax.tree.leaves(state)[-1]).max() > 0
    bad = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), PARAMS)
    _, after = optimizer.update(bad, state, finite=jnp.array(False))
    assert_same(after, state, rtol=0)
    _, after = optimizer.update(bad, state)
    assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(after) if leaf.ndim)


def test_moments_change_in_place():
    optimizer = scale_by_adam(0.9, 0.95, 1e-8, "float32")

    def step(params, state, grads):
        norm = optax.tree.norm(grads)
        updates, state = optimizer.update(grads, state, params, finite=jnp.isfinite(norm))
        return optax.apply_updates(params, updates), state, norm

    params = {"kernel": jnp.ones((4, 500, 500))}
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, optimizer.init(params), params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < params["kernel"].nbytes / 10
