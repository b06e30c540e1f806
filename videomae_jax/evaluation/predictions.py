"""What a model says of a set of videos: what `multiview` measures and `scores` judges."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Int32


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of V videos.

    Attributes:
      paths: of the videos.
      labels: class indices, -1 where there is none; or for each video K zeros and ones (several classes), or K numbers.
      scores: of each of K classes the mean over a video's views of the softmax, or of the sigmoids where a video may
        have several classes; or the means of K numbers.
      readable: False where a video could not be read; its scores mean nothing.
      num_frames: of each video; 0 where it could not be read.
    """

    paths: tuple[str, ...]
    labels: Int32[np.ndarray, "V"] | Float32[np.ndarray, "V K"]
    scores: Float32[np.ndarray, "V K"]
    readable: Bool[np.ndarray, "V"]
    num_frames: Int32[np.ndarray, "V"]

    @property
    def labelled(self) -> Bool[np.ndarray, "V"]:
        """Where there is a label."""
        return self.labels >= 0 if self.labels.ndim == 1 else np.ones(len(self.labels), bool)
