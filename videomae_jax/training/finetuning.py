"""The task of eval.py: labels of videos from a pre-trained encoder, whole, frozen or through adapters."""

import dataclasses
import re
import warnings
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Key, PyTree

from videomae_jax.config import SINGLE_LABEL, Remat, VideoMAEConfig
from videomae_jax.labels import NO_LABEL, is_integer
from videomae_jax.model.flops import TRAINING, classification_flops
from videomae_jax.model.losses import classification_loss
from videomae_jax.model.patches import normalize
from videomae_jax.model.videomae import VideoMAEForVideoClassification
from videomae_jax.training.adapters import BLOCKS, LEAVES
from videomae_jax.training.augment import random_erase, random_flip
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.mesh import compute_dtype, path_name
from videomae_jax.training.mixing import Mixing, soft_targets
from videomae_jax.training.progress import say
from videomae_jax.training.tasks import Batch, clip_keys
from videomae_jax.weights.arrays import part_of, rule_of
from videomae_jax.weights.checkpoint import Checkpoint

# Parameters that stay as they are in a probe.
FROZEN = {"linear": r"^(?!classifier/)", "attentive": r"^(?!(pooler|classifier)/)"}
HEAD = ("fc_norm", "pooler", "classifier")


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
    remat: Remat = "dots"

    @property
    def clip_flops(self) -> int | None:
        """Model FLOPs of a step for each of its clips; None where a part of the encoder is frozen or adapted."""
        forwards = classification_flops(self.config, self.config.num_patches)
        if self.frozen in FROZEN.values():
            return forwards
        return TRAINING * forwards if self.frozen is None and self.adapter_rank is None else None

    def create(self, key: Key[Array, ""]) -> VideoMAEForVideoClassification:
        """A freshly initialised model."""
        return VideoMAEForVideoClassification(self.config, dtype=self.dtype, remat=self.remat, rngs=nnx.Rngs(key))

    @classmethod
    def of_recipe(cls, recipe: DownstreamRecipe, config: VideoMAEConfig) -> Self:
        """The task of a recipe.

        Raises:
          ValueError: numbers out of their range.
        """
        augment, optim = recipe.augment, recipe.optim
        return cls(
            config,
            flip=augment.flip,
            erasing=augment.erasing,
            mixing=Mixing(augment.mixup, augment.cutmix, augment.mix_probability, augment.mix_switch),
            label_smoothing=augment.label_smoothing,
            frozen=FROZEN.get(recipe.mode, optim.freeze),
            adapter_rank=optim.adapter_rank,
            seed=recipe.seed,
            dtype=compute_dtype(recipe.compute_dtype),
            remat=recipe.remat,
        )

    def load(self, checkpoint: Checkpoint) -> VideoMAEForVideoClassification:
        """A model with a checkpoint's encoder, and as much of its head as fits.

        Of the classifier stays what it knows of the classes, where it knows them all by name (V2 fine-tunes on
        Kinetics-400 from the classifier of Kinetics-710 so); what pools stays where it is of the same kind. A probe
        always has a new head: it is to tell what the encoder knows.

        Raises:
          ValueError: weights that do not fit.
        """
        new = self._new_parts(checkpoint.config)
        if checkpoint.has("classifier") and "classifier" in new:
            say("note", f"the classifier of {checkpoint.file} does not fit or is not wanted: a new one is trained")
        parts = {name: _part_of(name, checkpoint) for name in checkpoint.arrays}
        arrays = {name: array for name, array in checkpoint.arrays.items() if parts[name] not in new}
        if "classifier" not in new:
            # Every dialect has torch's order: classes first.
            rows = self._known_classes(checkpoint.config)
            arrays |= {name: array[rows] for name, array in arrays.items() if parts[name] == "classifier"}
        with warnings.catch_warnings():
            # What is new and what is not used is the point here: a classifier for a decoder.
            warnings.simplefilter("ignore")
            return VideoMAEForVideoClassification.from_checkpoint(
                dataclasses.replace(checkpoint, arrays=arrays, config=self.config),
                dtype=self.dtype,
                remat=self.remat,
                rngs=nnx.Rngs(self.seed),
                pools_as_told=True,
            )

    def _new_parts(self, saved: VideoMAEConfig) -> tuple[str, ...]:
        """The parts of the head that are drawn anew."""
        kinds = ("use_mean_pooling", "attentive_pooling")
        if self.frozen in FROZEN.values() or any(getattr(saved, kind) != getattr(self.config, kind) for kind in kinds):
            return HEAD
        return ("classifier",) if self._known_classes(saved) is None else ()

    def _known_classes(self, saved: VideoMAEConfig) -> list[int] | None:
        """The number of each class in a checkpoint; None where not all are there.

        Classes that are numbers themselves may be others than those of another data set.
        """
        if saved.id2label == self.config.id2label:
            return list(saved.id2label)
        names = self.config.id2label.values()
        if all(map(is_integer, names)) or not saved.label2id.keys() >= set(names):
            return None
        return [saved.label2id[name] for name in names]

    def check_frozen(self, params: PyTree) -> None:
        """Raises a ValueError where the expression of what is frozen leaves nothing to train, or means nothing."""
        trained = [
            self.trains(path_name(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        ]
        if self.frozen is not None and all(layers.all() for layers in trained):
            raise ValueError(
                f"config.optim.freeze={self.frozen!r} matches no parameter. Their paths are like "
                f"videomae/embeddings/projection/kernel and {BLOCKS}/0/attention/qkv/kernel."
            )
        if not any(layers.any() for layers in trained):
            raise ValueError(f"config.optim.freeze={self.frozen!r} leaves nothing to train.")

    def check_batch(self, batch: Batch) -> None:
        """Raises a ValueError for a video without a label, where that is known only when it is opened."""
        if self.config.problem_type != SINGLE_LABEL:
            return
        without = np.flatnonzero(batch["label"] == NO_LABEL)
        if without.size:
            raise ValueError(
                f"config.data.path: training videos have no label, number {without[0]} of the batch that begins with "
                f"sample {batch['sample'][0]} for one; leave those without out."
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
        """Augments a whole batch: `video` uint8 [B S ...] and `label` become `video` [N ...], `target` and `key`.

        Before it is accumulated in parts, so that clips mix across these.
        """
        views = batch["video"].shape[1]
        keys = jax.vmap(lambda key: jax.random.split(key, (views, 3)))(clip_keys(self.seed, batch["sample"]))  # [B S 3]
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
                # One draw for the whole batch, from its first sample, whose views have the first 3 S of its keys.
                key = jax.random.fold_in(clip_keys(self.seed, batch["sample"][:1])[0], 3 * views)
                video, target = self.mixing(key, video, target)
            video = video.astype(self.dtype)
        return {"video": video, "target": target, "key": model_keys}

    def loss(self, model: VideoMAEForVideoClassification, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss to minimise on a prepared batch, and what is to be logged."""
        logits = model(batch["video"], key=batch["key"]).logits
        if self.config.problem_type == SINGLE_LABEL:
            loss = optax.softmax_cross_entropy(logits, batch["target"]).mean()
        else:
            loss = classification_loss(self.config, logits, batch["target"])
        return loss, {"loss": loss}

    def summarise(self, means: dict[str, float]) -> dict[str, float]:
        """What a line of the log says, from the means of what is logged."""
        return means

    def batch_shapes(self, batch_size: int, views: int) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch before it is prepared."""
        config = self.config
        single = config.problem_type == SINGLE_LABEL
        label = ((), jnp.int32) if single else ((config.num_labels,), jnp.float32)
        return {
            "video": jax.ShapeDtypeStruct((batch_size, views, *config.clip_size, config.num_channels), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size, *label[0]), label[1]),
            "sample": jax.ShapeDtypeStruct((batch_size,), jnp.uint32),
        }

    def _targets(self, label: Array) -> Float[Array, "N K"]:
        if self.config.problem_type != SINGLE_LABEL:
            return label
        return soft_targets(label, self.config.num_labels, self.label_smoothing)


def _part_of(name: str, checkpoint: Checkpoint) -> str | None:
    rule = rule_of(name, checkpoint.dialect)
    return None if rule is None else part_of(rule.ours)
