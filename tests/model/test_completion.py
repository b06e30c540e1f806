import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax import VideoMAEConfig
from videomae_jax.model.completion import complete, distance_weighted
from videomae_jax.model.masking import MaskIds
from videomae_jax.model.patches import gather, patchify, pixel_targets

rng = np.random.default_rng(0)


def test_fill_is_the_mean_weighted_by_inverse_squared_distance():
    grid, visible, masked = (2, 3, 4), np.array([[0, 5, 17]]), np.array([[1, 12, 23]])
    values = rng.normal(size=(1, 3, 2)).astype("f")
    filled = distance_weighted(values, visible, masked, grid)
    for m, token in enumerate(masked[0]):
        here = np.array(np.unravel_index(token, grid))
        weights = [1 / ((here - np.array(np.unravel_index(v, grid))) ** 2).sum() for v in visible[0]]
        np.testing.assert_allclose(filled[0, m], np.average(values[0], axis=0, weights=weights), rtol=1e-5)


def test_fill_keeps_what_is_visible():
    values = rng.normal(size=(1, 2, 3)).astype("f")
    filled = distance_weighted(values, np.array([[0, 7]]), np.array([[7, 3]]), (2, 2, 2))
    np.testing.assert_allclose(filled[0, 0], values[0, 1], atol=1e-5)


CONFIG = VideoMAEConfig(image_size=8, patch_size=4, num_frames=4)
MASK = MaskIds(visible=jnp.array([[0, 3, 6]]), masked=jnp.array([[1, 2, 4, 5, 7]]))


@pytest.fixture
def pixels():
    return patchify(jnp.asarray(rng.uniform(size=(1, 4, 8, 8, 3)), jnp.float32), CONFIG.patch)


def test_the_true_statistics_undo_the_targets(pixels):
    targets = pixel_targets(gather(pixels, MASK.masked), channels=3, norm_pix=True)
    np.testing.assert_allclose(complete(pixels, targets, MASK, CONFIG, CONFIG.grid, "true"), pixels, atol=1e-5)


def test_raw_pixels_are_put_in_as_they_are(pixels):
    raw, predicted = dataclasses.replace(CONFIG, norm_pix_loss=False), jnp.full((1, 5, 96), 0.3)
    for statistics in ("visible", "true"):
        completed = complete(pixels, predicted, MASK, raw, CONFIG.grid, statistics)
        np.testing.assert_array_equal(gather(completed, MASK.masked), predicted)
        np.testing.assert_array_equal(gather(completed, MASK.visible), gather(pixels, MASK.visible))


def test_visible_statistics_look_at_no_hidden_pixel(pixels):
    predicted = jnp.asarray(rng.normal(size=(1, 5, 96)), jnp.float32)
    others = pixels.at[:, MASK.masked[0]].set(rng.uniform(size=(1, 5, 96)))
    completed, again = (complete(x, predicted, MASK, CONFIG, CONFIG.grid) for x in (pixels, others))
    np.testing.assert_array_equal(completed, again)
    assert not np.allclose(*(complete(x, predicted, MASK, CONFIG, CONFIG.grid, "true") for x in (pixels, others)))


def test_a_flat_prediction_has_the_mean_of_the_colours_around():
    colours = jnp.arange(8.0)[None, :, None] / 8
    flat = jnp.broadcast_to(colours, (1, 8, 96))
    completed = complete(flat, jnp.zeros((1, 5, 96)), MASK, CONFIG, CONFIG.grid)
    filled = distance_weighted(gather(colours, MASK.visible), MASK.visible, MASK.masked, CONFIG.grid)
    np.testing.assert_allclose(gather(completed, MASK.masked), jnp.broadcast_to(filled, (1, 5, 96)), atol=1e-6)
