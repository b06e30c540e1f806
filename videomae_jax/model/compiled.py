"""A module's method as one compiled function, and few programs for many sizes of a batch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def cached_jit(method: Callable) -> Callable:
    """Runs a method of a module under one jitted function, shared by all modules of the same structure.

    An eager `lax.scan` compiles again at every call; notebooks live on eager calls. Positional arguments are traced,
    keyword arguments are static.
    """

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def run(graphdef, static, params, *args):
        return method(nnx.merge(graphdef, params), *args, **dict(static))

    @functools.wraps(method)
    def call(self, *args, **static):
        graphdef, state = nnx.split(self)
        return run(graphdef, tuple(static.items()), nnx.to_pure_dict(state), *args)

    return call


def in_few_sizes(method: Callable, clips: Any, *args: Any, **static: Any) -> Any:
    """`method(clips, *args, **static)`, with the batch filled up to `few_sizes`: few programs for many batches.

    Under a transformation nothing is filled up, nor are clips that are split over devices.

    Args:
      method: of a module. All its arrays, in and out, have a row for each clip.
      clips: the first of its arrays.
      *args: other arrays, or None.
      **static: passed on.
    """
    arrays = jax.tree.leaves((clips, args, nnx.state(method.__self__)))
    traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    if traced or (isinstance(clips, jax.Array) and len(clips.devices()) > 1):
        return method(clips, *args, **static)
    rows = clips.shape[0]
    missing = few_sizes(rows) - rows
    if missing == 0:
        return method(clips, *args, **static)

    def filled(x):
        xp = jnp if isinstance(x, jax.Array) else np
        return xp.concatenate([x, xp.repeat(x[-1:], missing, axis=0)])

    clips, args = jax.tree.map(filled, (clips, args))
    return jax.tree.map(lambda x: x[:rows], method(clips, *args, **static))


def few_sizes(rows: int) -> int:
    """The next number of three binary digits and zeros: 1 to 8, 10, 12, 14, 16, 20, ...; a quarter more at most."""
    step = 1 << max(rows.bit_length() - 3, 0)
    return -(-rows // step) * step
