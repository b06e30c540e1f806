import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videomae_jax.training.augment import random_erase, random_flip

erase = jax.jit(random_erase)


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


def erased_boxes(height, width, num_clips, probability):
    """(y, x, h, w) of the boxes that `random_erase` covers; clips that it leaves as they are have none."""
    video = jnp.full((num_clips, 1, height, width, 1), 100.0)
    keys = jax.random.split(jax.random.key(5), num_clips)
    noisy = np.asarray(erase(keys, video, probability))[:, 0, :, :, 0] != 100
    for mask in noisy:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) > 0:
            h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert mask.sum() == h * w
            yield rows[0], columns[0], h, w


def original_box(height, width, rng):
    """The original's box, tried again until it is smaller than the frame."""
    while True:
        area = rng.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if w < width and h < height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


@pytest.mark.parametrize("size", [(48, 48), (32, 80), (10, 14)])
def test_erased_boxes_are_distributed_as_the_originals(size):
    height, width = size
    rng = np.random.default_rng(0)
    boxes = np.array(list(erased_boxes(*size, 4000, 1.0)), float)
    expected_boxes = np.array([original_box(*size, rng) for _ in range(4000)], float)
    assert boxes.shape == expected_boxes.shape

    def statistics(boxes):
        y, x, h, w = boxes.T
        return np.stack([h * w, np.log(h / w), y / (height - h), x / (width - w), y, x, h, w, y + h, x + w])

    got, expected = statistics(boxes), statistics(expected_boxes)
    # Five standard errors of the difference of two correlations, or of two shares, of 4000.
    np.testing.assert_allclose(np.corrcoef(got), np.corrcoef(expected), atol=5 * math.sqrt(2 / 4000))
    for values, expected_values in zip(got, expected, strict=True):
        levels = np.quantile(expected_values, np.linspace(0, 1, 21))
        shares = (np.mean(v[:, None] <= levels, 0) for v in (values, expected_values))
        np.testing.assert_allclose(*shares, atol=5 * math.sqrt(0.5 / 4000))
    y, x, h, w = boxes.T
    assert h.max() < height and w.max() < width
    assert y.min() == 0 and (y + h).max() == height and x.min() == 0 and (x + w).max() == width


def test_erased_boxes_reach_their_limits():
    _, _, h, w = np.array(list(erased_boxes(160, 160, 600, 1.0))).T
    areas, aspects = h * w / 160**2, (h / w)[h * w > 0.15 * 160**2]
    assert 0.0185 < areas.min() < 0.0225 and 0.32 < areas.max() < 0.34
    assert 0.29 < aspects.min() < 0.315 and 3.2 < aspects.max() < 3.45


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.6])
def test_probability_of_an_erased_box(probability):
    share = len(list(erased_boxes(16, 16, 3000, probability))) / 3000
    assert abs(share - probability) <= 5 * math.sqrt(probability * (1 - probability) / 3000)


def test_a_quarter_of_the_clips_is_erased_unless_asked_otherwise():
    video = jnp.zeros((3000, 1, 8, 8, 1))
    erased = np.asarray(erase(jax.random.split(jax.random.key(0), 3000), video)).any((1, 2, 3, 4))
    assert abs(erased.mean() - 0.25) <= 5 * math.sqrt(0.25 * 0.75 / 3000)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frames_share_the_box_and_differ_in_noise(dtype):
    video = jnp.asarray(np.random.default_rng(0).normal(50, 1, (64, 4, 32, 40, 3)), dtype)
    erased = erase(jax.random.split(jax.random.key(1), 64), video, probability=0.5)
    assert erased.dtype == video.dtype and erased.shape == video.shape
    changed = np.asarray(erased != video)
    assert (changed == changed[:, :1, :, :, :1]).all()
    clips = np.flatnonzero(changed.any((1, 2, 3, 4)))
    assert 16 < len(clips) < 48
    boxes = {changed[clip, 0, :, :, 0].tobytes() for clip in clips}
    assert len(boxes) == len(clips)
    # [pixels of a box, frames, channels]
    noise = [np.asarray(erased, np.float32)[clip].transpose(1, 2, 0, 3)[changed[clip, 0, :, :, 0]] for clip in clips]
    values = np.concatenate([box.reshape(len(box), -1) for box in noise])
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(12), atol=5 / math.sqrt(len(values)))
    np.testing.assert_allclose(values.mean(0), 0, atol=5 / math.sqrt(len(values)))
    np.testing.assert_allclose(values.std(0), 1, atol=5 / math.sqrt(2 * len(values)))
    assert abs(np.mean(np.abs(values) < 0.6745) - 0.5) < 5 * 0.5 / math.sqrt(values.size)
    first_values = [tuple(box[0].ravel()) for box in noise]
    assert len(set(first_values)) == len(clips)


def test_a_clips_erasing_depends_on_its_own_key_alone():
    video = jnp.zeros((8, 2, 16, 16, 3))
    keys = jax.random.split(jax.random.key(1), 8)
    order = np.random.default_rng(1).permutation(8)
    erased = erase(keys, video, 0.7)
    np.testing.assert_array_equal(erased[order], erase(keys[order], video, 0.7))
    np.testing.assert_array_equal(erased, erase(keys, video, 0.7))
    assert not np.array_equal(erased, erase(jax.random.split(jax.random.key(2), 8), video, 0.7))


def test_frames_too_narrow_for_any_box_stay():
    video = jnp.full((50, 2, 1, 500, 3), 7.0)
    np.testing.assert_array_equal(erase(jax.random.split(jax.random.key(0), 50), video, 1.0), video)
