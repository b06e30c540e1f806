"""The task of eval.py: labels of videos from a pre-trained encoder, whole, frozen or through adapters."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Key, UInt32

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.losses import classification_loss
from videomae_jax.model.patches import normalize
from videomae_jax.model.videomae import VideoMAEForVideoClassification
from videomae_jax.training.adapters import BLOCKS, LEAVES
from videomae_jax.training.augment import random_erase, random_flip
from videomae_jax.training.mixing import Mixing, soft_targets
from videomae_jax.training.tasks import Batch
from videomae_jax.weights.arrays import part_of, rule_of
from videomae_jax.weights.checkpoint import Checkpoint

# What a size says of the encoder; a checkpoint of another one is refused.
SIZE_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# What a checkpoint's encoder was trained with, and no recipe may change.
TRAINED_FIELDS = ("patch_size", "tubelet_size", "num_channels", "position_embedding_type", "qkv_bias", "hidden_act")


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """Classification or regression. Every random choice for a clip comes from (seed, its sample index, its view)."""

    logged: ClassVar[tuple[str, ...]] = ("loss",)
    inputs: ClassVar[tuple[str, ...]] = ("video", "label", "sample")

    config: VideoMAEConfig
    flip: bool
    erasing: float  # share of clips that lose a box
    mixing: Mixing
    label_smoothing: float
    frozen: str | None  # parameters with a match of this expression in their path stay as they are
    adapter_rank: int | None
    seed: int
    dtype: jnp.dtype

    def create(self, key: Key[Array, ""]) -> VideoMAEForVideoClassification:
        """A freshly initialised model."""
        return VideoMAEForVideoClassification(self.config, dtype=self.dtype, rngs=nnx.Rngs(key))

    def load(self, checkpoint: Checkpoint) -> VideoMAEForVideoClassification:
        """A model with a checkpoint's encoder, and its classifier if that is of the same classes.

        Raises:
          ValueError: weights that do not fit.
        """
        own_classes = checkpoint.config.id2label == self.config.id2label
        arrays = checkpoint.arrays
        if checkpoint.has("classifier") and not own_classes:
            print(f"{'note':9} the classifier of {checkpoint.file} is of other classes; a new one is trained")
            arrays = {name: array for name, array in arrays.items() if not _is_classifier(name, checkpoint)}
        with warnings.catch_warnings():
            # What is new and what is not used is the point here: a classifier for a decoder.
            warnings.simplefilter("ignore")
            return VideoMAEForVideoClassification.from_checkpoint(
                dataclasses.replace(checkpoint, arrays=arrays, config=self.config),
                dtype=self.dtype,
                rngs=nnx.Rngs(self.seed),
                pools_as_told=True,
            )

    def trains(self, path: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
        """Whether a parameter is trained; of one of the encoder's blocks, [L], whether it is in each of them.

        Blocks are numbered in the paths that are compared: `videomae/encoder/layer/0/attention/qkv/kernel`.
        """
        if self.adapter_rank is not None and path.startswith("videomae/"):
            return np.array(path.endswith(LEAVES))
        names = [path]
        if path.startswith(f"{BLOCKS}/"):
            names = [path.replace(BLOCKS, f"{BLOCKS}/{block}", 1) for block in range(shape[0])]
        trained = [self.frozen is None or re.search(self.frozen, name) is None for name in names]
        return np.array(trained if path.startswith(f"{BLOCKS}/") else trained[0])

    def prepare(self, batch: Batch) -> Batch:
        """Augments a whole batch: `video` uint8 [B S ...] and `label` become `video` [N ...], `target` and `key`."""
        views = batch["video"].shape[1]
        keys = jax.vmap(lambda key: jax.random.split(key, (views, 3)))(self.keys(batch["sample"]))  # [B S 3]
        flip_keys, erase_keys, model_keys = rearrange(keys, "B S use -> use (B S)")
        video = rearrange(batch["video"], "B S T H W C -> (B S) T H W C")
        target = self._targets(jnp.repeat(batch["label"], views, axis=0))
        if self.flip:
            video = random_flip(flip_keys, video)
        if self.erasing or self.mixing.mixes:
            video = normalize(video, self.config.pixel_mean, self.config.pixel_std)
            if self.erasing:
                video = random_erase(erase_keys, video, self.erasing)
            if self.mixing.mixes:
                # One draw for the whole batch, from its first sample; its views have keys 0, 1, ... of the same one.
                key = jax.random.fold_in(self.keys(batch["sample"][:1])[0], views)
                video, target = self.mixing(key, video, target)
            video = video.astype(self.dtype)
        return {"video": video, "target": target, "key": model_keys}

    def loss(self, model: VideoMAEForVideoClassification, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss to minimise on a prepared batch, and what is to be logged."""
        logits = model(batch["video"], key=batch["key"]).logits
        if self.config.problem_type == "single_label_classification":
            loss = optax.softmax_cross_entropy(logits, batch["target"]).mean()
        else:
            loss = classification_loss(self.config, logits, batch["target"])
        return loss, {"loss": loss}

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """What a line of the log says, from the means of what is logged."""
        return means

    def keys(self, sample: UInt32[Array, " B"]) -> Key[Array, " B"]:
        """Each clip's own key."""
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(self.seed), sample)

    def batch_shapes(self, batch_size: int, views: int) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch before it is prepared."""
        config = self.config
        single = config.problem_type == "single_label_classification"
        label = ((), jnp.int32) if single else ((config.num_labels,), jnp.float32)
        return {
            "video": jax.ShapeDtypeStruct((batch_size, views, *config.clip_size, config.num_channels), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size, *label[0]), label[1]),
            "sample": jax.ShapeDtypeStruct((batch_size,), jnp.uint32),
        }

    def _targets(self, label: Array) -> Float[Array, "N K"]:
        if self.config.problem_type != "single_label_classification":
            return label
        return soft_targets(label, self.config.num_labels, self.label_smoothing)


def _is_classifier(name: str, checkpoint: Checkpoint) -> bool:
    rule = rule_of(name, checkpoint.dialect)
    return rule is not None and part_of(rule.ours) == "classifier"


def find_encoder(name: str | Path, model: dict[str, Any]) -> Checkpoint:
    """Opens the checkpoint whose encoder a recipe begins with.

    Args:
      name: a run's folder, or any checkpoint that `from_pretrained` reads.
      model: the recipe's `size`, and fields of the config, None for the checkpoint's.

    Raises:
      ValueError: none is there, or its encoder is of another size than the recipe's.
    """
    try:
        checkpoint = Checkpoint.open(name)
    except ValueError as error:
        raise ValueError(f"init_from={name}: {error}") from None
    if checkpoint.config.num_channels != 3:
        raise ValueError(f"init_from={name} has {checkpoint.config.num_channels} channels; videos are read in RGB, 3.")
    wanted = VideoMAEConfig.from_size(**given(model))
    told = (*SIZE_FIELDS, *(field for field in TRAINED_FIELDS if field in given(model)))
    changes = [
        f"{field} {getattr(checkpoint.config, field)} (the recipe: {getattr(wanted, field)})"
        for field in told
        if getattr(checkpoint.config, field) != getattr(wanted, field)
    ]
    if changes:
        raise ValueError(
            f"init_from={name} holds another model than config.model ({model['size']}): {', '.join(changes)}. "
            "Most configs take its size as an option: --config FILE.py:size=small."
        )
    return checkpoint


def classifier_config(checkpoint: Checkpoint | None, model: dict[str, Any], **fields: Any) -> VideoMAEConfig:
    """The model to train: a checkpoint's encoder, or a new one of a size, with the recipe's changes.

    Args:
      checkpoint: None for a new encoder.
      model: as in `find_encoder`.
      **fields: of the config: classes, how to pool.
    """
    changes = given(model) | fields
    if checkpoint is None:
        return VideoMAEConfig.from_size(**changes)
    del changes["size"]
    return checkpoint.config.adapt(**changes)


def given(model: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says of its model."""
    return {field: value for field, value in model.items() if value is not None}
