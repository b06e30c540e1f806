"""The VideoMAE models: the encoder, and the masked autoencoder that pre-trains it.

    model = VideoMAEForPreTraining(VideoMAEConfig(), rngs=nnx.Rngs(0))
    output = model(pixel_values, bool_masked_pos)

`pixel_values` are clips `[B T H W C]`, uint8 in [0, 255] or floats normalised with the config's mean and std.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model import patches as px
from videomae_jax.model.layers import Stack, layer_norm
from videomae_jax.model.masking import MaskIds, mask_from_ids, resolve_mask
from videomae_jax.model.outputs import VideoMAEForPreTrainingOutput, VideoMAEModelOutput
from videomae_jax.model.positions import position_table
from videomae_jax.weights.pretrained import PretrainedMixin

# PyTorch's default for Linear and Conv layers, U(+-1/sqrt(fan_in)): what the original leaves untouched.
torch_default = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
xavier = jax.nn.initializers.xavier_uniform()


def cached_jit(method: Callable) -> Callable:
    """Runs a method of a module under one jitted function, shared by all modules of the same structure.

    An eager `lax.scan` compiles again at every call; notebooks live on eager calls.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def run(graphdef, params, *args):
        return method(nnx.merge(graphdef, params), *args)

    @functools.wraps(method)
    def call(self, *args):
        graphdef, state = nnx.split(self)
        return run(graphdef, nnx.to_pure_dict(state), *args)

    return call


class PatchEmbeddings(nnx.Module):
    """A linear map of each token's pixels: the original's strided Conv3d, on the tokens wanted only."""

    def __init__(self, patch_dim: int, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        def bias_init(key, shape, dtype=jnp.float32):
            bound = patch_dim**-0.5
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        self.projection = nnx.Linear(
            patch_dim, dim, kernel_init=torch_default, bias_init=bias_init, dtype=dtype, rngs=rngs
        )

    def __call__(self, patches: Float[Array, "B V P"]) -> Float[Array, "B V D"]:
        return self.projection(patches)


class VideoMAEModel(PretrainedMixin, nnx.Module):
    """The encoder (paper section 3; V1 modeling_pretrain.py:27-119). Its tokens are t slowest; there is no CLS token.

    Args:
      config: shape and behaviour.
      dtype: compute dtype of the matrix products; parameters, LayerNorm and softmax stay fp32.
      rngs: source of the initial parameters, drawn as the original draws them.
    """

    def __init__(self, config: VideoMAEConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.embeddings = PatchEmbeddings(config.patch_dim, config.hidden_size, dtype=dtype, rngs=rngs)
        self.encoder = Stack(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.num_hidden_layers,
            eps=config.layer_norm_eps,
            qkv_bias=config.qkv_bias,
            kernel_init=xavier,
            dtype=dtype,
            rngs=rngs,
        )
        # As in Hugging Face: a model that pools by mean has its norm (fc_norm) after the pooling.
        has_norm = not config.use_mean_pooling
        self.layernorm = layer_norm(config.hidden_size, config.layer_norm_eps, rngs) if has_norm else None

    def __call__(
        self,
        pixel_values: UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"],
        bool_masked_pos: Bool[Array, "B N"] | None = None,
        *,
        visible_ids: Int[Array, "B V"] | None = None,
        masked_ids: Int[Array, "B M"] | None = None,
    ) -> VideoMAEModelOutput:
        """Encodes all tokens, or only the visible ones when a mask is given (as a bool mask or as ids).

        Raises:
          ValueError: clips of another shape than the config's, or an unusable mask (`masking.resolve_mask`).
        """
        check_pixel_values(self.config, pixel_values)
        sizes = dict(batch=pixel_values.shape[0], num_patches=self.config.num_patches)
        mask = resolve_mask(bool_masked_pos, visible_ids, masked_ids, **sizes)
        return self._encode(pixel_values, None if mask is None else mask.visible)

    @cached_jit
    def _encode(self, pixel_values, visible_ids):
        patches = px.patchify(pixel_values, self.config.patch)
        return VideoMAEModelOutput(last_hidden_state=self.encode_patches(patches, visible_ids))

    def encode_patches(
        self, patches: Shaped[Array, "B N P"], visible_ids: Int[Array, "B V"] | None
    ) -> Float[Array, "B V D"]:
        """Gathers the visible tokens' pixels first, then embeds and encodes them: hidden tokens cost nothing."""
        config = self.config
        positions = position_table(config.position_embedding_type, config.grid, config.hidden_size)[None]
        if visible_ids is not None:
            patches = gather(patches, visible_ids)
            positions = jnp.asarray(positions)[0][visible_ids]
        x = self.embeddings(px.normalize(patches, config.pixel_mean, config.pixel_std))
        x = self.encoder(x + positions.astype(self.dtype))
        return x if self.layernorm is None else self.layernorm(x)


class VideoMAEDecoder(nnx.Module):
    """The narrow decoder and its pixel head (V1 modeling_pretrain.py:121-185)."""

    def __init__(self, config: VideoMAEConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.decoder_layers = Stack(
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
            config.decoder_num_hidden_layers,
            eps=config.layer_norm_eps,
            qkv_bias=config.qkv_bias,
            kernel_init=xavier,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = layer_norm(config.decoder_hidden_size, config.decoder_norm_eps, rngs)
        self.head = nnx.Linear(config.decoder_hidden_size, config.patch_dim, kernel_init=xavier, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B V+M E"], num_masked: int) -> Float[Array, "B M P"]:
        """Predicts the pixels of the last `num_masked` tokens."""
        x = self.decoder_layers(x)[:, -num_masked:]
        return self.head(self.norm(x)).astype(jnp.float32)


class VideoMAEForPreTraining(PretrainedMixin, nnx.Module):
    """The masked autoencoder (paper section 3; V1 modeling_pretrain.py:188-275)."""

    def __init__(self, config: VideoMAEConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.videomae = VideoMAEModel(config, dtype=dtype, rngs=rngs)
        self.encoder_to_decoder = nnx.Linear(
            config.hidden_size,
            config.decoder_hidden_size,
            use_bias=False,
            kernel_init=torch_default,  # the original's top-level module never applies its initialisation
            dtype=dtype,
            rngs=rngs,
        )
        # Cut at one standard deviation, as the original cuts it.
        mask_token_init: Initializer = jax.nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
        self.mask_token = nnx.Param(mask_token_init(rngs.params(), (config.decoder_hidden_size,)))
        self.decoder = VideoMAEDecoder(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        pixel_values: UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"],
        bool_masked_pos: Bool[Array, "B N"] | None = None,
        *,
        visible_ids: Int[Array, "B V"] | None = None,
        masked_ids: Int[Array, "B M"] | None = None,
    ) -> VideoMAEForPreTrainingOutput:
        """Encodes the visible tokens, predicts the pixels of the masked ones and compares.

        The mask is either `bool_masked_pos`, True where hidden, or ids. When `masked_ids` share tokens with
        `visible_ids` (V2's dual masking), those are decoded but not counted in the loss.

        Raises:
          ValueError: no mask, an empty or unusable one (`masking.resolve_mask`), or clips of another shape than the
            config's.
        """
        check_pixel_values(self.config, pixel_values)
        sizes = dict(batch=pixel_values.shape[0], num_patches=self.config.num_patches)
        mask = resolve_mask(bool_masked_pos, visible_ids, masked_ids, **sizes)
        if mask is None or mask.masked.shape[1] == 0:
            raise ValueError(
                "Pre-training needs a mask that hides tokens: pass bool_masked_pos, or visible_ids and masked_ids."
            )
        return self._reconstruct(pixel_values, mask)

    @cached_jit
    def _reconstruct(self, pixel_values, mask: MaskIds):
        config = self.config
        patches = px.patchify(pixel_values, config.patch)
        encoded = self.encoder_to_decoder(self.videomae.encode_patches(patches, mask.visible))

        positions = position_table(config.position_embedding_type, config.grid, config.decoder_hidden_size)
        positions = jnp.asarray(positions, self.dtype)
        hidden = self.mask_token[...].astype(self.dtype) + positions[mask.masked]
        tokens = jnp.concatenate([encoded + positions[mask.visible], hidden], axis=1)
        predicted = self.decoder(tokens, num_masked=mask.masked.shape[1])

        targets = self.targets(gather(patches, mask.masked))
        loss = masked_loss(token_errors(predicted, targets), mask, config.num_patches)
        return VideoMAEForPreTrainingOutput(loss=loss, logits=predicted)

    def targets(self, patches: Shaped[Array, "B M P"]) -> Float[Array, "B M P"]:
        """What the decoder is to predict of these tokens' pixels, fp32."""
        config = self.config
        pixels = px.unit_pixels(patches, config.pixel_mean, config.pixel_std)
        return px.pixel_targets(pixels, config.num_channels, config.norm_pix_loss)


def masked_loss(errors: Float[Array, "B M"], mask: MaskIds, num_patches: int) -> Float[Array, ""]:
    """The mean of the tokens' errors over those that are decoded and that the encoder did not see.

    With one mask that is all of them (V1 engine_for_pretraining.py:57-60); with two, the sum over the tokens that are
    hidden and decoded, divided by their number in the whole batch (V2 engine_for_pretraining.py:97-113).
    """
    weights = hidden_weights(mask, num_patches)
    return (weights * errors).sum() / jnp.maximum(weights.sum(), 1)  # two masks may leave nothing to count


def hidden_weights(mask: MaskIds, num_patches: int) -> Float[Array, "B M"]:
    """1 for decoded tokens that the encoder did not see, 0 for those it did."""
    hidden = ~mask_from_ids(mask.visible, num_patches)
    return jnp.take_along_axis(hidden, mask.masked, axis=1).astype(jnp.float32)


def token_errors(predicted: Float[Array, "B M P"], targets: Float[Array, "B M P"]) -> Float[Array, "B M"]:
    """Mean squared error of each token's pixels."""
    return jnp.mean((predicted - targets) ** 2, axis=-1)


def gather(patches: Shaped[Array, "B N P"], ids: Int[Array, "B M"]) -> Shaped[Array, "B M P"]:
    """Each clip's tokens at its ids."""
    return jnp.take_along_axis(patches, ids[:, :, None], axis=1)


def check_pixel_values(config: VideoMAEConfig, pixel_values: Array) -> None:
    """Raises a ValueError unless these are clips `[B T H W C]` of the config's shape."""
    wanted = (*config.clip_size, config.num_channels)
    shape = tuple(pixel_values.shape)
    if len(shape) == 5 and shape[1:] == wanted:
        return
    frames, height, width, channels = wanted
    orders = {
        (frames, channels, height, width): "(0, 1, 3, 4, 2)",
        (channels, frames, height, width): "(0, 2, 3, 4, 1)",
    }
    hint = f" These look channels first; use pixel_values.transpose{orders[shape[1:]]}." if shape[1:] in orders else ""
    raise ValueError(f"pixel_values must be [B T H W C] = [B {' '.join(map(str, wanted))}], got {list(shape)}.{hint}")
