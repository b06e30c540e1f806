"""Scaled dot-product attention, one function with a way of computing it for each platform."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attend(
    query: Float[Array, "B N K H"], key: Float[Array, "B N K H"], value: Float[Array, "B N K H"]
) -> Float[Array, "B N K H"]:
    """Every token attends to every other; softmax in fp32, scale 1/sqrt(H)."""
    return jax.lax.platform_dependent(query, key, value, cpu=_clip_by_clip, default=_all_at_once)


def attention_weights(query: Float[Array, "B Q K H"], key: Float[Array, "B N K H"]) -> Float[Array, "B K Q N"]:
    """How much every query takes of every token, fp32; each row sums to 1.

    For those who look at the weights, drop some of them or have few; `attend` never has all of them at once.
    """
    query = query * query.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.einsum("BQKH,BNKH->BKQN", query, key, preferred_element_type=jnp.float32))


def mix(weights: Float[Array, "B K Q N"], value: Float[Array, "B N K H"]) -> Float[Array, "B Q K H"]:
    """The values by these weights."""
    mixed = jnp.einsum("BKQN,BNKH->BQKH", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return mixed.astype(value.dtype)


def _all_at_once(query, key, value):
    query = query * query.shape[-1] ** -0.5
    scores = jnp.einsum("BNKH,BMKH->BKNM", query, key, preferred_element_type=jnp.float32)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    # Normalised after the product: a division for every token's output instead of for every pair of tokens.
    total = weights.sum(axis=-1)[..., None].swapaxes(1, 2)  # [B N K 1]
    mixed = jnp.einsum("BKNM,BMKH->BNKH", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (mixed / total).astype(value.dtype)


def _clip_by_clip(query, key, value):
    # The scores of one clip stay in the cache, and are computed again in the backward pass rather than read back.
    def one(clip):
        return _all_at_once(*(x[None] for x in clip))[0]

    return jax.lax.map(jax.checkpoint(one), (query, key, value))
