"""A module's method as one compiled function."""

import functools
from collections.abc import Callable

import jax
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
