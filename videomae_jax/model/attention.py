"""Scaled dot-product attention."""

import jax
from jaxtyping import Array, Float


def attend(
    query: Float[Array, "B N K H"], key: Float[Array, "B N K H"], value: Float[Array, "B N K H"]
) -> Float[Array, "B N K H"]:
    """Every token attends to every other; softmax in fp32, scale 1/sqrt(H)."""
    return jax.nn.dot_product_attention(query, key, value)
