"""What is trained: a model, and its loss on a batch."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8, UInt32

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.masking import MaskIds, Masking
from videomae_jax.model.patches import patchify
from videomae_jax.model.videomae import VideoMAEForPreTraining, gather, masked_loss, token_errors
from videomae_jax.training.augment import random_flip
from videomae_jax.training.trivial import mean_colour
from videomae_jax.weights.pretrained import find_model

# What a recipe may change of the model that it goes on from: the target, and the eps, where transformers' differ from
# the original's.
MAY_DIFFER = ("norm_pix_loss", "layer_norm_eps", "decoder_norm_eps")

Batch = dict[str, Array]  # `video` uint8 [B S T H W C], `sample` uint32 [B]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Masked autoencoding. Every random choice for a clip comes from (seed, its sample index, its view)."""

    logged: ClassVar[tuple[str, ...]] = ("loss", "trivial_loss")

    config: VideoMAEConfig
    masking: Masking
    flip: bool
    seed: int
    dtype: jnp.dtype

    def create(self, key: Key[Array, ""]) -> VideoMAEForPreTraining:
        """A freshly initialised model."""
        return VideoMAEForPreTraining(self.config, dtype=self.dtype, rngs=nnx.Rngs(key))

    def find(self, directory: str | Path) -> Path:
        """The folder with the weights of another run, whose model is this task's.

        Raises:
          ValueError: the folder holds no model, or another one.
        """
        folder = find_model(directory)
        saved, config = dataclasses.asdict(VideoMAEConfig.from_pretrained(folder)), dataclasses.asdict(self.config)
        differ = [name for name in config if saved[name] != config[name] and name not in MAY_DIFFER]
        if differ:
            changes = ", ".join(f"{name} {saved[name]} (the recipe: {config[name]})" for name in differ)
            raise ValueError(f"init_from={directory} holds another model: {changes}.")
        return folder

    def load(self, directory: str | Path) -> VideoMAEForPreTraining:
        """A model with the weights of another run; errors as in `find`."""
        fields = dataclasses.asdict(self.config)
        return VideoMAEForPreTraining.from_pretrained(self.find(directory), dtype=self.dtype, **fields)

    def loss(self, model: VideoMAEForPreTraining, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss to minimise, and what is to be logged."""
        views = batch["video"].shape[1]
        keys = jax.vmap(lambda key: jax.random.split(key, (views, 2)))(self.keys(batch["sample"]))  # [B S 2]
        flip_keys, mask_keys = rearrange(keys, "B S use -> use (B S)")
        video = rearrange(batch["video"], "B S T H W C -> (B S) T H W C")
        if self.flip:
            video = random_flip(flip_keys, video)
        mask = self.masking(mask_keys)
        loss = model(video, visible_ids=mask.visible, masked_ids=mask.masked).loss
        targets = self.targets(model, video, mask)
        guess = mean_colour(targets, self.config.num_channels)
        trivial_loss = masked_loss(token_errors(guess, targets), mask, self.config.num_patches)
        return loss, {"loss": loss, "trivial_loss": trivial_loss}

    def keys(self, sample: UInt32[Array, " B"]) -> Key[Array, " B"]:
        """Each clip's own key."""
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(self.seed), sample)

    def targets(
        self, model: VideoMAEForPreTraining, video: UInt8[Array, "B T H W C"], mask: MaskIds
    ) -> Float[Array, "B M P"]:
        """What the model is to predict of each masked token."""
        return model.targets(gather(patchify(video, self.config.patch), mask.masked))
