import jax
import numpy as np

from videomae_jax.training.augment import random_flip


def test_half_of_the_clips_are_mirrored_all_frames_alike():
    video = np.random.default_rng(0).integers(0, 256, (64, 2, 4, 6, 3), np.uint8)
    flipped = np.asarray(random_flip(jax.random.split(jax.random.key(0), 64), video))
    same = (flipped == video).all(axis=(2, 3, 4))  # [B T]
    mirrored = (flipped == video[:, :, :, ::-1]).all(axis=(2, 3, 4))
    assert (same.all(axis=1) | mirrored.all(axis=1)).all()
    assert 16 < mirrored.all(axis=1).sum() < 48


def test_a_clips_flip_depends_on_its_own_key_alone():
    video = np.random.default_rng(0).integers(0, 256, (8, 1, 2, 2, 3), np.uint8)
    keys = jax.random.split(jax.random.key(1), 8)
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_array_equal(random_flip(keys, video)[order], random_flip(keys[order], video[order]))
