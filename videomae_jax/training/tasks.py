"""What is trained: a model, and its loss on a batch."""

import dataclasses
from pathlib import Path
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Key, UInt8, UInt32

from videomae_jax.config import Remat, VideoMAEConfig
from videomae_jax.model.flops import TRAINING, pretraining_flops
from videomae_jax.model.losses import masked_loss, token_errors
from videomae_jax.model.masking import MaskIds, Masking
from videomae_jax.model.patches import gather, patchify
from videomae_jax.model.videomae import VideoMAEForPreTraining
from videomae_jax.training.augment import random_flip
from videomae_jax.training.init_from import open_checkpoint
from videomae_jax.training.mesh import compute_dtype
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.trivial import mean_colour
from videomae_jax.weights.checkpoint import Checkpoint

# What a recipe may change of the model that it goes on from: the target; the eps, where transformers' differ from the
# original's; what plays no part in pre-training. Clips may differ where the positions are resampled.
MAY_DIFFER = (
    "norm_pix_loss",
    "layer_norm_eps",
    "decoder_norm_eps",
    "head_norm_eps",
    "initializer_range",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "head_dropout_prob",
    "attentive_pooling",
    "id2label",
    "problem_type",
    "image_size",
    "num_frames",
    "position_grid",
)

Batch = dict[str, Array]  # `video` uint8 [B S T H W C], `sample` uint32 [B]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Masked autoencoding. Every random choice for a clip comes from (seed, its sample index, its view)."""

    logged: ClassVar[tuple[str, ...]] = ("loss", "trivial_loss")
    inputs: ClassVar[tuple[str, ...]] = ("video", "sample")
    adapter_rank: ClassVar[None] = None

    config: VideoMAEConfig
    masking: Masking
    flip: bool
    seed: int
    dtype: jnp.dtype
    remat: Remat = "dots"

    @property
    def clip_flops(self) -> int:
        """Model FLOPs of a step for each of its clips."""
        return TRAINING * pretraining_flops(self.config, self.masking.num_visible, self.masking.num_decoded)

    def create(self, key: Key[Array, ""]) -> VideoMAEForPreTraining:
        """A freshly initialised model."""
        return VideoMAEForPreTraining(self.config, dtype=self.dtype, remat=self.remat, rngs=nnx.Rngs(key))

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> Self:
        """The task of a recipe.

        Raises:
          ValueError: sizes that do not fit together.
        """
        config = VideoMAEConfig.from_size(**recipe.model)
        masking = Masking(**dataclasses.asdict(recipe.mask), grid=config.grid)
        if config.num_channels != 3:
            raise ValueError(f"Videos are read in RGB: model.num_channels must be 3, got {config.num_channels}.")
        return cls(config, masking, recipe.data.flip, recipe.seed, compute_dtype(recipe.compute_dtype), recipe.remat)

    def find(self, name: str | Path) -> Checkpoint:
        """A checkpoint of this task's model, opened.

        Args:
          name: another run's folder, or any checkpoint that `from_pretrained` reads; without a decoder, ours is new.

        Raises:
          ValueError: no checkpoint is there, or another model's.
        """
        checkpoint = open_checkpoint(name)
        saved, config = checkpoint.config, self.config
        changes = [
            f"{field.name} {getattr(saved, field.name)} (the recipe: {getattr(config, field.name)})"
            for field in dataclasses.fields(config)
            if field.name not in MAY_DIFFER
            and getattr(saved, field.name) != getattr(config, field.name)
            and (checkpoint.has("decoder") or not field.name.startswith("decoder_"))
        ]
        if changes:
            raise ValueError(
                f"init_from={name} holds another model: {', '.join(changes)}. The recipe's are config.model's."
            )
        if saved.native_grid != config.native_grid:
            raise ValueError(
                f"init_from={name} was trained on a grid of {saved.native_grid} tokens, the recipe has "
                f"{config.native_grid}. To resample its positions: --config.model.position_grid='{saved.native_grid}'."
            )
        return dataclasses.replace(checkpoint, config=config)

    def load(self, name: str | Path) -> VideoMAEForPreTraining:
        """A model with a checkpoint's weights; errors as in `find`."""
        return VideoMAEForPreTraining.from_checkpoint(self.find(name), dtype=self.dtype, remat=self.remat)

    def trains(self, path: str, shape: tuple[int, ...]) -> Bool[np.ndarray, ""]:
        """Whether a parameter is trained: all are."""
        return np.array(True)

    def prepare(self, batch: Batch) -> Batch:
        """Nothing concerns a batch as a whole."""
        return batch

    def loss(self, model: VideoMAEForPreTraining, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss to minimise, and what is to be logged."""
        views = batch["video"].shape[1]
        keys = jax.vmap(lambda key: jax.random.split(key, (views, 2)))(clip_keys(self.seed, batch["sample"]))  # [B S 2]
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

    def check_batch(self, batch: Batch) -> None:
        """Labels play no part."""

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """What a line of the log says, from the means of what is logged."""
        relative = means["loss"] / means["trivial_loss"]
        others = {name: mean for name, mean in means.items() if name not in self.logged}
        return {"loss": means["loss"], "relative_loss": relative, **others}

    def batch_shapes(self, batch_size: int, views: int) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch."""
        config = self.config
        return {
            "video": jax.ShapeDtypeStruct((batch_size, views, *config.clip_size, config.num_channels), jnp.uint8),
            "sample": jax.ShapeDtypeStruct((batch_size,), jnp.uint32),
        }

    def targets(
        self, model: VideoMAEForPreTraining, video: UInt8[Array, "B T H W C"], mask: MaskIds
    ) -> Float[Array, "B M P"]:
        """What the model is to predict of each masked token."""
        return model.targets(gather(patchify(video, self.config.patch), mask.masked))


def clip_keys(seed: int, sample: UInt32[Array, " B"]) -> Key[Array, " B"]:
    """The key of each clip, by its global sample index."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), sample)
