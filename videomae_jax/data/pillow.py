"""What transformers does to one frame, with Pillow and NumPy and to the last bit."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Num, UInt8
from PIL import Image


def resized_size(height: int, width: int, size: Mapping[str, int]) -> tuple[int, int]:
    """The (height, width) that transformers resizes a frame to.

    Args:
      height, width: of the frame.
      size: `height` and `width`; or `shortest_edge`, which keeps the aspect, with a `longest_edge` that the other
        must not exceed or without; or `max_height` and `max_width`, which keep the aspect and of which one is reached.

    Source: image_transforms.py of transformers 5.23, `get_resize_output_image_size` and `get_size_with_aspect_ratio`;
    image_utils.py, `get_image_size_for_max_height_width`.
    """
    if "height" in size:
        return size["height"], size["width"]
    if "max_height" in size:
        scale = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * scale), int(width * scale)
    short, long = sorted((height, width))
    new_short = exact = size["shortest_edge"]
    longest = size.get("longest_edge")
    if longest is not None and long / short * new_short > longest:
        exact = longest * short / long
        new_short = round(exact)
    if new_short == short:  # there also where the other edge is longer than longest_edge by a fraction of a pixel
        return height, width
    new_long = int(exact * long / short)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resize(
    frame: Num[np.ndarray, "H W C"], size: tuple[int, int], resample: int
) -> UInt8[np.ndarray, "h w C"] | Float32[np.ndarray, "h w C"]:
    """Resizes with Pillow, which knows bytes alone.

    Fractions in [0, 1] become bytes and fractions again, whole numbers become bytes and stay. Two or four channels are
    taken for grey or colour with transparency (LA, RGBA), more than four are resized one by one.

    Args:
      frame: bytes, whole numbers in [0, 255], or fractions in [0, 1].
      size: (h, w).
      resample: Pillow's number of the filter.

    Raises:
      ValueError: other numbers, or a size of nothing.

    Source: image_transforms.py of transformers 5.23, `resize`.
    """
    if min(size) < 1:
        raise ValueError(
            f"A frame of {frame.shape[0]}x{frame.shape[1]} pixels cannot be resized to {size[0]}x{size[1]}."
        )
    fractions = frame.dtype != np.uint8 and not np.allclose(frame, frame.astype(int))
    limit = 1 if fractions else 255
    if not (frame.min() >= 0 and frame.max() <= limit):
        raise ValueError(
            f"Frames of {'fractions' if fractions else 'whole numbers'} must be in [0, {limit}] to be resized, got "
            f"{frame.min()} to {frame.max()}. Round fractional numbers of up to 255 to uint8, or pass do_resize=False."
        )
    frame = (rescale(frame, 255) if fractions else frame).astype(np.uint8)
    parts = [frame] if frame.shape[-1] <= 4 else np.split(frame, frame.shape[-1], axis=-1)
    height, width = size
    resized = []
    for part in parts:
        picture = Image.fromarray(part[..., 0] if part.shape[-1] == 1 else part)
        resized.append(np.array(picture.resize((width, height), resample)).reshape(height, width, -1))
    out = np.concatenate(resized, axis=-1)
    return rescale(out, 1 / 255) if fractions else out


def center_crop(frame: Num[np.ndarray, "H W C"], size: tuple[int, int]) -> Num[np.ndarray, "h w C"]:
    """The middle of a frame, (h, w) in size; zeros around a frame that is smaller.

    Source: image_transforms.py of transformers 5.23, `center_crop`.
    """
    missing = [max(wanted - side, 0) for wanted, side in zip(size, frame.shape[:2], strict=True)]
    if any(missing):
        frame = np.pad(frame, [*(((side + 1) // 2, side // 2) for side in missing), (0, 0)])
    top, left = ((side - wanted) // 2 for wanted, side in zip(size, frame.shape[:2], strict=True))
    return frame[top : top + size[0], left : left + size[1]]


def rescale(pixels: Num[np.ndarray, "*shape"], factor: float) -> Float32[np.ndarray, "*shape"]:
    """`pixels * factor`, multiplied in double precision as transformers does."""
    return (pixels.astype(np.float64) * factor).astype(np.float32)
