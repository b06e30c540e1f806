"""VideoMAE in JAX: masked video pre-training and what follows from it."""

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.processor import VideoMAEFeatureExtractor, VideoMAEImageProcessor
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

__all__ = [
    "VideoMAEConfig",
    "VideoMAEFeatureExtractor",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEImageProcessor",
    "VideoMAEModel",
]
