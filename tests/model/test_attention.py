import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding

from videomae_jax.model import attention
from videomae_jax.model.attention import CLIPS_AND_HEADS, LONG, attend, attend_on_tpu, backend, platform
from videomae_jax.model.tiled_attention import TILE, attend_in_tiles, tiling

plain = functools.partial(jax.nn.dot_product_attention, implementation="xla")


def operands(B, N, K, H, dtype=jnp.float32, count=4):
    """Query, key, value and a gradient of the result."""
    return [jnp.asarray(np.random.default_rng(i).normal(size=(B, N, K, H)), dtype) for i in range(count)]


def with_gradients(attend, query, key, value, gradient):
    result, backward = jax.vjp(attend, query, key, value)
    return [np.asarray(x, np.float32) for x in (result, *backward(gradient))]


def assert_same(attend, oracle, shape, dtype=jnp.float32, atol=1e-5):
    arrays = operands(*shape, dtype)
    for ours, theirs in zip(with_gradients(attend, *arrays), with_gradients(oracle, *arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


# The shapes of ViT-B's encoder and decoder, and one with parts of unequal size.
@pytest.mark.parametrize("shape", [(2, 160, 12, 64), (1, 1568, 2, 64), (1, 1201, 1, 8)])
def test_tiles_give_what_xla_gives_gradients_too(shape):
    assert_same(attend_in_tiles, plain, shape)


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 4), st.integers(1, 16))
def test_tiles_of_any_shape(B, N, K, H):
    assert_same(attend_in_tiles, plain, (B, N, K, H))


@pytest.mark.parametrize("tile", [1, 7, 50, 300])
def test_the_size_of_a_tile_changes_nothing(tile, monkeypatch):
    monkeypatch.setattr("videomae_jax.model.tiled_attention.TILE", tile)
    assert_same(attend_in_tiles, plain, (2, 11, 3, 4))


@given(st.integers(1, 5000), st.integers(1, 4000))
def test_tiles_are_of_bounded_size_and_hold_whole_heads_or_parts_of_one(heads, tokens):
    together, parts = tiling(heads, tokens)
    assert heads % together == 0 and (together == 1 or parts == 1)
    assert together * -(-tokens // parts) * tokens <= TILE + tokens


def test_tiles_compute_in_fp32_and_answer_in_the_dtype_of_the_values():
    arrays = operands(1, 24, 2, 8, jnp.bfloat16)
    exact = with_gradients(plain, *(x.astype(jnp.float32) for x in arrays))
    result, backward = jax.vjp(attend_in_tiles, *arrays[:3])
    for ours, theirs in zip((result, *backward(arrays[3])), exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        # One rounding at the end: half a unit in the last of bfloat16's eight digits.
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, rtol=2**-8, atol=1e-6)


def test_tiles_survive_scores_that_overflow_exp():
    query, key, value, _ = operands(1, 16, 1, 8)
    np.testing.assert_allclose(attend_in_tiles(query * 1000, key, value), plain(query * 1000, key, value), atol=1e-5)


# 100: padded with keys that nobody sees; 640: two blocks and more.
@pytest.mark.parametrize("tokens", [100, 640])
def test_the_tpu_kernel_gives_what_xla_gives_gradients_too(tokens):
    with pltpu.force_tpu_interpret_mode():
        assert_same(attend_on_tpu, plain, (1, tokens, 2, 16))


def small_mesh():
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def test_the_tpu_kernel_runs_on_every_device_with_its_own_clips_and_heads(monkeypatch):
    monkeypatch.setattr(attention, "platform", lambda: "tpu")
    monkeypatch.setattr(attention, "LONG", 128)
    with jax.set_mesh(small_mesh()), pltpu.force_tpu_interpret_mode():
        assert_same(jax.jit(attend), plain, (4, 128, 2, 8))


def test_devices_attend_without_a_word_to_each_other():
    mesh, shape = small_mesh(), (8, 24, 4, 8)
    sharding = NamedSharding(mesh, CLIPS_AND_HEADS)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)] * 4

    def step(query, key, value, gradient):
        return jax.vjp(attend, query, key, value)[1](gradient)

    with jax.set_mesh(mesh):
        compiled = jax.jit(step, out_shardings=sharding).lower(*arrays).compile()
        assert_same(jax.jit(attend), plain, shape)
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", compiled.as_text())


@pytest.mark.parametrize("clips_and_heads", [(3, 4), (8, 3)])
@pytest.mark.parametrize("where", ["cpu", "tpu"])
def test_what_does_not_divide_is_attended_to_all_the_same(clips_and_heads, where, monkeypatch):
    monkeypatch.setattr(attention, "platform", lambda: where)
    with jax.set_mesh(small_mesh()):
        # A function of its own: of `attend` itself JAX would take what it made for the other platform.
        assert_same(jax.jit(lambda *qkv: attend(*qkv)), plain, (clips_and_heads[0], LONG, clips_and_heads[1], 8))


def test_a_mesh_of_other_axes_will_do():
    with jax.set_mesh(jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))):
        assert_same(jax.jit(attend), plain, (8, 24, 4, 8))


def test_the_platform_is_that_of_the_mesh_or_of_the_default_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert platform() == "gpu"
    with jax.set_mesh(small_mesh()):
        assert platform() == "cpu"
    with jax.default_device(jax.devices()[1]):
        assert platform() == "cpu"
    with jax.default_device("cpu"):
        assert platform() == "cpu"


def test_every_platform_has_its_way(monkeypatch):
    def chosen(where, tokens, dtype, head=64):
        return backend(where, jax.ShapeDtypeStruct((2, tokens, 12, head), dtype)).__name__

    monkeypatch.setattr(attention, "_is_ampere", lambda: True)
    assert chosen("cpu", 1568, jnp.bfloat16) == "attend_in_tiles"
    assert chosen("tpu", 1568, jnp.bfloat16) == "attend_on_tpu"
    assert chosen("tpu", 160, jnp.bfloat16) == "attend_plainly"
    assert chosen("gpu", 1568, jnp.bfloat16) == "attend_with_cudnn"
    assert chosen("gpu", 1568, jnp.bfloat16, head=88) == "attend_with_cudnn"  # ViT-g
    assert chosen("gpu", 1568, jnp.bfloat16, head=12) == "attend_plainly"
    assert chosen("gpu", 1568, jnp.float32) == "attend_plainly"
    monkeypatch.setattr(attention, "_is_ampere", lambda: False)
    assert chosen("gpu", 1568, jnp.bfloat16) == "attend_plainly"


@pytest.mark.parametrize(
    ("capability", "new_enough"), [("7.5", False), ("8.0", True), ("9.0", True), ("10.3", True), ("gfx90a", False)]
)
def test_cudnn_is_for_cuda_devices_from_ampere_on(capability, new_enough, monkeypatch):
    class Device:
        compute_capability = capability

    monkeypatch.setattr(jax, "local_devices", lambda backend: [Device()])
    assert attention._is_ampere() is new_enough


def test_a_cpu_never_has_all_scores_in_memory():
    """1568 tokens, 8 heads of 2 clips: 157 MB of scores; a step of theirs needs a tile and what it keeps."""
    arrays = [jax.ShapeDtypeStruct((2, 1568, 8, 64), jnp.float32)] * 4

    def step(query, key, value, gradient):
        return jax.vjp(attend, query, key, value)[1](gradient)

    scores = 2 * 8 * 1568**2 * 4
    ours = jax.jit(step).lower(*arrays).compile().memory_analysis().temp_size_in_bytes
    assert ours < scores
