import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from videomae_jax.training.checksum import checksums
from videomae_jax.training.mesh import make_mesh

SHAPE = (4, 6, 8)


def values(dtype):
    return np.random.default_rng(0).normal(size=SHAPE).astype(dtype)


def by_numpy(x):
    """The definition, with Python's integers."""
    bits = np.asarray(x).view(f"uint{8 * x.dtype.itemsize}").reshape(-1).tolist()
    return sum(value * (2 * place + 1) for place, value in enumerate(bits)) % 2**32


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32])
def test_it_is_the_sum_of_the_bits_weighted_by_place(dtype):
    x = values(dtype)
    assert int(checksums({"x": x})["x"]) == by_numpy(x)
    scalar = np.array(3, np.int32)
    assert int(checksums([scalar])[0]) == 3


@given(place=st.integers(0, np.prod(SHAPE) - 1), bit=st.integers(0, 31))
def test_one_changed_bit_is_seen(place, bit):
    x = values(np.float32)
    other = x.copy()
    other.view(np.uint32).reshape(-1)[place] ^= np.uint32(1 << bit)
    assert int(checksums(x)) != int(checksums(other))


def test_elements_that_changed_places_are_seen():
    x = values(np.float32)
    other = x.copy()
    other[0, 0, 0], other[3, 5, 7] = x[3, 5, 7], x[0, 0, 0]
    assert int(checksums(x)) != int(checksums(other))
    assert int(checksums(np.array([np.nan, 0.0], np.float32))) != int(checksums(np.array([0.0, np.nan], np.float32)))


@pytest.mark.parametrize("spec", [("data",), (None, "fsdp"), ("data", "fsdp", "tensor")])
def test_it_does_not_depend_on_where_the_array_lies(spec):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    x = values(np.float32)
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert int(checksums(split)) == int(checksums(x)) == by_numpy(x)
