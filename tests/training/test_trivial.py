import numpy as np

from videomae_jax.training.trivial import mean_colour

rng = np.random.default_rng(0)


def test_mean_colour_leaves_each_clips_variance():
    targets = rng.normal(size=(2, 5, 12)).astype("f")
    error = ((mean_colour(targets, channels=3) - targets) ** 2).mean(axis=(1, 2))
    colours = targets.reshape(2, 5 * 4, 3)
    np.testing.assert_allclose(error, colours.var(axis=1).mean(axis=1), rtol=1e-5)
