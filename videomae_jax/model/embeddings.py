"""Pixels of a token to its embedding."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from videomae_jax.model.initialisation import torch_default, torch_default_bias


class PatchEmbeddings(nnx.Module):
    """A linear map of each token's pixels: the original's strided Conv3d, on the tokens wanted only."""

    def __init__(self, patch_dim: int, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.projection = nnx.Linear(
            patch_dim, dim, kernel_init=torch_default, bias_init=torch_default_bias(patch_dim), dtype=dtype, rngs=rngs
        )

    def __call__(self, patches: Float[Array, "B V P"]) -> Float[Array, "B V D"]:
        return self.projection(patches)
