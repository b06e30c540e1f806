"""The optimizers and their schedule as the original has them: AdamW, or SGD for probes; layer-wise rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PyTree

from videomae_jax.training.adam import scale_by_adam, when_finite
from videomae_jax.training.adapters import BLOCKS
from videomae_jax.training.downstream import DownstreamOptim, DownstreamRecipe
from videomae_jax.training.mesh import path_name
from videomae_jax.training.recipe import Optim, Recipe

EMBEDDINGS = "videomae/embeddings/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """The learning rate of each step: linear from 0 to the peak, then half a cosine down to `min_lr`.

    Both ends are reached: the last warm-up step has the peak, as `numpy.linspace` gives it (V1 utils.py:385-406).
    """

    peak_lr: float
    min_lr: float
    warmup_steps: int
    total_steps: int

    @classmethod
    def of_recipe(cls, recipe: Recipe | DownstreamRecipe, num_videos: int) -> "WarmupCosine":
        """Rates for the recipe's batch (V1 run_mae_pretraining.py:193-195) and steps for its epochs.

        Views do not count: they multiply the clips of a step and leave the learning rate alone.

        Raises:
          ValueError: a run of warm-up alone.
        """
        optim, batch_size = recipe.optim, recipe.data.batch_size
        total_steps = recipe.total_steps or round(recipe.total_epochs * num_videos / batch_size)
        warmup_steps = round(total_steps * optim.warmup_epochs / recipe.total_epochs)
        if total_steps <= warmup_steps:
            raise ValueError(
                f"The run has {total_steps} steps, {warmup_steps} of them warm-up: raise total_epochs="
                f"{recipe.total_epochs}, or lower optim.warmup_epochs={optim.warmup_epochs} or "
                f"data.batch_size={batch_size}."
            )
        return cls(
            peak_lr=optim.base_lr * batch_size / 256,
            min_lr=optim.min_lr * batch_size / 256,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
        )

    def __call__(self, step):
        warmup = self.peak_lr * step / max(self.warmup_steps - 1, 1)
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        cosine = self.min_lr + 0.5 * (self.peak_lr - self.min_lr) * (1 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < self.warmup_steps, warmup, cosine)


def decays(params: PyTree) -> PyTree:
    """True where weight decay applies: the matrices; not biases, norms, single tokens, adapters
    (V1 optim_factory.py:49-88).

    By name, since in a stack every parameter has one more axis than the original's.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_scales(params: PyTree, layer_decay: float) -> PyTree[Float[np.ndarray, "..."]]:
    """Each parameter's factor of the learning rate, broadcastable to it: `layer_decay` ** number of layers above.

    Layers are the patch embedding, each block, and the head with every norm outside the blocks, which has the full
    rate (V1 optim_factory.py:24-46). The factors of a stack are [L 1 ... 1].

    Args:
      params: of a model whose encoder is `videomae`. Frozen parameters may be missing (None); where all blocks are,
        the patch embedding is the layer below the head.
      layer_decay: above 0, at most 1.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    blocks = [leaf for path, leaf in leaves if path_name(path).startswith(f"{BLOCKS}/")]
    depth = blocks[0].shape[0] if blocks else 0

    def scale(path, leaf):
        if path_name(path).startswith(f"{BLOCKS}/"):
            above = np.arange(depth, 0, -1).reshape(-1, *[1] * (leaf.ndim - 1))
        else:
            above = depth + 1 if path_name(path).startswith(EMBEDDINGS) else 0
        return np.float32(layer_decay**above)

    return jax.tree_util.tree_map_with_path(scale, params)


def adamw(schedule: optax.Schedule, optim: Optim) -> optax.GradientTransformationExtraArgs:
    """AdamW; the decay is multiplied by the learning rate, as in PyTorch. Clips the gradient's norm first, if asked.

    The second moments stay in fp32: in bf16 most steps would be too small to change them. With `finite=False` an update
    leaves the moments as they are; the learning rate is that of the step, made or not.
    """
    update = optax.chain(
        scale_by_adam(optim.b1, optim.b2, eps=1e-8, mu_dtype=optim.mu_dtype),
        optax.add_decayed_weights(optim.weight_decay, mask=decays),
        optax.scale_by_learning_rate(schedule),
    )
    return _after_clipping(optim.clip_norm, update)


def sgd(schedule: optax.Schedule, optim: Optim) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum `b1`; the decay is part of the gradient, as in PyTorch. Clips and skips as `adamw` does."""
    update = optax.chain(
        optax.add_decayed_weights(optim.weight_decay, mask=decays),
        when_finite(optax.trace(optim.b1, accumulator_dtype=optim.mu_dtype)),
        optax.scale_by_learning_rate(schedule),
    )
    return _after_clipping(optim.clip_norm, update)


def _after_clipping(
    norm: float | None, update: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    return update if norm is None else optax.chain(optax.clip_by_global_norm(norm), update)


def finetuning_optimizer(schedule: optax.Schedule, optim: DownstreamOptim) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a downstream recipe, with a learning rate that falls from layer to layer, see `layer_scales`.

    Args:
      schedule: the head's learning rate at each step.
      optim: the recipe's section: what `adamw` takes, `optimizer` ("adamw" or "sgd", for which `b2` means nothing) and
        `layer_decay` (1: one rate for all).

    Raises:
      ValueError: another optimizer, AdamW without `b2`, or a layer decay out of its range.
    """
    if optim.optimizer not in ("adamw", "sgd"):
        raise ValueError(f"optim.optimizer must be 'adamw' or 'sgd', got {optim.optimizer!r}.")
    if optim.optimizer == "adamw" and optim.b2 is None:
        raise ValueError("optim.b2 is None, and AdamW needs one: the original's is 0.999.")
    if not 0 < optim.layer_decay <= 1:
        raise ValueError(f"optim.layer_decay must be above 0 and at most 1 (no decay), got {optim.layer_decay}.")
    update = adamw(schedule, optim) if optim.optimizer == "adamw" else sgd(schedule, optim)
    if optim.layer_decay == 1:
        return update
    # After everything else: torch's groups differ in their learning rate, which multiplies weight decay too.
    return optax.chain(update, _scale_by_layer(optim.layer_decay))


def _scale_by_layer(layer_decay: float) -> optax.GradientTransformation:
    def scale(updates, params):
        return jax.tree.map(jnp.multiply, updates, layer_scales(updates, layer_decay))

    return optax.stateless(scale)
