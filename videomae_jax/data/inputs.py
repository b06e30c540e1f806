"""Videos in the forms that users have them: paths, lists of pictures, arrays in two layouts."""

import os
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import ArrayLike, Num
from PIL import Image

DataFormat = Literal["channels_first", "channels_last"]
FilePath = str | os.PathLike
Frame = Image.Image | ArrayLike
Video = FilePath | Sequence[Frame] | ArrayLike


def is_path(video: Any) -> bool:
    """Whether a video is given as a file."""
    return isinstance(video, (str, os.PathLike))


def list_videos(videos: Video | Sequence[Video]) -> list[FilePath | Sequence[Image.Image | np.ndarray]]:
    """The videos one by one, each a path or its frames.

    Args:
      videos: a path; a frame, which is a video of one; a list of frames; an array [T ...] of them; a list of videos,
        or an array [B T ...] of them. A frame is one of Pillow's images or an array with 2 or 3 axes.

    Raises:
      ValueError: something else, or nothing.
    """
    if is_path(videos):
        return [videos]
    if _is_frame(videos):
        return [[_as_frame(videos)]]
    if _is_array(videos):
        array = np.asarray(videos)
        videos = list(array) if array.ndim == 5 else [array]
    elif not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"Videos must be a path, a list of frames, an array or a list of those, got {type(videos).__name__}."
        )
    elif any(map(_is_frame, videos)):
        videos = [videos]
    if len(videos) == 0:
        raise ValueError("There is no video in an empty list.")
    return [video if is_path(video) else _frames(number, video) for number, video in enumerate(videos)]


def _frames(number: int, video: Any) -> list[Image.Image | np.ndarray]:
    if not isinstance(video, (list, tuple)) and not _is_array(video):
        raise ValueError(f"Video {number} must be a path, a list of frames or an array, got {type(video).__name__}.")
    frames = [_as_frame(frame) for frame in (np.asarray(video) if _is_array(video) else video)]
    if not frames:
        raise ValueError(f"Video {number} has no frame.")
    return frames


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or (_is_array(value) and np.ndim(value) < 4)


def _is_array(value: Any) -> bool:
    # NumPy's, JAX's, PyTorch's and TensorFlow's alike.
    return hasattr(value, "__array__") and not isinstance(value, Image.Image)


def _as_frame(frame: Any) -> Image.Image | np.ndarray:
    if isinstance(frame, Image.Image):
        return frame
    if not _is_array(frame):
        raise ValueError(f"A frame must be one of Pillow's images or an array, got {type(frame).__name__}.")
    return np.asarray(frame)


def to_array(
    frame: Image.Image | np.ndarray, data_format: DataFormat | None, num_channels: Collection[int], *, rgb: bool
) -> Num[np.ndarray, "H W C"]:
    """A frame with its channels last.

    Args:
      frame: a picture of any mode, whose bands become channels as they are; or [H W], [H W C], [C H W].
      data_format: where an array has its channels. None: on the first axis if its length is in `num_channels`, else on
        the last, as transformers guesses it.
      num_channels: what that guess takes for channels.
      rgb: makes one channel three, and puts four (RGBA) onto white.

    Raises:
      ValueError: another shape, or channels that are on neither axis.
    """
    if isinstance(frame, Image.Image):
        return np.array(_picture_to_rgb(frame) if rgb else frame).reshape(frame.height, frame.width, -1)
    if frame.ndim not in (2, 3) or 0 in frame.shape:
        raise ValueError(f"A frame must be an array [H W C], [C H W] or [H W], got one of shape {list(frame.shape)}.")
    if frame.ndim == 2:
        frame = frame[..., None]
    elif (data_format or _guess_format(frame.shape, num_channels)) == "channels_first":
        frame = np.moveaxis(frame, 0, -1)
    return _array_to_rgb(frame) if rgb else frame


def _guess_format(shape: tuple[int, ...], num_channels: Collection[int]) -> DataFormat:
    first, last = shape[0] in num_channels, shape[-1] in num_channels
    if not first and not last:
        known = " or ".join(map(str, sorted(num_channels)))
        raise ValueError(
            f"A frame of shape {list(shape)} has {known} channels neither first nor last. If it has another number of "
            "channels, say where: input_data_format='channels_last' or 'channels_first'."
        )
    if first and last:
        warnings.warn(
            f"A frame of shape {list(shape)} may have its channels first or last; they are taken to be first. "
            "input_data_format='channels_last' or 'channels_first' settles it.",
            stacklevel=2,
        )
    return "channels_first" if first else "channels_last"


def _picture_to_rgb(picture: Image.Image) -> Image.Image:
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _array_to_rgb(frame: Num[np.ndarray, "H W C"]) -> Num[np.ndarray, "H W c"]:
    """As transformers 5.23 does it: image_transforms.py, `convert_to_rgb`."""
    if frame.shape[-1] == 1:
        return np.repeat(frame, 3, axis=-1)
    if frame.shape[-1] != 4:
        return frame
    whole = np.issubdtype(frame.dtype, np.integer)
    white = 255 if whole else 1.0
    if not (frame.min() >= 0 and frame.max() <= white):
        raise ValueError(f"RGBA frames of {frame.dtype} must be in [0, {white}], got {frame.min()} to {frame.max()}.")
    alpha = frame[..., 3:] / white
    blended = alpha * frame[..., :3] + (1 - alpha) * white
    return (np.round(blended) if whole else blended).astype(frame.dtype)
