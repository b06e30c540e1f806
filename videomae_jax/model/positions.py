"""Sine-cosine position tables. They are computed, never learned and never stored in a checkpoint."""

import numpy as np
from jaxtyping import Float


def sincos(positions: Float[np.ndarray, " N"], dim: int) -> Float[np.ndarray, "N D"]:
    """The original's encoding of a number: sines on even columns, cosines on odd ones, in float64.

    Angles are `position / 10000^(2 * (j // 2) / D)` for column j (V1 modeling_finetune.py:160-170).
    """
    columns = np.arange(dim)
    angles = positions[:, None] / 10000.0 ** (2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def position_table(kind: str, grid: tuple[int, int, int], dim: int) -> Float[np.ndarray, "N D"]:
    """The table of a (t, h, w) grid of tokens, fp32, t slowest.

    `sincos_1d` is the published one: the encoding of the token's index in the flattened grid. `sincos_3d` gives a
    quarter of the columns to t and three eighths each to h and w (mae_st's shares), so that neighbours in every
    direction look alike.

    Raises:
      ValueError: `sincos_3d` with a width that is not a multiple of 16.
    """
    t, h, w = grid
    if kind == "sincos_1d":
        table = sincos(np.arange(t * h * w, dtype=np.float64), dim)
    elif dim % 16:
        raise ValueError(f"sincos_3d splits the width over t, h and w and needs a multiple of 16, got {dim}.")
    else:
        axes = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in grid), indexing="ij")
        widths = (dim // 4, 3 * dim // 8, 3 * dim // 8)
        table = np.concatenate([sincos(axis.ravel(), width) for axis, width in zip(axes, widths, strict=True)], axis=1)
    return table.astype(np.float32)
