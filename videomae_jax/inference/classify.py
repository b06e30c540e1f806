"""The classes of a video, and of every part of a long one.

python -m videomae_jax.inference.classify CHECKPOINT VIDEO              # of the whole video
python -m videomae_jax.inference.classify CHECKPOINT VIDEO --windows    # along it, with times
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Float, UInt8

from videomae_jax.commands import faults_as_lines
from videomae_jax.data.clips import MultiViewClips
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.data.video import VideoFile
from videomae_jax.inference.opened import opened
from videomae_jax.inference.windows import AT_A_TIME, STRIDE_HINT, stride_of, windows_of
from videomae_jax.model.readout import class_scores
from videomae_jax.model.videomae import VideoMAEForVideoClassification


class Score(NamedTuple):
    """What a model says of one class.

    Attributes:
      label: its name.
      score: its probability; of a regression the number.
    """

    label: str
    score: float


class WindowScores(NamedTuple):
    """What a model says of a part of a video.

    Attributes:
      start, end: seconds from the video's first frame.
      scores: the best classes, the best one first.
    """

    start: float
    end: float
    scores: list[Score]


def classify(
    video: str | Path,
    model: VideoMAEForVideoClassification | str | Path,
    *,
    processor: VideoMAEImageProcessor | None = None,
    stride: int | None = None,
    segments: int = 5,
    crops: int = 3,
    top: int = 5,
) -> list[Score]:
    """The best classes of a whole video: the mean of what the model says of its views, as in published tests.

    Args:
      video: a file.
      model: a classifier, or where to load it from.
      processor: None for the one beside the checkpoint. A model that is loaded already does not bring its own.
      stride: frames of the video from one frame of a clip to the next; None for that of the processor, which may have
        none: clips are then spread over the whole video. The published Kinetics models were trained with 4.
      segments: clips over the video, in time.
      crops: of each clip, along the frames' longer side.
      top: how many classes, of those that there are.

    Raises:
      ValueError: a model without a classifier, a number below 1, a model alone: neither its processor nor a stride.
      VideoReadError: the file cannot be read.
    """
    is_alone = isinstance(model, nnx.Module) and processor is None
    model, processor = opened(model, processor, VideoMAEForVideoClassification)
    if is_alone and stride is None:
        raise ValueError(f"a model alone does not say how far apart the frames of its clips were: {STRIDE_HINT}")
    config, stride = model.config, processor.frame_stride if stride is None else stride
    views = MultiViewClips(config.num_frames, stride, segments, crops, tuple(config.clip_size[1:]))
    clips = np.empty(views.shape, np.uint8)
    with VideoFile(video) as file:
        views(file, None, np.random.default_rng(0), clips)
    return _best(model, _scores(model, clips).mean(axis=0), top)


def classify_windows(
    video: str | Path,
    model: VideoMAEForVideoClassification | str | Path,
    *,
    processor: VideoMAEImageProcessor | None = None,
    stride: int | None = None,
    hop: int | None = None,
    top: int = 5,
) -> Iterator[WindowScores]:
    """The best classes of every part of a video, from its first frame to its last; it may be longer than memory.

    Args:
      video, model, processor, top: those of `classify`.
      stride: frames of the video from one frame of a clip to the next; None for that of the model's processor.
      hop: frames of the video from one window to the next; None for windows that touch.

    Raises:
      ValueError: no stride, and what `classify` raises.
      VideoReadError: the file cannot be read.
    """
    model, processor = opened(model, processor, VideoMAEForVideoClassification)
    config = model.config
    with VideoFile(video) as file:
        batches = windows_of(file, config.num_frames, stride_of(stride, processor), hop, config.clip_size[1:])
        for start, end, clips in batches:
            for *times, scores in zip(start, end, _scores(model, clips), strict=True):
                yield WindowScores(*times, _best(model, scores, top))


def _scores(
    model: VideoMAEForVideoClassification, clips: UInt8[np.ndarray, "S T H W 3"]
) -> Float[np.ndarray, "S num_labels"]:
    some = (clips[first : first + AT_A_TIME] for first in range(0, len(clips), AT_A_TIME))
    return np.concatenate([np.asarray(class_scores(model, batch)) for batch in some])


def _best(model: VideoMAEForVideoClassification, scores: Float[np.ndarray, " num_labels"], top: int) -> list[Score]:
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")
    order = np.argsort(-scores, kind="stable")[:top]
    return [Score(model.config.id2label[number], float(scores[number])) for number in order.tolist()]


def main(arguments: list[str]) -> None:
    """The command; what the user can mend is one line."""
    parser = argparse.ArgumentParser(
        prog="python -m videomae_jax.inference.classify", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's folder, a file or a Hugging Face Hub id")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("--windows", action="store_true", help="classes along the video instead of its own")
    parser.add_argument("--stride", type=int, help="frames from one frame of a clip to the next (the checkpoint's)")
    parser.add_argument("--top", type=int, default=5, help="classes to name (5)")
    options = parser.parse_args(arguments)
    with faults_as_lines("classify"):
        how = dict(stride=options.stride, top=options.top)
        if not options.windows:
            for label, score in classify(options.video, options.checkpoint, **how):
                print(f"{score:.3f}  {label}")
            return
        for start, end, scores in classify_windows(options.video, options.checkpoint, **how):
            named = ", ".join(f"{label} {score:.3f}" for label, score in scores)
            print(f"{start:8.2f} s to {end:8.2f} s  {named}")


if __name__ == "__main__":
    main(sys.argv[1:])
