"""Which frames of a video make a clip: index arithmetic alone, no files. Frames count from 0."""

import numpy as np
from jaxtyping import Int64


def random_clip(
    num_video_frames: int, num_frames: int, stride: int, rng: np.random.Generator
) -> Int64[np.ndarray, "T"]:
    """A random clip of T = `num_frames` frames, `stride` apart: the original's pre-training sampler.

    A video too short for the clip repeats the last frame it reaches. That frame is the video's last but one
    at best (with stride 1 the last frame is never used): the original compares a 1-based offset with `<`
    where `<=` was meant, and we keep its clips.

    Raises:
      ValueError: an argument is below 1.

    Source: kinetics.py of the original, `VideoMAE._sample_train_indices` and
    `_video_TSN_decord_batch_loader`.
    """
    num_offsets = _num_offsets(num_video_frames, num_frames, stride)
    offset = int(rng.integers(num_offsets)) if num_offsets > 0 else 0
    return _clip_from(offset, num_video_frames, num_frames, stride)


def center_clip(num_video_frames: int, num_frames: int, stride: int) -> Int64[np.ndarray, "T"]:
    """The clip `random_clip` would take from the middle of the video; for losses on held-out videos.

    Raises:
      ValueError: an argument is below 1.
    """
    num_offsets = _num_offsets(num_video_frames, num_frames, stride)
    offset = (num_offsets - 1) // 2 if num_offsets > 0 else 0
    return _clip_from(offset, num_video_frames, num_frames, stride)


def spread_clip(num_video_frames: int, num_frames: int) -> Int64[np.ndarray, "T"]:
    """A clip of the whole video: the centres of T = `num_frames` equal parts; a short video repeats frames.

    Raises:
      ValueError: an argument is below 1.
    """
    _check_lengths(num_video_frames, num_frames)
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * num_video_frames // (2 * num_frames)


def _num_offsets(num_video_frames: int, num_frames: int, stride: int) -> int:
    """How many first frames leave room for num_frames * stride frames; zero or less in a short video."""
    _check_lengths(num_video_frames, num_frames, stride)
    return num_video_frames - num_frames * stride + 1


def _check_lengths(num_video_frames: int, num_frames: int, stride: int = 1) -> None:
    if min(num_video_frames, num_frames, stride) < 1:
        raise ValueError(
            "a clip needs at least one video frame, one clip frame and stride 1, got "
            f"num_video_frames={num_video_frames}, num_frames={num_frames}, stride={stride}"
        )


def _clip_from(offset: int, num_video_frames: int, num_frames: int, stride: int) -> Int64[np.ndarray, "T"]:
    last_step = max((num_video_frames - 2 - offset) // stride, 0)
    return offset + stride * np.minimum(np.arange(num_frames, dtype=np.int64), last_step)
