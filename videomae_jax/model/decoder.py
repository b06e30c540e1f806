"""The decoder of the masked autoencoder."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from videomae_jax.config import Remat, VideoMAEConfig
from videomae_jax.model.dropout import Keys
from videomae_jax.model.initialisation import xavier
from videomae_jax.model.layers import Stack, by_rows, layer_norm


class VideoMAEDecoder(nnx.Module):
    """The narrow decoder and its pixel head (V1 modeling_pretrain.py:121-185)."""

    def __init__(self, config: VideoMAEConfig, *, dtype: jnp.dtype, remat: Remat, rngs: nnx.Rngs):
        width = config.decoder_hidden_size
        blocks = dataclasses.replace(
            config,
            hidden_size=width,
            num_hidden_layers=config.decoder_num_hidden_layers,
            num_attention_heads=config.decoder_num_attention_heads,
            intermediate_size=config.decoder_intermediate_size,
            drop_path_rate=0.0,
        )
        self.decoder_layers = Stack(blocks, kernel_init=xavier, dtype=dtype, remat=remat, rngs=rngs)
        self.norm = layer_norm(width, config.decoder_norm_eps, rngs)
        self.head = nnx.Linear(width, config.patch_dim, kernel_init=xavier, dtype=dtype, rngs=rngs)

    @jax.named_scope("decoder")
    def __call__(self, x: Float[Array, "B V+M E"], num_masked: int, keys: Keys = None) -> Float[Array, "B M P"]:
        """Predicts the pixels of the last `num_masked` tokens."""
        x = self.decoder_layers(x, keys)[0][:, -num_masked:]
        return by_rows(self.head, self.norm(x)).astype(jnp.float32)
