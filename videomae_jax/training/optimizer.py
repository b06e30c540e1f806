"""AdamW and its schedule as the original has them."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree


def warmup_cosine(*, peak_lr: float, min_lr: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """The learning rate of each step: linear from 0 to the peak, then half a cosine down to `min_lr`.

    Both ends are reached: the last warm-up step has the peak, as `numpy.linspace` gives it (V1 utils.py:385-406).
    """

    def schedule(step):
        warmup = peak_lr * step / max(warmup_steps - 1, 1)
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        cosine = min_lr + 0.5 * (peak_lr - min_lr) * (1 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < warmup_steps, warmup, cosine)

    return schedule


def decays(params: PyTree) -> PyTree:
    """True where weight decay applies: the matrices; not biases, norms and the mask token (V1 optim_factory.py:49-88).

    By name, since in a stack every parameter has one more axis than the original's.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def adamw(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip_norm: float | None
) -> optax.GradientTransformation:
    """AdamW; the decay is multiplied by the learning rate, as in PyTorch. Clips the gradient's norm first, if asked."""
    update = optax.adamw(schedule, b1=b1, b2=b2, eps=1e-8, weight_decay=weight_decay, mask=decays)
    return update if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), update)
