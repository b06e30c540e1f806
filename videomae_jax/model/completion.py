"""Whole clips, made of what is visible and what a model predicts of the rest."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.masking import MaskIds
from videomae_jax.model.patches import gather

Statistics = Literal["visible", "true"]


def complete(
    pixels: Float[Array, "B N P"],
    predicted: Float[Array, "B M P"],
    mask: MaskIds,
    config: VideoMAEConfig,
    grid: tuple[int, int, int],
    statistics: Statistics = "visible",
) -> Float[Array, "B N P"]:
    """Clips with the predictions in place of their hidden cubes, [0, 1] and a little beyond.

    A model with `norm_pix_loss` predicts cubes without their mean and deviation, which must come from elsewhere:

    - "visible": from the visible cubes around, weighted by distance. No hidden pixel is looked at.
    - "true": from the hidden cubes themselves, which no model predicted. It looks better than it is; the original's
      demo does so (run_videomae_vis.py).

    Args:
      pixels: of all cubes, [0, 1].
      predicted: the model's `logits` for `mask.masked`.
      mask: what the model saw.
      config: the model's.
      grid: (t, h, w) tokens of the clips.
      statistics: one of these two; of no effect on models of raw pixels.
    """
    if config.norm_pix_loss:
        known = mask.visible if statistics == "visible" else mask.masked
        cubes = gather(pixels, known)
        cubes = cubes.reshape(*cubes.shape[:2], -1, config.num_channels)
        values = jnp.concatenate([cubes.mean(axis=2), cubes.std(axis=2, ddof=1)], axis=-1)
        if statistics == "visible":
            values = distance_weighted(values, mask.visible, mask.masked, grid)
        repeats = config.patch_dim // config.num_channels
        mean, deviation = (jnp.tile(x, repeats) for x in jnp.split(values, 2, axis=-1))
        predicted = predicted * deviation + mean
    return pixels.at[jnp.arange(len(pixels))[:, None], mask.masked].set(predicted)


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
