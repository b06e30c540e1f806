"""What a model may be given."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from videomae_jax.config import VideoMAEConfig


def clip_counts(config: VideoMAEConfig, pixel_values: Array) -> tuple[int, int]:
    """B and N, how many clips and tokens of each these are; errors as in `clip_grid`."""
    grid = clip_grid(config, pixel_values)
    return pixel_values.shape[0], math.prod(grid)  # of any batch, too (`jax.export`)


def clip_grid(config: VideoMAEConfig, pixel_values: Array) -> tuple[int, int, int]:
    """(t, h, w), the tokens along each side of these clips, which may be of another size than the config's.

    Raises:
      ValueError: no clips `[B T H W C]` of uint8 or floats, other channels than the config's, or a side that the
        patch does not divide.
    """
    if not isinstance(pixel_values, (np.ndarray, jax.Array)):
        hint = " Of a processor's output: model(**inputs)." if isinstance(pixel_values, Mapping) else ""
        raise ValueError(f"pixel_values must be a NumPy or JAX array, got {type(pixel_values).__name__}.{hint}")
    shape, channels = list(pixel_values.shape), config.num_channels
    if len(shape) != 5:
        hint = " A single clip becomes a batch as pixel_values[None]." if len(shape) == 4 else ""
        raise ValueError(f"pixel_values must be clips [B T H W C], got {shape}.{hint}")
    if shape[-1] != channels:
        hint = ""
        for axis, order in ((2, "(0, 1, 3, 4, 2)"), (1, "(0, 2, 3, 4, 1)")):
            if shape[axis] == channels:
                hint = f" These look channels first; use pixel_values.transpose{order}."
                break
        raise ValueError(f"pixel_values must be [B T H W C] with num_channels C = {channels}, got {shape}.{hint}")
    if pixel_values.dtype != jnp.uint8 and not jnp.issubdtype(pixel_values.dtype, jnp.floating):
        raise ValueError(
            "pixel_values must be uint8 in [0, 255], or floats normalised with the config's image_mean and image_std; "
            f"got {pixel_values.dtype}."
        )
    for name, size, patch in zip(("frames", "height", "width"), shape[1:4], config.patch, strict=True):
        if size < patch or size % patch:
            nearest = [multiple for multiple in (size // patch * patch, (size // patch + 1) * patch) if multiple]
            raise ValueError(
                f"The clips' {name}, {size}, must be a multiple of the patch's {patch}, for example "
                f"{' or '.join(map(str, nearest))}; got pixel_values {shape}."
            )
    t, h, w = (size // patch for size, patch in zip(shape[1:4], config.patch, strict=True))
    return t, h, w
