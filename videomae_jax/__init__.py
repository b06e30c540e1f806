"""VideoMAE in JAX: masked video pre-training and what follows from it."""

from typing import TYPE_CHECKING, Any

from videomae_jax.config import VideoMAEConfig
from videomae_jax.model.videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

if TYPE_CHECKING:
    from videomae_jax.data.processor import VideoMAEFeatureExtractor, VideoMAEImageProcessor

__all__ = [
    "VideoMAEConfig",
    "VideoMAEFeatureExtractor",
    "VideoMAEForPreTraining",
    "VideoMAEForVideoClassification",
    "VideoMAEImageProcessor",
    "VideoMAEModel",
]


def __getattr__(name: str) -> Any:
    # Models work where nothing decodes videos: PyAV and OpenCV are imported with the first processor.
    if name in ("VideoMAEFeatureExtractor", "VideoMAEImageProcessor"):
        from videomae_jax.data import processor

        return getattr(processor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
