"""A predictor without a model, that a loss is compared with: what a run has learned is what it gains over it."""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float


def mean_colour(targets: Float[Array, "B M P"], channels: int) -> Float[Array, "B M P"]:
    """Each clip's best constant: the mean over its targets, by channel. Zero for normalised targets."""
    cubes = rearrange(targets, "b m (p c) -> b m p c", c=channels)
    return rearrange(jnp.broadcast_to(cubes.mean(axis=(1, 2), keepdims=True), cubes.shape), "b m p c -> b m (p c)")
