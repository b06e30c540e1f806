"""Adam's moments, changed in place; and steps that leave an optimizer's state as it is."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool


def scale_by_adam(b1: float, b2: float, eps: float, mu_dtype: str) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam`, whose update takes `finite`: where it is False, the moments stay as they are.

    What the moments become is settled before the update is made of them. Where it is chosen afterwards, XLA's program
    for CPUs needs the old moments for the update and the new ones to keep, and copies both for it.
    """

    def update(grads, state, params=None, *, finite: Bool[Array, ""] | bool = True, **_):
        count = state.count + 1
        mu = jax.tree.map(lambda old, g: jnp.where(finite, (1 - b1) * g + b1 * old, old), state.mu, grads)
        # Not (1 - b2) g², as optax has it: XLA keeps squares that the gradient's norm needs, too, in memory.
        nu = jax.tree.map(lambda old, g: jnp.where(finite, (1 - b2) * g * g + b2 * old, old), state.nu, grads)
        unbiased_mu, unbiased_nu = (
            optax.tree.bias_correction(moment, decay, count) for moment, decay in ((mu, b1), (nu, b2))
        )
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), unbiased_mu, unbiased_nu)
        count = jnp.where(finite, count, state.count)
        return updates, optax.ScaleByAdamState(count=count, mu=optax.tree.cast(mu, mu_dtype), nu=nu)

    init = optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype).init
    return optax.GradientTransformationExtraArgs(init, update)


def when_finite(transformation: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A transformation whose update takes `finite`: where it is False, its state stays as it is."""

    def update(grads, state, params=None, *, finite: Bool[Array, ""] | bool = True, **_):
        updates, after = transformation.update(grads, state, params)
        return updates, jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)

    return optax.GradientTransformationExtraArgs(transformation.init, update)
