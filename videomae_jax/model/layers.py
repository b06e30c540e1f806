"""The transformer: attention, MLP, block, and a stack of blocks run by one scan."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from videomae_jax.config import Remat, VideoMAEConfig
from videomae_jax.model.attention import attend, attention_weights, mix
from videomae_jax.model.dropout import Keys, drop_path, dropout, split_keys
from videomae_jax.model.sharding import splits_heads, with_own_clips
from videomae_jax.model.tiled_attention import KEPT

# The functions of config.ACTIVATIONS.
ACTIVATION = {
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5)),  # PyTorch's formula
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def layer_norm(dim: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in fp32 whatever the compute dtype; two-pass variance, as PyTorch's."""
    return nnx.LayerNorm(dim, epsilon=eps, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)


def by_rows(layer: nnx.Linear, x: Float[Array, "B N D"]) -> Float[Array, "B N F"]:
    """A linear layer on tokens as rows: XLA's products on CPUs are slower with more axes."""
    B, N, D = x.shape
    return layer(x.reshape(B * N, D)).reshape(B, N, -1)


class QKV(nnx.Module):
    """Query, key and value of every token in one product; the key has no bias (BEiT, V1 modeling_finetune.py)."""

    def __init__(self, dim: int, *, bias: bool, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        # Drawn as one [D, 3 D] matrix, as in the original: xavier's fan-out is that of all three.
        self.kernel = nnx.Param(kernel_init(rngs.params(), (dim, 3 * dim)).reshape(dim, 3, dim))
        self.q_bias = nnx.Param(jnp.zeros(dim)) if bias else None
        self.v_bias = nnx.Param(jnp.zeros(dim)) if bias else None
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "3 B N D"]:
        B, N, D = x.shape
        rows = x.reshape(B * N, D).astype(self.dtype)  # see `by_rows`
        kernel = self.kernel[...].astype(self.dtype)
        if splits_heads():
            qkv = jnp.einsum("RD,DcF->RcF", rows, kernel)
        else:  # one product of two matrices, whose gradients need no transposes
            qkv = (rows @ kernel.reshape(D, 3 * D)).reshape(B * N, 3, D)
        if self.q_bias is not None:
            biases = jnp.stack([self.q_bias[...], jnp.zeros_like(self.q_bias[...]), self.v_bias[...]])
            qkv += biases.astype(self.dtype)
        return jnp.moveaxis(qkv, 1, 0).reshape(3, B, N, D)


class Attention(nnx.Module):
    """Multi-head self-attention."""

    def __init__(self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        dim, how = config.hidden_size, dict(kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.qkv = QKV(dim, bias=config.qkv_bias, **how)
        self.output = nnx.Linear(dim, dim, **how)
        self.heads = config.num_attention_heads
        self.weight_dropout = config.attention_probs_dropout_prob
        self.output_dropout = config.hidden_dropout_prob

    @jax.named_scope("attention")
    def __call__(
        self, x: Float[Array, "B N D"], keys: Keys = None, *, output_attentions: bool = False
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B K N N"] | None]:
        """The tokens' updates and, when asked for, the weights before dropout."""
        B, N, D = x.shape
        weight_keys, output_keys = split_keys(keys, 2)
        query, key, value = self.qkv(x).reshape(3, B, N, self.heads, D // self.heads)
        if output_attentions or (keys is not None and self.weight_dropout > 0):
            weights = attention_weights(query, key)
            mixed = mix(dropout(weights, self.weight_dropout, weight_keys), value)
        else:
            mixed = attend(query, key, value)
        update = dropout(by_rows(self.output, mixed.reshape(B, N, D)), self.output_dropout, output_keys)
        return update, weights if output_attentions else None


class Mlp(nnx.Module):
    """Two linear layers around an activation."""

    def __init__(self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        how = dict(kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.intermediate = nnx.Linear(config.hidden_size, config.intermediate_size, **how)
        self.output = nnx.Linear(config.intermediate_size, config.hidden_size, **how)
        self.activation = config.hidden_act
        self.dropout = config.hidden_dropout_prob

    @jax.named_scope("mlp")
    def __call__(self, x: Float[Array, "B N D"], keys: Keys = None) -> Float[Array, "B N D"]:
        hidden = ACTIVATION[self.activation](by_rows(self.intermediate, x))
        return dropout(by_rows(self.output, hidden), self.dropout, keys)


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, rngs: nnx.Rngs):
        how = dict(kernel_init=kernel_init, dtype=dtype, rngs=rngs)
        self.layernorm_before = layer_norm(config.hidden_size, config.layer_norm_eps, rngs)
        self.attention = Attention(config, **how)
        self.layernorm_after = layer_norm(config.hidden_size, config.layer_norm_eps, rngs)
        self.mlp = Mlp(config, **how)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        keys: Keys = None,
        drop_path_rate: Float[Array, ""] | None = None,
        *,
        output_attentions: bool = False,
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B K N N"] | None]:
        """The tokens after the block and, when asked for, the attention's weights."""
        attention_keys, first_path_keys, mlp_keys, second_path_keys = split_keys(keys, 4)
        update, weights = self.attention(self.layernorm_before(x), attention_keys, output_attentions=output_attentions)
        x = x + drop_path(update, drop_path_rate, first_path_keys)
        update = self.mlp(self.layernorm_after(x), mlp_keys)
        return x + drop_path(update, drop_path_rate, second_path_keys), weights


class Stack(nnx.Module):
    """A config's blocks as one, each parameter with a leading axis L: compile time does not grow with depth."""

    def __init__(
        self, config: VideoMAEConfig, *, kernel_init: Initializer, dtype: jnp.dtype, remat: Remat, rngs: nnx.Rngs
    ):
        def block(key):
            return Block(config, kernel_init=kernel_init, dtype=dtype, rngs=nnx.Rngs(key))

        self.layer = jax.vmap(block)(jax.random.split(rngs.params(), config.num_hidden_layers))
        self.depth = config.num_hidden_layers
        self.drop_path_rate = config.drop_path_rate
        self.remat = check_remat(remat)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        keys: Keys = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> tuple[
        Float[Array, "B N D"], tuple[Float[Array, "B N D"], ...] | None, tuple[Float[Array, "B K N N"], ...] | None
    ]:
        """The tokens after the last block; when asked for, those before and after each one, and attention's weights."""
        rates = jnp.asarray(self.drop_path_rates) if keys is not None and self.drop_path_rate > 0 else None
        layer_keys = None if keys is None else split_keys(keys, self.depth)

        def run(x, layer):
            block, *randomness = layer
            after, weights = block(with_own_clips(x), *randomness, output_attentions=output_attentions)
            return after, (x if output_hidden_states else None, weights)

        last, (inputs, weights) = jax.lax.scan(_remat(run, self.remat), x, (self.layer, layer_keys, rates))
        hidden_states = (*inputs, last) if output_hidden_states else None
        return last, hidden_states, tuple(weights) if output_attentions else None

    @property
    def drop_path_rates(self) -> Float[np.ndarray, " L"]:
        """Of each block: from 0 in the first linearly to the config's in the last (V1 modeling_finetune.py)."""
        return np.linspace(0, self.drop_path_rate, self.depth, dtype=np.float32)


def check_remat(name: str) -> Remat:
    """The name, if it is one of `Remat`; raises a ValueError otherwise."""
    if name not in get_args(Remat):
        raise ValueError(f"remat must be one of {', '.join(get_args(Remat))}, got {name!r}.")
    return name


def _remat(block, remat: Remat):
    if remat == "none":
        return block
    # In a loop XLA cannot merge the second computation with the first, which prevent_cse would see to at a price.
    return jax.checkpoint(block, policy=_keeps if remat == "dots" else None, prevent_cse=False)


def _keeps(primitive, *operands, **parameters) -> bool:
    """Whether an operation's results are worth their memory: products with weights, and attention's results.

    These are named by our own implementation; cuDNN's kernel is one operation, and JAX's for TPUs a function with a
    derivative of its own.
    """
    if primitive.name in ("custom_vjp_call", "dot_product_attention_fwd_wrapper"):
        return True
    policies = jax.checkpoint_policies
    weights, named = policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(KEPT)
    return weights(primitive, *operands, **parameters) or named(primitive, *operands, **parameters)
