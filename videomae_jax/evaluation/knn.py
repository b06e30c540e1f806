"""Classes by the nearest neighbours among labelled features: how good features are, with nothing trained on them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.labels import NO_LABEL

CHUNK = 256  # features at a time: what takes memory is their similarity to the whole bank


def vote(
    bank: Predictions, videos: Predictions, num_classes: int, *, neighbours: int, temperature: float
) -> Predictions:
    """Predictions of the classes of videos by those of the bank; the `scores` of both are features.

    Those of the bank that cannot be read, or have no label, do not vote; where fewer than `neighbours` are left, all of
    them do. The rest is as in `knn_scores`.
    """
    voters = int((bank.readable & bank.labelled).sum())
    scores = np.zeros((len(videos.paths), num_classes), np.float32)
    scores[videos.readable] = knn_scores(
        bank.scores[bank.readable],
        bank.labels[bank.readable],
        videos.scores[videos.readable],
        num_classes,
        neighbours=min(neighbours, max(voters, 1)),
        temperature=temperature,
    )
    return dataclasses.replace(videos, scores=scores)


def knn_scores(
    train_features: Float[np.ndarray, "bank D"],
    train_labels: Int[np.ndarray, "bank"],
    features: Float[np.ndarray, "V D"],
    num_classes: int,
    *,
    neighbours: int,
    temperature: float,
) -> Float32[np.ndarray, "V num_classes"]:
    """How much of the vote each class gets from a feature's nearest neighbours, as in DINO (eval_knn.py).

    A neighbour votes for its class with exp(cosine similarity / temperature). Of neighbours that are equally near, the
    first ones in the bank vote.

    Args:
      train_features: the bank; those without a label (-1) do not vote.
      train_labels: their classes, 0 to num_classes - 1, or -1.
      features: what is to be classified.
      num_classes: of the labels.
      neighbours: how many vote; DINO's 20.
      temperature: DINO's 0.07; the lower, the more the nearest ones count.

    Returns:
      Shares in [0, 1]; each row sums to 1.

    Raises:
      ValueError: arrays that do not fit together, labels out of range, no labelled feature or fewer than `neighbours`,
        a feature without a direction (zero, NaN or infinite), or numbers out of range.
    """
    train_features, train_labels, features = (np.asarray(x) for x in (train_features, train_labels, features))
    if train_features.ndim != 2 or features.shape[1:] != train_features.shape[1:]:
        raise ValueError(
            f"train_features and features must be [bank D] and [V D], got {list(train_features.shape)} and "
            f"{list(features.shape)}."
        )
    if train_labels.shape != train_features.shape[:1]:
        raise ValueError(
            f"train_labels must have one label for each of {len(train_features)} train_features, got the shape "
            f"{list(train_labels.shape)}."
        )
    wrong = train_labels[(train_labels != NO_LABEL) & ((train_labels < 0) | (train_labels >= num_classes))]
    if wrong.size:
        raise ValueError(
            f"train_labels must be in [0, {num_classes - 1}] (num_classes - 1), or {NO_LABEL} for none, got {wrong[0]}."
        )
    labelled = np.flatnonzero(train_labels != NO_LABEL)
    if not labelled.size:
        raise ValueError(
            f"none of the {len(train_labels)} train_features has a label, and neighbours need one to vote."
        )
    if not 1 <= neighbours <= labelled.size:
        raise ValueError(
            f"neighbours must be from 1 to {labelled.size}, the labelled train_features, got {neighbours}."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    bank = _unit("train_features", train_features)[labelled]
    return np.asarray(
        _shares(bank, train_labels[labelled], _unit("features", features), temperature, num_classes, neighbours)
    )


def _unit(name: str, features: Float[np.ndarray, "V D"]) -> Float32[np.ndarray, "V D"]:
    """Features of length 1."""
    features = features.astype(np.float32)
    lengths = np.linalg.norm(features, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if wrong.size:
        raise ValueError(f"{name} must have a direction, but the length of {name}[{wrong[0]}] is {lengths[wrong[0]]}.")
    return features / lengths[:, None]


@functools.partial(jax.jit, static_argnums=(4, 5))
def _shares(
    bank: Float[Array, "bank D"],
    labels: Int[Array, " bank"],
    features: Float[Array, "V D"],
    temperature: float,
    num_classes: int,
    neighbours: int,
) -> Float[Array, "V num_classes"]:
    def one(feature):
        # The accelerators' default rounds to fewer digits than the temperature leaves unseen.
        similarities, nearest = jax.lax.top_k(jnp.matmul(bank, feature, precision="highest"), neighbours)
        votes = jax.nn.softmax(similarities / temperature)  # the same shares as exp's, without overflow
        return (votes[:, None] * jax.nn.one_hot(labels[nearest], num_classes)).sum(axis=0)

    return jax.lax.map(one, features, batch_size=CHUNK)
