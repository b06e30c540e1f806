"""From an open video to the clips that a model gets: which frames, which crops. Picklable: workers run them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from videomae_jax.data.frames import Frames
from videomae_jax.data.sampling import center_clip, random_clip
from videomae_jax.data.transforms import center_crop_box, crop_resize, multi_scale_crop


class Clips(Protocol):
    """Makes S clips of a video, each of T frames of H x W pixels."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(S, T, H, W, 3)"""

    def __call__(self, video: Frames, stride: int | None, rng: np.random.Generator) -> UInt8[np.ndarray, "S T H W 3"]:
        """The clips.

        Args:
          video: where the frames come from.
          stride: the distance between them in the video, where the source says it; None for the recipe's.
          rng: the only randomness there is.

        Raises:
          VideoReadError: a frame cannot be read.
        """


@dataclass(frozen=True)
class PretrainingClips:
    """A random clip under random multi-scale crops.

    Attributes:
      num_frames, stride: T frames, `stride` video frames apart.
      views: S crops of the same decoded frames (V2's repeated augmentation): decoding is paid once.
      image_size: (H, W).
    """

    num_frames: int
    stride: int
    views: int
    image_size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.views, self.num_frames, *self.image_size, 3

    def __call__(self, video: Frames, stride: int | None, rng: np.random.Generator) -> UInt8[np.ndarray, "S T H W 3"]:
        frames = video.read(random_clip(video.num_frames, self.num_frames, stride or self.stride, rng))
        _, height, width, _ = frames.shape
        boxes = [multi_scale_crop(height, width, self.image_size, rng) for _ in range(self.views)]
        return np.stack([crop_resize(frames, box, self.image_size) for box in boxes])


@dataclass(frozen=True)
class CenterClip:
    """The middle clip, centrally cropped: for losses on held-out videos. Nothing is random.

    Attributes:
      num_frames, stride, image_size: as in `PretrainingClips`.
    """

    num_frames: int
    stride: int
    image_size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return 1, self.num_frames, *self.image_size, 3

    def __call__(
        self, video: Frames, stride: int | None, rng: np.random.Generator | None = None
    ) -> UInt8[np.ndarray, "1 T H W 3"]:
        frames = video.read(center_clip(video.num_frames, self.num_frames, stride or self.stride))
        _, height, width, _ = frames.shape
        return crop_resize(frames, center_crop_box(height, width, self.image_size), self.image_size)[None]
