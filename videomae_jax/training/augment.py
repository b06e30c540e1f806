"""Augmentation on the device, each clip by its own key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8


def random_flip(keys: Key[Array, " B"], video: UInt8[Array, "B T H W C"]) -> UInt8[Array, "B T H W C"]:
    """Mirrors every other clip left to right, all its frames alike."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None, None], video[:, :, :, ::-1], video)
