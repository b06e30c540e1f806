import numpy as np

from videomae_jax.training.trivial import distance_weighted, mean_colour

rng = np.random.default_rng(0)


def test_mean_colour_leaves_each_clips_variance():
    targets = rng.normal(size=(2, 5, 12)).astype("f")
    error = ((mean_colour(targets, channels=3) - targets) ** 2).mean(axis=(1, 2))
    colours = targets.reshape(2, 5 * 4, 3)
    np.testing.assert_allclose(error, colours.var(axis=1).mean(axis=1), rtol=1e-5)


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
