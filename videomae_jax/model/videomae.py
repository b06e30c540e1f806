"""The VideoMAE models: the encoder, the masked autoencoder that pre-trains it, and the classification model.

    model = VideoMAEForPreTraining(VideoMAEConfig(), rngs=nnx.Rngs(0))
    output = model(pixel_values, bool_masked_pos)

`pixel_values` are clips `[B T H W C]`, uint8 in [0, 255] or floats normalised with the config's mean and std. They
may be of any size that the patch divides: the position table is resampled to them from the config's grid.

Numbers are transformers' but for these, which are meant:

- The loss takes pixels back to [0, 1] with the config's `image_mean` and `image_std`; transformers with ImageNet's,
  whatever its processor did.
- Raw pixels (`norm_pix_loss=False`) are a target for any number of channels; transformers takes RGB alone.
- Clips of other sizes are encoded, where transformers fails; rectangular patches can be pre-trained on.
- `output_attentions` works however attention is computed; transformers needs `attn_implementation="eager"`. With
  dropout the weights are those before it.
- New parameters are drawn as the original draws them (`initialisation`).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

from videomae_jax.config import Remat, VideoMAEConfig
from videomae_jax.model import initialisation
from videomae_jax.model import patches as px
from videomae_jax.model.compiled import cached_jit, in_few_sizes
from videomae_jax.model.decoder import VideoMAEDecoder
from videomae_jax.model.dropout import Keys, clip_keys, dropout, split_keys
from videomae_jax.model.embeddings import PatchEmbeddings
from videomae_jax.model.inputs import clip_counts, clip_grid
from videomae_jax.model.layers import Stack, layer_norm
from videomae_jax.model.losses import check_labels, classification_loss, masked_loss, token_errors
from videomae_jax.model.masking import MaskIds, resolve_mask
from videomae_jax.model.outputs import VideoClassifierOutput, VideoMAEForPreTrainingOutput, VideoMAEModelOutput
from videomae_jax.model.pooling import AttentivePooler
from videomae_jax.model.positions import positions_of
from videomae_jax.weights.pretrained import PretrainedMixin

Clips = UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"]


class VideoMAEModel(PretrainedMixin, nnx.Module):
    """The encoder (paper section 3; V1 modeling_pretrain.py:27-119). Its tokens are t slowest; there is no CLS token.

    Args:
      config: shape and behaviour.
      dtype: compute dtype of the matrix products; parameters, LayerNorm and softmax stay fp32.
      remat: what training keeps in memory (`config.Remat`); without gradients it changes nothing.
      kernel_init: how the blocks' matrices are drawn.
      rngs: source of the initial parameters, drawn as the original draws them.
    """

    def __init__(
        self,
        config: VideoMAEConfig,
        *,
        dtype: jnp.dtype = jnp.float32,
        remat: Remat = "dots",
        kernel_init: Initializer = initialisation.xavier,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.dtype = dtype
        self.embeddings = PatchEmbeddings(config.patch_dim, config.hidden_size, dtype=dtype, rngs=rngs)
        self.encoder = Stack(config, kernel_init=kernel_init, dtype=dtype, remat=remat, rngs=rngs)
        # As in Hugging Face: a model that pools by mean has its norm (fc_norm) after the pooling.
        has_norm = not config.use_mean_pooling
        self.layernorm = layer_norm(config.hidden_size, config.layer_norm_eps, rngs) if has_norm else None

    def __call__(
        self,
        pixel_values: Clips,
        bool_masked_pos: Bool[Array, "B N"] | None = None,
        *,
        visible_ids: Int[Array, "B V"] | None = None,
        masked_ids: Int[Array, "B M"] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        key: Key[Array, "*B"] | None = None,
    ) -> VideoMAEModelOutput:
        """Encodes all tokens, or only the visible ones when a mask is given (as a bool mask or as ids).

        Args:
          pixel_values: clips of any T, H and W that the patch divides.
          bool_masked_pos: True where a token is hidden.
          visible_ids, masked_ids: the same mask as ids.
          output_hidden_states: whether to return the tokens before and after each block.
          output_attentions: whether to return each block's attention weights.
          key: for dropout and drop path, one for all or one a clip; None for inference, without them.

        Raises:
          ValueError: unusable clips (`inputs.clip_grid`), mask (`masking.resolve_mask`) or key (`dropout.clip_keys`).
        """
        batch, num_patches = clip_counts(self.config, pixel_values)
        mask = resolve_mask(bool_masked_pos, visible_ids, masked_ids, batch=batch, num_patches=num_patches)
        return in_few_sizes(
            self._encode,
            pixel_values,
            None if mask is None else mask.visible,
            clip_keys(key, batch),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )

    @cached_jit
    def _encode(self, pixel_values, visible_ids, keys, **flags):
        patches = px.patchify(pixel_values, self.config.patch)
        return self.encode_patches(patches, clip_grid(self.config, pixel_values), visible_ids, keys, **flags)

    @jax.named_scope("encoder")
    def encode_patches(
        self,
        patches: Shaped[Array, "B N P"],
        grid: tuple[int, int, int],
        visible_ids: Int[Array, "B V"] | None = None,
        keys: Keys = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VideoMAEModelOutput:
        """Gathers the visible tokens' pixels first, then embeds and encodes them: hidden tokens cost nothing."""
        config = self.config
        positions = positions_of(config, grid, config.hidden_size)[None]
        if visible_ids is not None:
            patches = px.gather(patches, visible_ids)
            positions = jnp.asarray(positions)[0][visible_ids]
        x = self.embeddings(px.normalize(patches, config.pixel_mean, config.pixel_std))
        x, hidden_states, attentions = self.encoder(
            x + positions.astype(self.dtype),
            keys,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        if self.layernorm is not None:
            x = self.layernorm(x).astype(self.dtype)
        return VideoMAEModelOutput(x, hidden_states, attentions)


class VideoMAEForPreTraining(PretrainedMixin, nnx.Module):
    """The masked autoencoder (paper section 3; V1 modeling_pretrain.py:188-275)."""

    def __init__(
        self, config: VideoMAEConfig, *, dtype: jnp.dtype = jnp.float32, remat: Remat = "dots", rngs: nnx.Rngs
    ):
        self.config = config
        self.dtype = dtype
        self.videomae = VideoMAEModel(config, dtype=dtype, remat=remat, rngs=rngs)
        self.encoder_to_decoder = nnx.Linear(
            config.hidden_size,
            config.decoder_hidden_size,
            use_bias=False,
            kernel_init=initialisation.torch_default,  # the original's top-level module never applies its own
            dtype=dtype,
            rngs=rngs,
        )
        self.mask_token = nnx.Param(initialisation.mask_token(rngs.params(), (config.decoder_hidden_size,)))
        self.decoder = VideoMAEDecoder(config, dtype=dtype, remat=remat, rngs=rngs)

    def __call__(
        self,
        pixel_values: Clips,
        bool_masked_pos: Bool[Array, "B N"] | None = None,
        *,
        visible_ids: Int[Array, "B V"] | None = None,
        masked_ids: Int[Array, "B M"] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        key: Key[Array, "*B"] | None = None,
    ) -> VideoMAEForPreTrainingOutput:
        """Encodes the visible tokens, predicts the pixels of the masked ones and compares.

        The mask is either `bool_masked_pos`, True where hidden, or ids. When `masked_ids` share tokens with
        `visible_ids` (V2's dual masking), those are decoded but not counted in the loss. The other arguments are those
        of `VideoMAEModel`; hidden states and attentions are the encoder's.

        Raises:
          ValueError: no mask or one that hides nothing, and what `VideoMAEModel` raises.
        """
        batch, num_patches = clip_counts(self.config, pixel_values)
        mask = resolve_mask(bool_masked_pos, visible_ids, masked_ids, batch=batch, num_patches=num_patches)
        if mask is None or mask.masked.shape[1] == 0:
            raise ValueError(
                "Pre-training needs a mask that hides tokens: pass bool_masked_pos, or visible_ids and masked_ids."
            )
        return self._reconstruct(
            pixel_values,
            mask,
            clip_keys(key, batch),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )

    @cached_jit
    def _reconstruct(self, pixel_values, mask: MaskIds, keys, **flags):
        config, grid = self.config, clip_grid(self.config, pixel_values)
        encoder_keys, decoder_keys = split_keys(keys, 2)
        patches = px.patchify(pixel_values, config.patch)
        encoder = self.videomae.encode_patches(patches, grid, mask.visible, encoder_keys, **flags)
        encoded = self.encoder_to_decoder(encoder.last_hidden_state)

        positions = jnp.asarray(positions_of(config, grid, config.decoder_hidden_size), self.dtype)
        hidden = self.mask_token[...].astype(self.dtype) + positions[mask.masked]
        tokens = jnp.concatenate([encoded + positions[mask.visible], hidden], axis=1)
        predicted = self.decoder(tokens, mask.masked.shape[1], decoder_keys)

        with jax.named_scope("loss"):
            targets = self.targets(px.gather(patches, mask.masked))
            loss = masked_loss(token_errors(predicted, targets), mask, math.prod(grid))
        return VideoMAEForPreTrainingOutput(loss, predicted, encoder.hidden_states, encoder.attentions)

    def targets(self, patches: Shaped[Array, "B M P"]) -> Float[Array, "B M P"]:
        """What the decoder is to predict of these tokens' pixels, fp32."""
        config = self.config
        pixels = px.unit_pixels(patches, config.pixel_mean, config.pixel_std)
        return px.pixel_targets(pixels, config.num_channels, config.norm_pix_loss)


class VideoMAEForVideoClassification(PretrainedMixin, nnx.Module):
    """The encoder with a linear head for classes or numbers (V1 modeling_finetune.py).

    With `use_mean_pooling` the head sees the normed mean of all tokens, with `attentive_pooling` what a learned query
    takes of the normed tokens, otherwise the normed first one, which is what transformers does. A new model is drawn as
    the original's for fine-tuning: matrices with deviation `initializer_range`, the head's a thousandth of that, so
    that it starts as one that cannot tell classes apart.
    """

    def __init__(
        self, config: VideoMAEConfig, *, dtype: jnp.dtype = jnp.float32, remat: Remat = "dots", rngs: nnx.Rngs
    ):
        self.config = config
        self.dtype = dtype
        # The original truncates at +-2, a hundred deviations.
        normal = jax.nn.initializers.normal
        how = dict(kernel_init=normal(config.initializer_range), dtype=dtype, rngs=rngs)
        self.videomae = VideoMAEModel(config, remat=remat, **how)
        pools = config.use_mean_pooling
        self.fc_norm = layer_norm(config.hidden_size, config.head_norm_eps, rngs) if pools else None
        self.pooler = AttentivePooler(config, **how) if config.attentive_pooling else None
        self.classifier = nnx.Linear(
            config.hidden_size, config.num_labels, kernel_init=normal(1e-3 * config.initializer_range), rngs=rngs
        )

    def __call__(
        self,
        pixel_values: Clips,
        labels: Shaped[Array, "B *num_labels"] | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        key: Key[Array, "*B"] | None = None,
    ) -> VideoClassifierOutput:
        """Scores each clip and, where labels are given, says how wrong that is.

        The loss is that of the config's `problem_type`. Without one, a model of one number is for regression, and
        otherwise integers are classes `[B]` and floats several classes a clip, `[B num_labels]` in [0, 1]. Where the
        problem takes floats (regression, a stated `multi_label_classification`), integers are taken as such.

        Args:
          pixel_values: clips of any T, H and W that the patch divides.
          labels: -100 is a class that does not count.
          output_hidden_states, output_attentions, key: those of `VideoMAEModel`.

        Raises:
          ValueError: unusable labels (`losses.check_labels`), and what `VideoMAEModel` raises.
        """
        batch, _ = clip_counts(self.config, pixel_values)
        keys = clip_keys(key, batch)
        flags = dict(output_hidden_states=output_hidden_states, output_attentions=output_attentions)
        if labels is None:
            return in_few_sizes(self._classify, pixel_values, keys, **flags)
        labels = labels if isinstance(labels, jax.Array) else np.asarray(labels)
        check_labels(self.config, labels, batch)
        return self._classify(pixel_values, keys, labels, **flags)

    @cached_jit
    def _classify(self, pixel_values, keys, labels=None, **flags):
        config = self.config
        encoder_keys, head_keys = split_keys(keys, 2)
        patches = px.patchify(pixel_values, config.patch)
        grid = clip_grid(config, pixel_values)
        encoder = self.videomae.encode_patches(patches, grid, None, encoder_keys, **flags)
        pooled = self.pool(encoder.last_hidden_state)
        logits = self.classifier(dropout(pooled, config.head_dropout_prob, head_keys))
        loss = None if labels is None else classification_loss(config, logits, labels)
        return VideoClassifierOutput(loss, logits, encoder.hidden_states, encoder.attentions)

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """What the classifier sees of the encoder's tokens, fp32."""
        if self.pooler is not None:
            return self.pooler(tokens)
        if self.fc_norm is not None:
            return self.fc_norm(tokens.mean(axis=1, dtype=jnp.float32))
        return tokens[:, 0].astype(jnp.float32)
