"""Clips to tokens' pixels and back, and the targets of the reconstruction."""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, Shaped, UInt8


def patchify(video: Shaped[Array, "B T H W C"], patch: tuple[int, int, int]) -> Shaped[Array, "B N P"]:
    """Cuts clips into cubes of `patch` (frames, height, width) pixels, t slowest; inside a cube the channel is fastest.

    Keeps the dtype: cutting uint8 moves a quarter of the bytes of float32.
    """
    u, p, q = patch
    return rearrange(video, "b (t u) (h p) (w q) c -> b (t h w) (u p q c)", u=u, p=p, q=q)


def unpatchify(
    patches: Shaped[Array, "B N P"], patch: tuple[int, int, int], grid: tuple[int, int, int]
) -> Shaped[Array, "B T H W C"]:
    """The inverse of `patchify` for a (t, h, w) grid."""
    (u, p, q), (t, h, w) = patch, grid
    return rearrange(patches, "b (t h w) (u p q c) -> b (t u) (h p) (w q) c", t=t, h=h, w=w, u=u, p=p, q=q)


def gather(patches: Shaped[Array, "B N P"], ids: Int[Array, "B M"]) -> Shaped[Array, "B M P"]:
    """Each clip's tokens at its ids."""
    return jnp.take_along_axis(patches, ids[:, :, None], axis=1)


def normalize(
    patches: Shaped[Array, "... P"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "... P"]:
    """What the encoder sees: (x - mean) / std by channel for uint8 in [0, 255]; floats are normalised already."""
    if patches.dtype != jnp.uint8:
        return patches
    channels = len(mean)
    cubes = patches.shape[-1] // channels
    return (patches / np.float32(255) - np.tile(np.float32(mean), cubes)) / np.tile(np.float32(std), cubes)


def unit_pixels(
    patches: Shaped[Array, "... P"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "... P"]:
    """Pixels in [0, 1], fp32, from uint8 in [0, 255] or from floats normalised with `mean` and `std`."""
    if patches.dtype == jnp.uint8:
        return patches / np.float32(255)
    cubes = patches.shape[-1] // len(mean)
    return patches.astype(jnp.float32) * np.tile(np.float32(std), cubes) + np.tile(np.float32(mean), cubes)


def to_bytes(pixels: Float[Array, "..."]) -> UInt8[Array, "..."]:
    """Pixels in [0, 1], cut off beyond, as pictures have them: 0 to 255."""
    return jnp.round(255 * jnp.clip(pixels, 0, 1)).astype(jnp.uint8)


def pixel_targets(pixels: Float[Array, "B M P"], channels: int, norm_pix: bool) -> Float[Array, "B M P"]:
    """What the decoder is to predict, fp32, from pixels in [0, 1].

    With `norm_pix` each cube is normalised per channel: unbiased variance, and eps added to the deviation, not to the
    variance (V1 engine_for_pretraining.py:37-53). Without, the pixels themselves.
    """
    if not norm_pix:
        return pixels
    cubes = rearrange(pixels, "b m (p c) -> b m p c", c=channels)
    mean = cubes.mean(axis=2, keepdims=True)
    deviation = jnp.sqrt(cubes.var(axis=2, keepdims=True, ddof=1))
    return rearrange((cubes - mean) / (deviation + 1e-6), "b m p c -> b m (p c)")
