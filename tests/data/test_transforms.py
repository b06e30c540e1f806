from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from videomae_jax.data.transforms import Box, center_crop_box, crop_resize, multi_scale_crop

sides = st.integers(8, 700)
out_sizes = st.tuples(st.integers(16, 320), st.integers(16, 320))


def original_boxes(height, width, out_side):
    """Every crop of the original's square `GroupMultiScaleCrop`, as its description says, one by one."""
    sizes = [int(min(height, width) * scale) for scale in (1, 0.875, 0.75, 0.66)]
    sizes = [out_side if abs(size - out_side) < 3 else size for size in sizes]
    lattice = [
        (0, 0),
        (4, 0),
        (0, 4),
        (4, 4),
        (2, 2),
        (0, 2),
        (4, 2),
        (2, 4),
        (2, 0),
        (1, 1),
        (3, 1),
        (1, 3),
        (3, 3),
    ]
    for (i, h), (j, w), (kx, ky) in product(enumerate(sizes), enumerate(sizes), lattice):
        if abs(i - j) <= 1:
            yield Box(ky * ((height - h) // 4), kx * ((width - w) // 4), h, w)


@pytest.mark.parametrize("size", [(256, 340, 224), (240, 320, 224), (340, 256, 224), (226, 226, 224), (128, 128, 96)])
def test_square_crops_are_the_originals(size):
    height, width, out_side = size
    rng = np.random.default_rng(0)
    got = {multi_scale_crop(height, width, (out_side, out_side), rng) for _ in range(4000)}
    assert got == set(original_boxes(height, width, out_side))


@given(sides, sides, out_sizes, st.integers(0, 2**32 - 1))
def test_multi_scale_crop_stays_inside(height, width, out_size, seed):
    box = multi_scale_crop(height, width, out_size, np.random.default_rng(seed))
    assert box.height > 0 and box.width > 0
    assert 0 <= box.y and box.y + box.height <= height
    assert 0 <= box.x and box.x + box.width <= width


@given(
    st.integers(100, 700),
    st.integers(100, 700),
    st.sampled_from([(64, 128), (128, 64), (96, 160)]),
    st.integers(0, 99),
)
def test_rectangles_keep_their_aspect_up_to_one_scale(height, width, out_size, seed):
    box = multi_scale_crop(height, width, out_size, np.random.default_rng(seed))
    distortion = (box.height / box.width) / (out_size[0] / out_size[1])
    assert 0.8 < distortion < 1.25


@given(sides, sides, out_sizes)
def test_center_crop_is_the_largest_central_box_of_that_aspect(height, width, out_size):
    box = center_crop_box(height, width, out_size)
    assert box.height == height or box.width == width
    assert abs((height - box.height) - 2 * box.y) <= 1 and abs((width - box.width) - 2 * box.x) <= 1
    assert box.y >= 0 and box.x >= 0
    wanted_height = box.width * out_size[0] / out_size[1]
    wanted_width = box.height * out_size[1] / out_size[0]
    assert abs(box.height - wanted_height) <= 1 or abs(box.width - wanted_width) <= 1


@given(sides, sides, out_sizes, st.floats(0.1, 1))
def test_scaled_center_crop_is_in_the_middle_and_no_larger_than_the_frame(height, width, out_size, scale):
    whole, box = (center_crop_box(height, width, out_size, scale=s) for s in (1, scale))
    assert abs(box.height - scale * whole.height) <= 1 and abs(box.width - scale * whole.width) <= 1
    assert abs((height - box.height) - 2 * box.y) <= 1 and abs((width - box.width) - 2 * box.x) <= 1
    assert center_crop_box(height, width, out_size, scale=1 / scale) == whole


def test_center_crop_by_hand():
    assert center_crop_box(256, 340, (224, 224), scale=224 / 256) == Box(16, 58, 224, 224)
    assert center_crop_box(64, 80, (32, 32), scale=0.9) == Box(3, 11, 58, 58)
    assert center_crop_box(60, 80, (32, 48)) == Box(3, 0, 53, 80)


def smooth_frames(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [128 + 120 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)]
    frame = np.stack(waves, -1).astype(np.uint8)
    return np.stack([frame, 255 - frame])


@pytest.mark.parametrize("out_size", [(64, 64), (120, 120), (112, 160), (200, 260)])
def test_resize_is_close_to_pillows(out_size):
    frames, box = smooth_frames(180, 240), Box(10, 20, 150, 170)
    got = crop_resize(frames, box, out_size)
    assert got.shape == (2, *out_size, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
    for frame, got_frame in zip(frames, got, strict=True):
        image = Image.fromarray(frame).crop((20, 10, 190, 160))
        expected = np.asarray(image.resize(out_size[::-1], Image.BILINEAR)).astype(int)
        assert np.abs(got_frame - expected).mean() < 2


def test_crop_of_the_output_size_is_not_resampled():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    got = crop_resize(frames, Box(3, 5, 24, 32), (24, 32))
    np.testing.assert_array_equal(got, frames[:, 3:27, 5:37])


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    got = crop_resize(stripes, Box(0, 0, 64, 64), (16, 16))
    np.testing.assert_allclose(got, 100, atol=1)
