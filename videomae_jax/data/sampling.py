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


def dense_clip(
    num_video_frames: int, num_frames: int, stride: int, rng: np.random.Generator | None = None
) -> Int64[np.ndarray, "T"]:
    """A clip of T = `num_frames` frames spread over `num_frames * stride` frames: fine-tuning on Kinetics, UCF, HMDB.

    The frames are a little more than `stride` apart, for the last one is the window's last. The window never reaches
    the video's last frame. A video of the window's length or less is spread over its own length, by `stride`, and then
    repeats its last frame.

    Args:
      rng: draws the place of the window; None takes the middle. The original draws it for validation too.

    Raises:
      ValueError: a number is below 1.

    Source: kinetics.py:252-272 of the original, `VideoClsDataset.loadvideo_decord`.
    """
    _check_lengths(num_video_frames, num_frames, stride)
    window = num_frames * stride
    num_starts = num_video_frames - window
    if num_starts <= 0:
        spread = np.linspace(0, num_video_frames, num_video_frames // stride)
        times = np.pad(spread, (0, num_frames - len(spread)), constant_values=num_video_frames)
        return np.minimum(times, num_video_frames - 1).astype(np.int64)
    start = (num_starts - 1) // 2 if rng is None else int(rng.integers(num_starts))
    end = start + window
    return np.minimum(np.linspace(start, end, num_frames), end - 1).astype(np.int64)


def uniform_clip(
    num_video_frames: int, num_frames: int, rng: np.random.Generator | None = None
) -> Int64[np.ndarray, "T"]:
    """A clip of the whole video, one frame from each of T = `num_frames` equal parts: fine-tuning on SSv2.

    The parts have whole lengths, so that up to T - 1 frames at the end are never used. A video of fewer than T frames
    gives its first frame T times.

    Args:
      rng: draws the frame of each part; None takes the middle ones. The original draws them for validation too.

    Raises:
      ValueError: a number is below 1.

    Source: ssv2.py of the original, `SSVideoClsDataset.loadvideo_decord`. Its case of videos that are too short for
    the parts but longer than the clip never occurs.
    """
    _check_lengths(num_video_frames, num_frames)
    length = num_video_frames // num_frames
    if length == 0:
        return np.zeros(num_frames, np.int64)
    within = (length - 1) // 2 if rng is None else rng.integers(length, size=num_frames)
    return length * np.arange(num_frames, dtype=np.int64) + within


def dense_views(num_video_frames: int, num_frames: int, stride: int, num_segments: int) -> Int64[np.ndarray, "S T"]:
    """S = `num_segments` clips of T = `num_frames` frames, `stride` apart: tests on Kinetics, UCF, HMDB.

    The first begins with the video and the last ends with it, as far as strides from the first frame get. A short
    video repeats the last of those frames; its clips are all alike.

    Raises:
      ValueError: a number is below 1.

    Source: kinetics.py:137-156 and 243-249 of the original. It divides by zero for one segment; we take the middle.
    """
    _check_lengths(num_video_frames, num_frames, stride, num_segments)
    strided = np.arange(0, num_video_frames, stride, dtype=np.int64)
    spare = max(len(strided) - num_frames, 0)
    segments = np.arange(num_segments)
    starts = (segments * (spare / (num_segments - 1))).astype(np.int64) if num_segments > 1 else np.array([spare // 2])
    steps = starts[:, None] + np.arange(num_frames)
    return strided[np.minimum(steps, len(strided) - 1)]


def dense_windows(num_video_frames: int, num_frames: int, stride: int, hop: int) -> Int64[np.ndarray, "S T"]:
    """Clips of T = `num_frames` frames, `stride` apart, one after the other over a whole video.

    Each stands for the T * stride frames from its first one on. The first begins with the video, each of the others
    `hop` frames after the one before, as long as the video has its T. Where that leaves frames at the end, one more
    clip, which follows sooner, ends with the video's last frame. A short video is one clip, which repeats that frame.

    Raises:
      ValueError: a number is below 1.
    """
    _check_lengths(num_video_frames, num_frames, stride)
    if hop < 1:
        raise ValueError(f"windows must be at least one frame apart, got hop={hop}")
    last = max(num_video_frames - 1 - stride * (num_frames - 1), 0)
    starts = np.arange(0, last + 1, hop, dtype=np.int64)
    if starts[-1] + stride * num_frames < num_video_frames:
        starts = np.append(starts, last)
    return np.minimum(starts[:, None] + stride * np.arange(num_frames), num_video_frames - 1)


def uniform_views(num_video_frames: int, num_frames: int, num_segments: int) -> Int64[np.ndarray, "S T"]:
    """S = `num_segments` clips of the whole video, T = `num_frames` equal ticks apart: tests on SSv2.

    Each clip begins 1/S of a tick after the one before it, the first with the video; a short video repeats frames.

    Raises:
      ValueError: a number is below 1.

    Source: ssv2.py of the original, which knows S <= 2; its clips are ours.
    """
    _check_lengths(num_video_frames, num_frames, num_segments=num_segments)
    tick = num_video_frames / num_frames
    starts = tick * np.arange(num_segments) / num_segments
    return (starts[:, None] + tick * np.arange(num_frames)).astype(np.int64)


def _num_offsets(num_video_frames: int, num_frames: int, stride: int) -> int:
    """How many first frames leave room for num_frames * stride frames; zero or less in a short video."""
    _check_lengths(num_video_frames, num_frames, stride)
    return num_video_frames - num_frames * stride + 1


def _check_lengths(num_video_frames: int, num_frames: int, stride: int = 1, num_segments: int = 1) -> None:
    if min(num_video_frames, num_frames, stride, num_segments) < 1:
        raise ValueError(
            "a clip needs at least one video frame, one clip frame, stride 1 and one segment, got "
            f"num_video_frames={num_video_frames}, num_frames={num_frames}, stride={stride}, "
            f"num_segments={num_segments}"
        )


def _clip_from(offset: int, num_video_frames: int, num_frames: int, stride: int) -> Int64[np.ndarray, "T"]:
    last_step = max((num_video_frames - 2 - offset) // stride, 0)
    return offset + stride * np.minimum(np.arange(num_frames, dtype=np.int64), last_step)
