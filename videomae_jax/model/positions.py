"""Sine-cosine position tables. They are computed, never learned and never stored in a checkpoint."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from videomae_jax.config import VideoMAEConfig

# A kernel: how much each of the nearest old points counts, by its offset from the one on the left, for new points at
# distances of 0 to 1 from that one.
Kernel = Callable[[Float[np.ndarray, " new"]], dict[int, Float[np.ndarray, " new"]]]


def positions_of(config: VideoMAEConfig, grid: tuple[int, int, int], dim: int) -> Float[np.ndarray, "N D"]:
    """The config's table for a grid of tokens, whose width is `dim` (the encoder's, or the decoder's)."""
    return position_table(config.position_embedding_type, grid, dim, config.native_grid)


def sincos(positions: Float[np.ndarray, " N"], dim: int) -> Float[np.ndarray, "N D"]:
    """The original's encoding of a number: sines on even columns, cosines on odd ones, in float64.

    Angles are `position / 10000^(2 * (j // 2) / D)` for column j (V1 modeling_finetune.py:160-170).
    """
    columns = np.arange(dim)
    angles = positions[:, None] / 10000.0 ** (2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def position_table(
    kind: str, grid: tuple[int, int, int], dim: int, native: tuple[int, int, int] | None = None
) -> Float[np.ndarray, "N D"]:
    """The table of a (t, h, w) grid of tokens, fp32, t slowest.

    `sincos_1d` is the published one: the encoding of the token's index in the flattened grid. `sincos_3d` gives a
    quarter of the columns to t and three eighths each to h and w (mae_st's shares), so that neighbours in every
    direction look alike.

    Args:
      kind: `sincos_1d` or `sincos_3d`.
      grid: (t, h, w), the tokens along each side.
      dim: D, a token's width.
      native: the grid that the table is made for, before it is resampled to `grid`; None for `grid` itself. A model
        knows the table that it was trained with: `sincos_1d` made for another grid numbers the tokens otherwise.

    Raises:
      ValueError: `sincos_3d` with a width that is not a multiple of 16.
    """
    native = grid if native is None else native
    t, h, w = native
    if kind == "sincos_1d":
        table = sincos(np.arange(t * h * w, dtype=np.float64), dim)
    elif dim % 16:
        raise ValueError(f"sincos_3d splits the width over t, h and w and needs a multiple of 16, got {dim}.")
    else:
        axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in native), indexing="ij")
        widths = (dim // 4, 3 * dim // 8, 3 * dim // 8)
        table = np.concatenate([sincos(axis.ravel(), width) for axis, width in zip(axes, widths, strict=True)], axis=1)
    if grid != native:
        table = resample(table.reshape(*native, dim), grid).reshape(-1, dim)
    return table.astype(np.float32)


def resample(table: Float[np.ndarray, "_ _ _ D"], grid: tuple[int, int, int]) -> Float[np.ndarray, "t h w D"]:
    """A table on another grid: cubic along h and w, as mmaction2 does it (vit_mae.py:343-367), and linear along t.

    Every weight is that of `torch.nn.functional.interpolate` with `align_corners=False` and no antialiasing.
    """
    for axis, (size, kernel) in enumerate(zip(grid, (_linear, _cubic, _cubic), strict=True)):
        if size != table.shape[axis]:
            weights = _weights(table.shape[axis], size, kernel)
            table = np.moveaxis(np.tensordot(weights, table, axes=(1, axis)), 0, axis)
    return table


def _weights(old: int, new: int, kernel: Kernel) -> Float[np.ndarray, "new old"]:
    """Each new point as a weighted sum of old ones. Points lie in the middle of equal cells; the edges repeat."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    left = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for offset, weight in kernel(place - left).items():
        np.add.at(weights, (np.arange(new), np.clip(left + offset, 0, old - 1)), weight)
    return weights


def _linear(x: Float[np.ndarray, " new"]) -> dict[int, Float[np.ndarray, " new"]]:
    return {0: 1 - x, 1: x}


def _cubic(x: Float[np.ndarray, " new"]) -> dict[int, Float[np.ndarray, " new"]]:
    """Keys' kernel."""
    a = -0.75  # torch's and OpenCV's

    def near(d):  # d up to 1
        return (a + 2) * d**3 - (a + 3) * d**2 + 1

    def far(d):  # d from 1 to 2
        return a * (d**3 - 5 * d**2 + 8 * d - 4)

    return {-1: far(1 + x), 0: near(x), 1: near(1 - x), 2: far(2 - x)}
