"""Two tiny runs for the page to show."""

import jax
import numpy as np
import pytest
from flax import nnx

from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEImageProcessor
from videomae_jax.data.builtin import CAMERA_MOVES
from videomae_jax.data.video import write_video

STRIDE, FPS = 4, 8
TINY = dict(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=48,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=48,
)


@pytest.fixture(scope="session")
def classifier():
    """A classifier with opinions: whatever it is shown, some classes are far more likely than others."""
    config = VideoMAEConfig(**TINY, id2label=dict(enumerate(CAMERA_MOVES)), use_mean_pooling=True)
    model = VideoMAEForVideoClassification(config, rngs=nnx.Rngs(0))
    model.classifier.kernel[...] = jax.random.normal(jax.random.key(0), model.classifier.kernel.shape)
    return model, VideoMAEImageProcessor.for_model(config, frame_stride=STRIDE)


@pytest.fixture(scope="session")
def pretrained():
    config = VideoMAEConfig(**TINY)
    return VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)), VideoMAEImageProcessor.for_model(
        config, frame_stride=STRIDE
    )


@pytest.fixture(scope="session")
def runs(classifier, pretrained, tmp_path_factory):
    """The folder of both as runs leave them: `finetuned` and `pretrained`."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (model, processor) in {"finetuned": classifier, "pretrained": pretrained}.items():
        model.save_pretrained(folder / name / "model")
        processor.save_pretrained(folder / name / "model")
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Five seconds of noise: two windows of two seconds, and the last clip, which begins before the second one ends."""
    file = tmp_path_factory.mktemp("clips") / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (5 * FPS, 4, 6, 3), np.uint8)
    write_video(file, noise.repeat(8, axis=1).repeat(8, axis=2), FPS)
    return file
