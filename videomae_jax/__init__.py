"""VideoMAE in JAX: masked video pre-training and what follows from it."""

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEModel

__all__ = ["VideoMAEConfig", "VideoMAEForPreTraining", "VideoMAEModel"]
