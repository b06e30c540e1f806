"""Attention for CPUs: in tiles that fit the caches, with a backward pass that never has all of the weights.

XLA's CPU compiler writes the whole matrix of scores to memory and reads it back. Here a tile of it is made, used and
forgotten; the backward pass makes it again from the log-sum-exp of each query's scores (FlashAttention, arXiv
2205.14135).
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

KEPT = "attention"  # what rematerialisation should keep rather than compute again
# Scores of a tile: about 5 MB, half a head of 1568 tokens.
TILE = 784 * 1568

Heads = Float[Array, "G g N H"]  # G groups of g heads, of whatever clip


@jax.custom_vjp
def attend_in_tiles(
    query: Float[Array, "B N K H"], key: Float[Array, "B N K H"], value: Float[Array, "B N K H"]
) -> Float[Array, "B N K H"]:
    """`softmax(query key^T / sqrt(H)) value`, computed in fp32."""
    return _forward(query, key, value)[0]


def _forward(query, key, value):
    B, N, K, H = query.shape
    together, parts = tiling(B * K, N)

    def rows(q, k, vt):
        scores = jnp.einsum("gnH,gmH->gnm", q, k)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        # Operands are laid out so that the axis of the sum is the last of both: XLA's fast product on CPUs.
        return jnp.einsum("gnm,gHm->gnH", weights, vt) / total, largest + jnp.log(total)

    def group(qkv):
        q, k, v = qkv
        vt = v.swapaxes(1, 2)
        mixed, logsumexp = jax.lax.map(lambda q: rows(q, k, vt), _in_parts(q, parts))
        return _whole(mixed, N), _whole(logsumexp, N)

    q, k, v = (_by_heads(x, together) for x in (query.astype(jnp.float32) * H**-0.5, key, value))
    mixed, logsumexp = (checkpoint_name(x, KEPT) for x in jax.lax.map(group, (q, k, v)))
    return _by_clips(mixed, B).astype(value.dtype), (q, k, v, mixed, logsumexp)


def _backward(kept, gradient):
    q, k, v, mixed, logsumexp = kept
    B, N, K, H = gradient.shape
    together, parts = tiling(B * K, N)
    dmixed = _by_heads(gradient, together)

    def group(operands):
        q, k, v, logsumexp, dmixed, diagonal = operands
        kt = k.swapaxes(1, 2)

        def rows(sums, part):
            dkt, dvt = sums
            q, logsumexp, dmixed, diagonal = part
            weights = jnp.exp(jnp.einsum("gnH,gmH->gnm", q, k) - logsumexp)
            dscores = weights * (jnp.einsum("gnH,gmH->gnm", dmixed, v) - diagonal)
            dkt += jnp.einsum("gHn,gnm->gHm", q.swapaxes(1, 2), dscores)
            dvt += jnp.einsum("gHn,gnm->gHm", dmixed.swapaxes(1, 2), weights)
            return (dkt, dvt), jnp.einsum("gnm,gHm->gnH", dscores, kt)

        split = tuple(_in_parts(x, parts) for x in (q, logsumexp, dmixed, diagonal))
        (dkt, dvt), dq = jax.lax.scan(rows, (jnp.zeros_like(kt), jnp.zeros_like(kt)), split)
        return _whole(dq, N), dkt.swapaxes(1, 2), dvt.swapaxes(1, 2)

    diagonal = (mixed * dmixed).sum(axis=-1, keepdims=True)
    dq, dk, dv = (_by_clips(x, B) for x in jax.lax.map(group, (q, k, v, logsumexp, dmixed, diagonal)))
    return tuple(x.astype(gradient.dtype) for x in (dq * H**-0.5, dk, dv))


attend_in_tiles.defvjp(_forward, _backward)


def tiling(heads: int, tokens: int) -> tuple[int, int]:
    """How many heads make a tile, and where a single one is larger than that into how many parts its queries go."""
    fitting = max(TILE // tokens**2, 1)
    together = max(count for count in range(1, min(heads, fitting) + 1) if heads % count == 0)
    return together, -(-(tokens**2) // TILE) if together == 1 else 1


def _by_heads(x: Float[Array, "B N K H"], together: int) -> Heads:
    B, N, K, H = x.shape
    return x.astype(jnp.float32).swapaxes(1, 2).reshape(B * K // together, together, N, H)


def _by_clips(x: Heads, clips: int) -> Float[Array, "B N K H"]:
    return x.reshape(clips, -1, *x.shape[2:]).swapaxes(1, 2)


def _in_parts(x: Float[Array, "g N H"], parts: int) -> Float[Array, "parts g n H"]:
    """Queries as parts of equal size; rows of zeros fill the last one, and add nothing to any gradient."""
    g, N, H = x.shape
    size = -(-N // parts)
    return jnp.pad(x, ((0, 0), (0, size * parts - N), (0, 0))).reshape(g, parts, size, H).swapaxes(0, 1)


def _whole(x: Float[Array, "parts g n H"], tokens: int) -> Float[Array, "g N H"]:
    parts, g, size, H = x.shape
    return x.swapaxes(0, 1).reshape(g, parts * size, H)[:, :tokens]
