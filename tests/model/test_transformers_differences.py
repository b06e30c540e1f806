"""Where transformers fails or is wrong: what it does (so that a test tells when it no longer does), and ours."""

import numpy as np
import pytest
import torch
from both_libraries import TINY, as_torch, distance, inputs, noisy_theirs, ours_and_theirs
from einops import rearrange

from videomae_jax import VideoMAEForPreTraining

SMALL = TINY.adapt(num_hidden_layers=1, decoder_num_hidden_layers=1, norm_pix_loss=False)


def pixels_and_mask(config):
    """uint8 clips, and the mask of `inputs`."""
    shape = (2, *config.clip_size, config.num_channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8), inputs(config)[1]


def loss_of_true_pixels(config, logits, pixels, mask):
    """The squared error of the masked tokens' pixels in [0, 1], in float64."""
    u, p, q = config.patch
    tokens = rearrange(pixels / 255, "b (t u) (h p) (w q) c -> b (t h w) (u p q c)", u=u, p=p, q=q)
    return ((np.asarray(logits, np.float64).reshape(-1, config.patch_dim) - tokens[mask]) ** 2).mean()


def test_loss_is_of_the_true_pixels_whatever_the_processors_statistics(tmp_path):
    """transformers' own processor takes 0.5 and 0.5; its loss goes back with ImageNet's statistics."""
    config = SMALL.adapt(image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    ours, theirs = ours_and_theirs(config, tmp_path)
    pixels, mask = pixels_and_mask(config)
    normalised = ((pixels / 255 - 0.5) / 0.5).astype(np.float32)
    output, other = ours(normalised, mask), theirs(*as_torch(normalised, mask))
    assert distance(output.logits, other.logits) < 1e-5
    expected = loss_of_true_pixels(config, output.logits, pixels, mask)
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)
    np.testing.assert_allclose(ours(pixels, mask).loss, expected, rtol=1e-5)
    assert abs(other.loss.item() / expected - 1) > 1e-3


def test_raw_gray_pixels_are_a_target(tmp_path):
    config = SMALL.adapt(num_channels=1)
    ours, theirs = ours_and_theirs(config, tmp_path)
    pixels, mask = pixels_and_mask(config)
    floats = (pixels / 255).astype(np.float32)
    with pytest.raises(ValueError, match="Can't unnormalize non-RGB images"):
        theirs(*as_torch(floats, mask))
    for clips in (floats, pixels):
        output = ours(clips, mask)
        expected = loss_of_true_pixels(config, output.logits, pixels, mask)
        np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_attentions_need_no_other_way_of_computing_attention(tmp_path):
    """transformers' default, sdpa, has none to return."""
    ours, theirs = ours_and_theirs(SMALL, tmp_path, attention="sdpa")
    clips, _ = inputs(SMALL)
    assert theirs.videomae(as_torch(clips), output_attentions=True).attentions == ()
    eager = noisy_theirs(SMALL, VideoMAEForPreTraining).videomae(as_torch(clips), output_attentions=True)
    assert distance(ours.videomae(clips, output_attentions=True).attentions[0], eager.attentions[0]) < 1e-5


def test_clips_of_another_length_are_encoded(tmp_path):
    ours, theirs = ours_and_theirs(SMALL, tmp_path)
    longer = SMALL.adapt(num_frames=6)
    clips, mask = inputs(longer)
    with torch.no_grad(), pytest.raises(RuntimeError, match="size of tensor"):
        theirs.videomae(as_torch(clips))
    output = ours(clips, mask)
    assert output.logits.shape == (2, mask[0].sum(), SMALL.patch_dim)
    assert np.isfinite(output.loss)
