"""Predictors without a model, that a loss is compared with: what a run has learned is what it gains over them."""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int


def mean_colour(targets: Float[Array, "B M P"], channels: int) -> Float[Array, "B M P"]:
    """Each clip's best constant: the mean over its targets, by channel. Zero for normalised targets."""
    cubes = rearrange(targets, "b m (p c) -> b m p c", c=channels)
    return rearrange(jnp.broadcast_to(cubes.mean(axis=(1, 2), keepdims=True), cubes.shape), "b m p c -> b m (p c)")


def distance_weighted(
    values: Float[Array, "B V X"],
    visible_ids: Int[Array, "B V"],
    masked_ids: Int[Array, "B M"],
    grid: tuple[int, int, int],
) -> Float[Array, "B M X"]:
    """Fills in values of hidden tokens with the mean of the visible ones', weighted by 1 / distance^2 on the grid."""
    places = jnp.asarray(np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), axis=1), jnp.float32)
    offsets = places[masked_ids][:, :, None] - places[visible_ids][:, None]
    # Dual masking decodes some visible tokens, at distance 0 of themselves: they keep their own value.
    weights = 1 / jnp.maximum((offsets**2).sum(axis=-1), 1e-6)
    return jnp.einsum("BMV,BVX->BMX", weights / weights.sum(axis=-1, keepdims=True), values)
