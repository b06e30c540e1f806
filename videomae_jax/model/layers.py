"""The transformer: attention, MLP, block, and a stack of blocks run by one scan."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from videomae_jax.model.attention import attend


def layer_norm(dim: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in fp32 whatever the compute dtype; two-pass variance, as PyTorch's."""
    return nnx.LayerNorm(dim, epsilon=eps, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)


class QKV(nnx.Module):
    """Query, key and value of every token in one product; the key has no bias (BEiT, V1 modeling_finetune.py)."""

    def __init__(self, dim: int, *, bias: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        # The original draws one [D, 3 D] matrix: the fan-out is that of all three.
        init = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2))
        self.kernel = nnx.Param(init(rngs.params(), (dim, 3, dim)))
        self.q_bias = nnx.Param(jnp.zeros(dim)) if bias else None
        self.v_bias = nnx.Param(jnp.zeros(dim)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "3 B N D"]:
        qkv = jnp.einsum("BND,DcF->cBNF", x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        if self.q_bias is None:
            return qkv
        biases = jnp.stack([self.q_bias[...], jnp.zeros_like(self.q_bias[...]), self.v_bias[...]])
        return qkv + biases[:, None, None].astype(self.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, kernel_init: Initializer, dtype, rngs: nnx.Rngs):
        self.qkv = QKV(dim, bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.output = nnx.Linear(dim, dim, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        B, N, D = x.shape
        query, key, value = self.qkv(x).reshape(3, B, N, self.heads, D // self.heads)
        return self.output(attend(query, key, value).reshape(B, N, D))


class Mlp(nnx.Module):
    """Two linear layers around the exact (erf) GELU."""

    def __init__(self, dim: int, hidden: int, *, kernel_init: Initializer, dtype, rngs: nnx.Rngs):
        self.intermediate = nnx.Linear(dim, hidden, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.output = nnx.Linear(hidden, dim, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        return self.output(jax.nn.gelu(self.intermediate(x), approximate=False))


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, dim: int, heads: int, hidden: int, *, eps: float, qkv_bias: bool, kernel_init, dtype, rngs: nnx.Rngs
    ):
        self.layernorm_before = layer_norm(dim, eps, rngs)
        self.attention = Attention(dim, heads, qkv_bias=qkv_bias, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.layernorm_after = layer_norm(dim, eps, rngs)
        self.mlp = Mlp(dim, hidden, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.mlp(self.layernorm_after(x))


class Stack(nnx.Module):
    """`depth` equal blocks as one, each parameter with a leading axis L: compile time does not grow with depth."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        depth: int,
        *,
        eps: float,
        qkv_bias: bool,
        kernel_init: Initializer,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        def block(key):
            return Block(
                dim,
                heads,
                hidden,
                eps=eps,
                qkv_bias=qkv_bias,
                kernel_init=kernel_init,
                dtype=dtype,
                rngs=nnx.Rngs(key),
            )

        self.layer = jax.vmap(block)(jax.random.split(rngs.params(), depth))

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        # Rematerialised by block: the backward pass keeps one activation a layer.
        run = jax.checkpoint(lambda x, block: (block(x), None))
        return jax.lax.scan(run, x, self.layer)[0]
