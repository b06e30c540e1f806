"""What is read out of a model: the scores of classes; one vector a clip, for probes and for finding neighbours."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt8

from videomae_jax.config import MULTI_LABEL, REGRESSION
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

Clips = UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"]
Model = VideoMAEModel | VideoMAEForPreTraining | VideoMAEForVideoClassification


def class_scores(model: VideoMAEForVideoClassification, video: Clips) -> Float[Array, "B K"]:
    """Probabilities of the classes, or regressed numbers, fp32.

    Their mean over views is the published one: of probabilities, not of logits (V1 engine_for_finetuning.py:233-282).
    """
    logits = model(video).logits.astype(jnp.float32)
    if model.config.problem_type == REGRESSION:
        return logits
    return jax.nn.sigmoid(logits) if model.config.problem_type == MULTI_LABEL else jax.nn.softmax(logits)


def pooled_features(model: Model, video: Clips) -> Float32[Array, "B D"]:
    """One vector for each clip, of all its tokens: what a classifier sees, or else the mean of the encoder's output.

    That output comes after the encoder's final norm, where the model has one.
    """
    encoder = model if isinstance(model, VideoMAEModel) else model.videomae
    tokens = encoder(video).last_hidden_state
    if isinstance(model, VideoMAEForVideoClassification):
        return model.pool(tokens)
    return tokens.mean(axis=1, dtype=jnp.float32)
