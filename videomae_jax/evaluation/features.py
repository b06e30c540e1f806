"""What a model makes of a clip: one vector, for probes and for finding neighbours."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt8

from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

Model = VideoMAEModel | VideoMAEForPreTraining | VideoMAEForVideoClassification


def pooled_features(
    model: Model, video: UInt8[Array, "B T H W C"] | Float[Array, "B T H W C"]
) -> Float32[Array, "B D"]:
    """One vector for each clip, of all its tokens: what a classifier sees, or else the mean of the encoder's output.

    That output comes after the encoder's final norm, where the model has one.
    """
    encoder = model if isinstance(model, VideoMAEModel) else model.videomae
    tokens = encoder(video).last_hidden_state
    if isinstance(model, VideoMAEForVideoClassification):
        return model.pool(tokens)
    return tokens.mean(axis=1, dtype=jnp.float32)
