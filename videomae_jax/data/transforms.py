"""Crop and resize the frames of one clip on the host; flips, colours and masks belong on the device."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

# One process a core loads the data; OpenCV's own threads in each of them would fight over the same cores.
cv2.setNumThreads(0)

SCALES = (1.0, 0.875, 0.75, 0.66)
# A crop sits on a 5x5 lattice over the image: corners, centre, middles of the sides, centres of the quarters,
# as (x, y).
OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)
# Of `random_resized_crop`: fractions of the frame's area, and width / height over that of the output (the original
# writes 1.3333).
AREAS = (0.08, 1.0)
ASPECTS = (3 / 4, 4 / 3)


class Box(NamedTuple):
    """A rectangle of pixels: its top left corner, then its size."""

    y: int
    x: int
    height: int
    width: int


def multi_scale_crop(height: int, width: int, out_size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A random crop of one of 4 heights, a neighbouring width and one of 13 places.

    This is the original's pre-training crop. The scales apply to the largest crop with the aspect of
    `out_size`; height and width are at most one scale apart. A side within 2 pixels of the output side takes
    that size, so that it need not be resampled.

    Args:
      height, width: size of the frames.
      out_size: (height, width) that the crop will be resized to.

    Source: transforms.py:91-161 of the original, `GroupMultiScaleCrop` with max_distort=1, fix_crop,
    more_fix_crop. It crops beyond frames that are 1 or 2 pixels smaller than the output, which shows black;
    we stay inside.
    """
    base_height, base_width = _largest_size(height, width, out_size)
    heights = [_snap(int(base_height * scale), out_size[0], height) for scale in SCALES]
    widths = [_snap(int(base_width * scale), out_size[1], width) for scale in SCALES]
    pairs = [(h, w) for i, h in enumerate(heights) for j, w in enumerate(widths) if abs(i - j) <= 1]
    crop_height, crop_width = pairs[rng.integers(len(pairs))]
    x_steps, y_steps = OFFSETS[rng.integers(len(OFFSETS))]
    y = y_steps * ((height - crop_height) // 4)
    x = x_steps * ((width - crop_width) // 4)
    return Box(y, x, crop_height, crop_width)


def random_resized_crop(height: int, width: int, out_size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A random crop of 8 % to all of the frame, stretched by up to a third either way: the original's fine-tuning crop.

    Where none of ten fits into the frame, it is the largest central one that is not stretched more.

    Args:
      height, width: size of the frames.
      out_size: (height, width) that the crop will be resized to.

    Source: video_transforms.py of the original, `_get_param_spatial_crop`. Its outputs are square; other outputs shift
    the range of aspects by their own, so that stretching stays within a third.
    """
    out_aspect = out_size[1] / out_size[0]
    low, high = (aspect * out_aspect for aspect in ASPECTS)
    for _ in range(10):
        area = rng.uniform(*AREAS) * height * width
        aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
        crop_width = round(math.sqrt(area * aspect))
        crop_height = round(math.sqrt(area / aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            y = int(rng.integers(height - crop_height + 1))
            x = int(rng.integers(width - crop_width + 1))
            return Box(y, x, crop_height, crop_width)
    crop_height, crop_width = height, width
    if width / height < low:
        crop_height = max(round(width / low), 1)
    elif width / height > high:
        crop_width = max(round(height * high), 1)
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def view_crops(
    frame: UInt8[np.ndarray, "H W 3"], num_crops: int, out_size: tuple[int, int]
) -> UInt8[np.ndarray, "crops h w 3"]:
    """The frame resized until it just covers `out_size` = (h, w), and cut where the longer side has room.

    The crops are evenly spread from the left (top) to the right (bottom); a single one is in the middle.

    Raises:
      ValueError: `num_crops` is below 1.

    Source: kinetics.py:137-156 of the original for more crops, functional.py:26-43 and `CenterCrop` in
    video_transforms.py for one. Its outputs are square.
    """
    if num_crops < 1:
        raise ValueError(f"a clip needs at least one crop, got num_crops={num_crops}")
    (height, width, _), (out_height, out_width) = frame.shape, out_size
    if width * out_height < height * out_width:
        resized_height, resized_width = int(out_width * height / width), out_width
    else:
        resized_height, resized_width = out_height, int(out_height * width / height)
    resized = cv2.resize(frame, (resized_width, resized_height), interpolation=cv2.INTER_LINEAR)
    spare_height, spare_width = resized_height - out_height, resized_width - out_width
    crops = []
    for k in range(num_crops):
        y, x = (_view_start(k, num_crops, spare) for spare in (spare_height, spare_width))
        crops.append(resized[y : y + out_height, x : x + out_width])
    return np.stack(crops)


def center_crop_box(height: int, width: int, out_size: tuple[int, int], scale: float = 1.0) -> Box:
    """The largest box in the middle of the frame with the aspect of `out_size` = (height, width), times `scale`.

    With more than 1 it is still the largest.
    """
    scale = min(scale, 1)
    crop_height, crop_width = (max(round(scale * side), 1) for side in _largest_size(height, width, out_size))
    return Box((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def crop_resize(
    frame: UInt8[np.ndarray, "H W 3"],
    box: Box,
    out_size: tuple[int, int],
    *,
    antialias: bool = True,
    out: UInt8[np.ndarray, "h w 3"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Cuts `box` out of a frame and resizes it to `out_size` = (h, w).

    Args:
      antialias: whether a pixel is the mean of all pixels that it stands for, as in the original's pre-training, or
        lies between its four nearest however many there are, as in its fine-tuning and tests.
      out: where to put it; None for a new array.

    Source: transforms.py of the original for pre-training (Pillow's bilinear filter); video_transforms.py,
    `random_resized_crop` (torch's `interpolate`) for fine-tuning; functional.py:26-43 (OpenCV's) for tests.
    """
    out_height, out_width = out_size
    # Pillow's bilinear filter averages over all pixels that it shrinks into one. INTER_AREA does that too but
    # costs four times INTER_LINEAR, which differs by less than one grey level on average as long as the sides
    # shrink by less than a fifth.
    shrinks = antialias and box.height * box.width > 1.5 * out_height * out_width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    cropped = frame[box.y : box.y + box.height, box.x : box.x + box.width]
    return cv2.resize(cropped, (out_width, out_height), dst=out, interpolation=interpolation)


def _largest_size(height: int, width: int, out_size: tuple[int, int]) -> tuple[float, float]:
    out_height, out_width = out_size
    return min(height, width * out_height / out_width), min(width, height * out_width / out_height)


def _view_start(k: int, num_crops: int, spare: int) -> int:
    """Where crop `k` begins on a side with `spare` pixels to move over; the original's two ways of rounding."""
    return round(spare / 2) if num_crops == 1 else int(k * (spare / (num_crops - 1)))


def _snap(size: int, out_side: int, side: int) -> int:
    """`out_side` if it is within 2 pixels of `size`; at least 1 pixel, at most the frame's own side."""
    return min(max(out_side if abs(size - out_side) < 3 else size, 1), side)
