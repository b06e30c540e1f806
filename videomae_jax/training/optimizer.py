"""AdamW and its schedule as the original has them."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from videomae_jax.training.recipe import Optim, Recipe


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
    def of_recipe(cls, recipe: Recipe, num_videos: int) -> "WarmupCosine":
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
    """True where weight decay applies: the matrices; not biases, norms and the mask token (V1 optim_factory.py:49-88).

    By name, since in a stack every parameter has one more axis than the original's.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def adamw(schedule: optax.Schedule, optim: Optim) -> optax.GradientTransformation:
    """AdamW; the decay is multiplied by the learning rate, as in PyTorch. Clips the gradient's norm first, if asked."""
    update = optax.adamw(schedule, b1=optim.b1, b2=optim.b2, eps=1e-8, weight_decay=optim.weight_decay, mask=decays)
    return update if optim.clip_norm is None else optax.chain(optax.clip_by_global_norm(optim.clip_norm), update)
