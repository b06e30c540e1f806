"""Checksums of arrays, made where they lie: the same on any devices, and other ones if a single value changes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, UInt32


@jax.jit
def checksums(tree: PyTree) -> PyTree[UInt32[Array, ""]]:
    """A checksum of the bits of every array of a tree: a change of one element changes it, of several nearly always.

    Each element's bits count as often as its place says, an odd number, so that none can vanish in the sum modulo
    2**32; the order in which devices add does not matter.
    """
    return jax.tree.map(_checksum, tree)


def _checksum(x: Array) -> UInt32[Array, ""]:
    unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    places = jnp.zeros(x.shape, jnp.uint32)
    for axis, stride in enumerate(math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim)):
        places += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(bits * (2 * places + 1), dtype=jnp.uint32)
