"""Losses: of the masked tokens' pixels, and of classification's labels; fp32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from videomae_jax.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, VideoMAEConfig
from videomae_jax.model.masking import MaskIds, mask_from_ids

IGNORED_LABEL = -100  # torch's: a clip that does not count


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


def problem_type(config: VideoMAEConfig, labels: Shaped[Array, "B *num_labels"]) -> str:
    """The config's, or what the labels look like (transformers' `ForSequenceClassificationLoss`)."""
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return REGRESSION
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    return SINGLE_LABEL if integers else MULTI_LABEL


def check_labels(config: VideoMAEConfig, labels: Shaped[Array, "B *num_labels"], batch: int) -> None:
    """Raises a ValueError unless these are labels for `batch` clips; under `jit` their values are not looked at."""
    kind, shape = problem_type(config, labels), tuple(labels.shape)
    wanted = {
        SINGLE_LABEL: [(batch,)],
        MULTI_LABEL: [(batch, config.num_labels)],
        REGRESSION: [(batch,), (batch, 1)] if config.num_labels == 1 else [(batch, config.num_labels)],
    }[kind]
    if shape not in wanted:
        listed = " or ".join(str(list(shape)) for shape in wanted)
        hint = " Labels of several classes a clip are floats." if kind == SINGLE_LABEL else ""
        raise ValueError(f"labels for {kind} must have the shape {listed}, got {list(shape)}.{hint}")
    if kind != SINGLE_LABEL:
        return
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels for {kind} must be integers, got {labels.dtype}.")
    if isinstance(labels, jax.core.Tracer):
        return
    values = np.asarray(labels)
    wrong = values[(values != IGNORED_LABEL) & ((values < 0) | (values >= config.num_labels))]
    if wrong.size:
        raise ValueError(f"labels must be in [0, {config.num_labels - 1}] (num_labels - 1), got {wrong[0]}.")


def classification_loss(
    config: VideoMAEConfig, logits: Float[Array, "B num_labels"], labels: Shaped[Array, "B *num_labels"]
) -> Float[Array, ""]:
    """The mean over the clips of what the problem asks for (transformers' `ForSequenceClassificationLoss`).

    Cross entropy for one class a clip, where clips labelled -100 do not count; binary cross entropy for several;
    squared error for regression.
    """
    kind, logits = problem_type(config, labels), logits.astype(jnp.float32)
    if kind == SINGLE_LABEL:
        return cross_entropy(logits, labels)
    labels = labels.astype(jnp.float32).reshape(logits.shape)
    if kind == MULTI_LABEL:
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()
    return optax.squared_error(logits, labels).mean()


def cross_entropy(logits: Float[Array, "B num_labels"], labels: Int[Array, " B"]) -> Float[Array, ""]:
    """The mean over the clips that are not labelled -100; 0, and not torch's NaN, when all of them are."""
    counted = labels != IGNORED_LABEL
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, labels, 0))
    return jnp.where(counted, losses, 0).sum() / jnp.maximum(counted.sum(), 1)
