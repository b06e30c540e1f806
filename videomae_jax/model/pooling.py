"""Attentive pooling: from the tokens of a clip to the one vector that a classifier sees."""

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.attention import attention_weights, mix
from videomae_jax.model.layers import Mlp, layer_norm


class CrossAttention(nnx.Module):
    """What queries take of a clip's tokens: multi-head, and without a matrix after it.

    V-JEPA's key has a bias, which adds the same to all scores of a query and which softmax does not see.
    """

    def __init__(self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        dim, how = config.hidden_size, dict(kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.query = nnx.Linear(dim, dim, use_bias=config.qkv_bias, **how)
        self.key = nnx.Linear(dim, dim, use_bias=False, **how)
        self.value = nnx.Linear(dim, dim, use_bias=config.qkv_bias, **how)
        self.heads = config.num_attention_heads

    def __call__(self, queries: Float[Array, "B Q D"], tokens: Float[Array, "B N D"]) -> Float[Array, "B Q D"]:
        weights = attention_weights(self._by_head(self.query(queries)), self._by_head(self.key(tokens)))
        return mix(weights, self._by_head(self.value(tokens))).reshape(queries.shape)

    def _by_head(self, x: Float[Array, "B N D"]) -> Float[Array, "B N K H"]:
        return x.reshape(*x.shape[:2], self.heads, -1)


class AttentivePooler(nnx.Module):
    """One learned query that attends to all tokens, and an MLP after it.

    V-JEPA's attentive probe of depth 1 (arXiv 2404.08471; transformers' `VJEPA2AttentivePooler` without its layers of
    self-attention), with the encoder's heads, MLP width and activation. It has no dropout of its own.

    Args:
      config: shape and behaviour.
      kernel_init: how the matrices and the query are drawn.
      dtype: compute dtype of the matrix products; the vector, LayerNorm and softmax stay fp32.
      rngs: source of the initial parameters.
    """

    def __init__(self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        dim, how = config.hidden_size, dict(kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.query = nnx.Param(kernel_init(rngs.params(), (dim,)))
        self.layernorm_before = layer_norm(dim, config.head_norm_eps, rngs)
        self.attention = CrossAttention(config, **how)
        self.layernorm_after = layer_norm(dim, config.head_norm_eps, rngs)
        self.mlp = Mlp(config, **how)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        B, _, D = tokens.shape
        x = jnp.broadcast_to(self.query[...], (B, 1, D))
        x = x + self.attention(x, self.layernorm_before(tokens))
        x = x + self.mlp(self.layernorm_after(x))
        return x[:, 0]
