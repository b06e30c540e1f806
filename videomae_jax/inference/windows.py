"""Windows over a video that is longer than a clip, and when each begins and ends."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.data.sampling import dense_windows
from videomae_jax.data.transforms import view_crops
from videomae_jax.data.video import VideoFile

AT_A_TIME = 8  # clips in memory and in the model
STRIDE_HINT = (
    "give stride=, the distance of frames in its training clips (4 for the published Kinetics models), or "
    "processor=VideoMAEImageProcessor.from_pretrained(FOLDER), with the folder of a run's model."
)


class Windows(NamedTuple):
    """Some windows of a video, in order.

    Attributes:
      start, end: seconds from the video's first frame: when each one's first frame is shown and its last one ends.
      clips: their frames, the middle of each.
    """

    start: list[float]
    end: list[float]
    clips: UInt8[np.ndarray, "S T H W 3"]


def windows_of(
    video: VideoFile, num_frames: int, stride: int, hop: int | None, image_size: tuple[int, int]
) -> Iterator[Windows]:
    """Windows from a video's first frame to its last, some at a time.

    Args:
      video: the file.
      num_frames: T, of a window's clip.
      stride: frames of the video from one frame of a clip to the next; a window has T * stride.
      hop: frames of the video from one window to the next; None for windows that touch.
      image_size: (H, W).

    Raises:
      ValueError: a number is below 1.
      VideoReadError: a frame cannot be read.
    """
    length = num_frames * stride
    indices = dense_windows(video.num_frames, num_frames, stride, length if hop is None else hop)
    times = np.append(video.times, video.times[-1] + 1 / video.frame_rate)
    ends = np.minimum(indices[:, 0] + length, video.num_frames)
    for first in range(0, len(indices), AT_A_TIME):
        some = slice(first, first + AT_A_TIME)
        clips = [[view_crops(frame, 1, image_size)[0] for frame in video.read(clip)] for clip in indices[some]]
        yield Windows(times[indices[some, 0]].tolist(), times[ends[some]].tolist(), np.array(clips))


def stride_of(stride: int | None, processor: VideoMAEImageProcessor) -> int:
    """The stride that is asked for, or the one that the model was trained with.

    Raises:
      ValueError: there is neither.
    """
    stride = processor.frame_stride if stride is None else stride
    if stride is None:
        raise ValueError(f"the model's processor has no frame_stride: {STRIDE_HINT}")
    return stride
