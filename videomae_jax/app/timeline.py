"""The classes of a video and how they change along it."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.data.video import VideoFile
from videomae_jax.inference.classify import classify_windows
from videomae_jax.model.videomae import VideoMAEForVideoClassification


class Timeline(NamedTuple):
    """What a classifier says along a video.

    Attributes:
      overall: probabilities of the best classes, the best one first: the mean over the video's windows.
      seconds: from the video's first frame: when each window begins, and when the last one ends.
      scores: for each of the same classes, its probability in each window.
    """

    overall: dict[str, float]
    seconds: list[float]
    scores: dict[str, list[float]]


def timeline(
    video: Path, model: VideoMAEForVideoClassification, processor: VideoMAEImageProcessor, top: int = 5
) -> Timeline:
    """Classifies a video window by window. A model whose clips span whole videos sees the whole of this one.

    Args:
      video: a file.
      model: a classifier.
      processor: its processor.
      top: how many classes, of those that there are.

    Raises:
      VideoReadError: the file cannot be read.
    """
    stride = processor.frame_stride
    if stride is None:
        with VideoFile(video) as file:
            # From the first frame to the last one, so that there is one window.
            stride = max(1, math.ceil((file.num_frames - 1) / max(1, model.config.num_frames - 1)))
    windows = list(classify_windows(video, model, processor=processor, stride=stride, top=model.config.num_labels))
    along = {label: [dict(window.scores)[label] for window in windows] for label in model.config.id2label.values()}
    best = sorted(along, key=lambda label: np.mean(along[label]), reverse=True)[:top]
    return Timeline(
        overall={label: float(np.mean(along[label])) for label in best},
        seconds=[*(window.start for window in windows), windows[-1].end],
        scores={label: along[label] for label in best},
    )
