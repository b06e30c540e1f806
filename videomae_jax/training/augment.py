"""Augmentation on the device, each clip by its own key."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

# Of `random_erase`: fractions of a frame's area, and height / width.
ERASED_AREAS = (0.02, 1 / 3)
ERASED_ASPECTS = (0.3, 1 / 0.3)
ERASE_TRIES = 100


def random_flip(keys: Key[Array, " B"], video: UInt8[Array, "B T H W C"]) -> UInt8[Array, "B T H W C"]:
    """Mirrors every other clip left to right, all its frames alike."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None, None], video[:, :, :, ::-1], video)


def random_erase(
    keys: Key[Array, " B"], video: Float[Array, "B T H W C"], probability: float = 0.25
) -> Float[Array, "B T H W C"]:
    """Puts noise, N(0, 1) in every value, over one box of some clips, the same box in all their frames.

    Args:
      keys: one a clip.
      video: normalised clips, so that the noise looks like them.
      probability: of a clip to lose a box, 0 to 1.

    Source: random_erasing.py of the original, `RandomErasing` with mode "pixel", one box and `cube`.
    """

    def erase(key: Key[Array, ""], clip: Float[Array, "T H W C"]) -> Float[Array, "T H W C"]:
        box_key, noise_key = jax.random.split(key)
        box = _random_box(box_key, *clip.shape[1:3], probability)
        return jnp.where(box[..., None], jax.random.normal(noise_key, clip.shape, clip.dtype), clip)

    return jax.vmap(erase)(keys, video)


def _random_box(key: Key[Array, ""], height: int, width: int, probability: float) -> Bool[Array, "H W"]:
    """True inside a box of random area, aspect and place with probability `probability`; else False everywhere.

    The box is the first smaller than the frame of as many as the original tries, all drawn at once.
    """
    # One call draws everything: each more would take about half a second to compile on a CPU.
    uniform = jax.random.uniform(key, (3 + 2 * ERASE_TRIES,))
    (use, y, x), areas, aspects = jnp.split(uniform, [3, 3 + ERASE_TRIES])
    areas = _between(areas, *ERASED_AREAS) * height * width
    aspects = jnp.exp(_between(aspects, *map(math.log, ERASED_ASPECTS)))
    box_heights, box_widths = jnp.round(jnp.sqrt(areas * aspects)), jnp.round(jnp.sqrt(areas / aspects))
    fits = (box_heights < height) & (box_widths < width)
    first = jnp.argmax(fits)
    box_height, box_width = box_heights[first], box_widths[first]
    top, left = jnp.floor(y * (height - box_height + 1)), jnp.floor(x * (width - box_width + 1))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
    return inside & fits[first] & (use < probability)


def _between(uniform: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    return low + (high - low) * uniform
