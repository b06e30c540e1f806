"""Dropout and stochastic depth as functions of keys, one a clip: what a clip loses does not depend on its batch."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# One key a clip, or None where nothing is to be random.
Keys = Key[Array, " B"] | None


def clip_keys(key: Key[Array, "*B"] | None, batch: int) -> Keys:
    """A key for each of `batch` clips, from one for all or from just these.

    Raises:
      ValueError: keys for another number of clips, or an array that is no key.
    """
    if key is None:
        return None
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key must be made by jax.random.key, got {getattr(key, 'dtype', type(key).__name__)}.")
    if key.shape not in ((), (batch,)):
        raise ValueError(f"key must be one key or one a clip, [B] = [{batch}], got {list(key.shape)}.")
    return key if key.shape else jax.random.split(key, batch)


def split_keys(keys: Keys, count: int) -> tuple[Keys, ...] | Key[Array, "count B"]:
    """`count` keys for each clip; of None, `count` times None."""
    if keys is None:
        return (None,) * count
    return jax.vmap(functools.partial(jax.random.split, num=count), out_axes=1)(keys)


def dropout(x: Float[Array, "B ..."], rate: float, keys: Keys) -> Float[Array, "B ..."]:
    """Sets a share `rate` of the numbers to 0 and divides the others by what is kept, so that the mean stays."""
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def drop_path(x: Float[Array, "B ..."], rate: Float[Array, ""] | None, keys: Keys) -> Float[Array, "B ..."]:
    """The same for whole clips: stochastic depth of a residual branch (timm's `drop_path`)."""
    if keys is None or rate is None:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)
    scale = jnp.where(keep, 1 / (1 - rate), 0)
    return x * scale.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)
