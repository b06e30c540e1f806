import math
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from videomae_jax.data.transforms import (
    Box,
    center_crop_box,
    crop_resize,
    multi_scale_crop,
    random_resized_crop,
    view_crops,
)

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


def original_resized_crop(height, width, rng):
    """The original's square crop: (tries, box); eleven tries are none that fits."""
    for tries in range(1, 11):
        area = height * width * (0.08 + 0.92 * rng.random())
        aspect = (3 / 4) * (16 / 9) ** rng.random()
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return tries, Box(int(rng.integers(0, height - h, endpoint=True)), int(rng.integers(width - w + 1)), h, w)
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width / (3 / 4)))
    return 11, Box((height - h) // 2, (width - w) // 2, h, w)


def crop_statistics(boxes, height, width):
    """What two ways to draw crops are compared by: [crops values]."""
    y, x, h, w = np.array(boxes, float).T
    rooms = [start / np.maximum(side - size, 1) for start, side, size in ((y, height, h), (x, width, w))]
    return np.stack([h * w / (height * width), np.log(w / h), h, w, *rooms], -1)


@pytest.mark.parametrize("size", [(256, 340), (340, 256), (100, 480), (6, 7)])
def test_resized_crops_are_distributed_as_the_originals(size):
    rng = np.random.default_rng(0)
    got = crop_statistics([random_resized_crop(*size, (224, 224), rng) for _ in range(8000)], *size)
    expected = crop_statistics([original_resized_crop(*size, rng)[1] for _ in range(8000)], *size)
    levels = np.linspace(0.02, 0.98, 25)
    for values, expected_values in zip(got.T, expected.T, strict=True):
        low, high = np.quantile(expected_values, (0, 1))
        at_most, expected_at_most = (
            np.mean(v[:, None] <= low + levels * (high - low), 0) for v in (values, expected_values)
        )
        # Five standard errors of the difference of two shares of 8000.
        np.testing.assert_allclose(at_most, expected_at_most, atol=5 * math.sqrt(0.5 / 8000))


def test_resized_crop_reaches_its_limits():
    rng = np.random.default_rng(0)
    boxes = np.array([random_resized_crop(300, 400, (224, 224), rng) for _ in range(20000)])
    areas = boxes[:, 2] * boxes[:, 3] / 120000
    aspects = boxes[:, 3] / boxes[:, 2]
    assert 0.078 < areas.min() < 0.085 and 0.97 < areas.max() <= 1
    assert 0.74 < aspects.min() < 0.755 and 1.325 < aspects.max() < 1.35
    ends = boxes[:, :2] + boxes[:, 2:]
    assert boxes[:, :2].min(0).tolist() == [0, 0] and ends.max(0).tolist() == [300, 400]


@given(sides, sides, out_sizes, st.integers(0, 2**32 - 1))
def test_resized_crop_stays_inside(height, width, out_size, seed):
    box = random_resized_crop(height, width, out_size, np.random.default_rng(seed))
    assert box.height > 0 and box.width > 0
    assert 0 <= box.y and box.y + box.height <= height
    assert 0 <= box.x and box.x + box.width <= width


@given(st.integers(100, 700), st.integers(100, 700), out_sizes, st.integers(0, 2**32 - 1))
def test_resized_crop_stretches_by_a_third_at_most(height, width, out_size, seed):
    box = random_resized_crop(height, width, out_size, np.random.default_rng(seed))
    low, high = (aspect * out_size[1] / out_size[0] for aspect in (3 / 4, 4 / 3))
    assert (box.width + 0.5) / (box.height - 0.5) >= low and (box.width - 0.5) / (box.height + 0.5) <= high


@pytest.mark.parametrize(
    "size, out_size, box",
    [
        ((20, 2000), (224, 224), Box(0, 986, 20, 27)),
        ((2000, 30), (224, 224), Box(980, 0, 40, 30)),
        ((20, 2000), (100, 200), Box(0, 973, 20, 53)),
        ((5000, 1), (100, 1000), Box(2499, 0, 1, 1)),
    ],
)
def test_resized_crop_that_never_fits_is_central(size, out_size, box):
    assert random_resized_crop(*size, out_size, np.random.default_rng(0)) == box


def original_views(frame, num_crops, side):
    """Its test pipeline: the shorter side resized to `side`, then squares along the other."""
    height, width, _ = frame.shape
    if width < height:
        resized = cv2.resize(frame, (side, int(side * height / width)), interpolation=cv2.INTER_LINEAR)
    else:
        resized = cv2.resize(frame, (int(side * width / height), side), interpolation=cv2.INTER_LINEAR)
    spare = max(resized.shape[:2]) - side
    starts = (
        [int(round(spare / 2.0))]
        if num_crops == 1
        else [int(k * 1.0 * spare / (num_crops - 1)) for k in range(num_crops)]
    )
    if width < height:
        return [resized[start : start + side] for start in starts]
    return [resized[:, start : start + side] for start in starts]


@pytest.mark.parametrize("num_crops", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(256, 340), (340, 256), (240, 320), (200, 201), (128, 128), (500, 220)])
def test_views_are_the_originals(size, num_crops):
    frame = smooth_frames(*size)[0]
    expected = original_views(frame, num_crops, 160)
    np.testing.assert_array_equal(view_crops(frame, num_crops, (160, 160)), expected)


@given(sides, sides, st.integers(1, 6), out_sizes)
def test_views_span_the_frame(height, width, num_crops, out_size):
    y, x = np.mgrid[:height, :width]
    frame = np.stack([255 * y // height, 255 * x // width, 0 * x], -1).astype(np.uint8)
    crops = view_crops(frame, num_crops, out_size).astype(int)
    assert crops.shape == (num_crops, *out_size, 3)
    scale = max(out_size[0] / height, out_size[1] / width)
    for channel, side, out_side in ((0, height, out_size[0]), (1, width, out_size[1])):
        seen = crops[..., channel].mean((1, 2))
        room = 255 * (1 - out_side / (scale * side))  # grey levels that a crop can move over
        places = np.full(1, 0.5) if num_crops == 1 else np.linspace(0, 1, num_crops)
        # Pixels are whole, of the frame and of the resized one, and so are grey levels.
        tolerance = 1.5 + 255 * (1.5 / side + 1 / (scale * side))
        np.testing.assert_allclose(seen, 127 + room * (places - 0.5), atol=tolerance)


def test_views_by_hand():
    columns = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (200, 240, 3))
    assert view_crops(columns, 3, (200, 200))[:, 0, 0, 0].tolist() == [0, 20, 40]
    assert view_crops(columns, 1, (200, 200))[:, 0, 0, 0].tolist() == [20]
    assert view_crops(columns.swapaxes(0, 1), 2, (200, 200))[:, 0, 0, 0].tolist() == [0, 40]
    square = view_crops(columns[:, :200], 3, (200, 200))
    assert np.array_equal(square, [columns[:, :200]] * 3)
    with pytest.raises(ValueError, match="num_crops=0"):
        view_crops(columns, 0, (50, 50))


def smooth_frames(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [128 + 120 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)]
    frame = np.stack(waves, -1).astype(np.uint8)
    return np.stack([frame, 255 - frame])


@pytest.mark.parametrize("out_size", [(64, 64), (120, 120), (112, 160), (200, 260)])
def test_resize_is_close_to_pillows(out_size):
    for frame in smooth_frames(180, 240):
        got = crop_resize(frame, Box(10, 20, 150, 170), out_size)
        assert got.shape == (*out_size, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
        image = Image.fromarray(frame).crop((20, 10, 190, 160))
        expected = np.asarray(image.resize(out_size[::-1], Image.BILINEAR)).astype(int)
        assert np.abs(got - expected).mean() < 2


def test_crop_of_the_output_size_is_not_resampled():
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    got = crop_resize(frame, Box(3, 5, 24, 32), (24, 32))
    np.testing.assert_array_equal(got, frame[3:27, 5:37])


def test_resize_fills_what_it_is_given():
    frame, clip = smooth_frames(40, 50)[0], np.zeros((2, 24, 32, 3), np.uint8)
    crop_resize(frame, Box(3, 5, 30, 40), (24, 32), out=clip[1])
    np.testing.assert_array_equal(clip[1], crop_resize(frame, Box(3, 5, 30, 40), (24, 32)))
    assert not clip[0].any() and clip[1].any()


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    got = crop_resize(stripes, Box(0, 0, 64, 64), (16, 16))
    np.testing.assert_allclose(got, 100, atol=1)


@pytest.mark.parametrize("box", [Box(3, 5, 60, 70), Box(0, 0, 180, 240), Box(10, 20, 128, 192), Box(7, 1, 21, 230)])
@pytest.mark.parametrize("out_size", [(64, 96), (112, 112), (200, 40)])
def test_without_antialias_it_is_torchs_interpolation(box, out_size):
    frame = np.random.default_rng(0).integers(0, 256, (180, 240, 3)).astype(np.uint8)
    got = crop_resize(frame, box, out_size, antialias=False)
    cropped = torch.tensor(frame[box.y : box.y + box.height, box.x : box.x + box.width])
    channels_first = cropped.permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(channels_first, size=out_size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(got, expected[0].permute(1, 2, 0), atol=1)
