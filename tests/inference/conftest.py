import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae_jax.data.video import write_video
from videomae_jax.model.readout import pooled_features

STRIDE, FPS = 2, 10


@pytest.fixture(scope="session")
def brightness():
    """A classifier that tells dark videos from bright ones, and nothing else."""
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        id2label={0: "dark", 1: "bright"},
        use_mean_pooling=True,
    )
    model = VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))
    clips = np.stack([np.full((4, 32, 32, 3), value, np.uint8) for value in (20, 235)])
    dark, bright = pooled_features(model, clips)
    towards = (bright - dark) / jnp.sum((bright - dark) ** 2)
    model.classifier.kernel[...] = jnp.stack([-20 * towards, 20 * towards], axis=1)
    middle = 20 * jnp.dot((dark + bright) / 2, towards)
    model.classifier.bias[...] = jnp.stack([middle, -middle])
    return model


@pytest.fixture(scope="session")
def checkpoint(brightness, tmp_path_factory):
    folder = tmp_path_factory.mktemp("brightness")
    brightness.save_pretrained(folder)
    VideoMAEImageProcessor.for_model(brightness.config, frame_stride=STRIDE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dark_then_bright(tmp_path_factory):
    """Half a second of darkness, four of light and, for its last frame, darkness."""
    file = tmp_path_factory.mktemp("videos") / "dark_then_bright.mp4"
    levels = np.array([20] * 8 + [235] * 40 + [20] * 3, np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 32, 3))
    write_video(file, np.ascontiguousarray(frames), fps=FPS)
    return file
