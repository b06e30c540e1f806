"""VideoMAE in JAX: masked video pre-training and what follows from it."""

import importlib
from typing import TYPE_CHECKING, Any

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

if TYPE_CHECKING:
    from videomae_jax.data.processor import VideoMAEFeatureExtractor, VideoMAEImageProcessor
    from videomae_jax.inference.attention_map import attention_map
    from videomae_jax.inference.classify import classify, classify_windows
    from videomae_jax.inference.features import extract_features
    from videomae_jax.inference.reconstruct import reconstruct

__all__ = [
    "VideoMAEConfig",
    "VideoMAEFeatureExtractor",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEImageProcessor",
    "VideoMAEModel",
    "attention_map",
    "classify",
    "classify_windows",
    "extract_features",
    "reconstruct",
]

# Models work where nothing decodes videos: PyAV and OpenCV are imported with the first of these.
_OF_VIDEOS = {
    "VideoMAEFeatureExtractor": "data.processor",
    "VideoMAEImageProcessor": "data.processor",
    "attention_map": "inference.attention_map",
    "classify": "inference.classify",
    "classify_windows": "inference.classify",
    "extract_features": "inference.features",
    "reconstruct": "inference.reconstruct",
}


def __getattr__(name: str) -> Any:
    if name not in _OF_VIDEOS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_OF_VIDEOS[name]}"), name)
