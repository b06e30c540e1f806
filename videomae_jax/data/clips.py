"""From an open video to the clips that a model gets: which frames, which crops. Picklable: workers run them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from einops import rearrange
from jaxtyping import Int64, UInt8

from videomae_jax.data.frames import Frames, VideoReadError
from videomae_jax.data.randaugment import RandAugment
from videomae_jax.data.sampling import center_clip, dense_clip, dense_views, random_clip, uniform_clip, uniform_views
from videomae_jax.data.transforms import (
    Box,
    center_crop_box,
    crop_resize,
    multi_scale_crop,
    random_resized_crop,
    view_crops,
)


class Clips(Protocol):
    """Makes S clips of a video, each of T frames of H x W pixels.

    It puts them where the batch is: copying a clip costs as much as decoding some of its frames.
    """

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(S, T, H, W, 3)"""

    def __call__(
        self, video: Frames, stride: int | None, rng: np.random.Generator, out: UInt8[np.ndarray, "S T H W 3"]
    ) -> None:
        """Fills `out`.

        Args:
          video: where the frames come from.
          stride: the distance between them in the video, where the source says it; None for the recipe's.
          rng: the only randomness there is.
          out: contiguous.

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

    def __call__(
        self, video: Frames, stride: int | None, rng: np.random.Generator, out: UInt8[np.ndarray, "S T H W 3"]
    ) -> None:
        indices = random_clip(video.num_frames, self.num_frames, stride or self.stride, rng)

        def draw(height: int, width: int) -> list[Box]:
            return [multi_scale_crop(height, width, self.image_size, rng) for _ in range(self.views)]

        _crop_each(video, indices, draw, out)


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
        self, video: Frames, stride: int | None, rng: np.random.Generator, out: UInt8[np.ndarray, "S T H W 3"]
    ) -> None:
        indices = center_clip(video.num_frames, self.num_frames, stride or self.stride)
        _crop_each(video, indices, lambda *size: [center_crop_box(*size, self.image_size)], out)


@dataclass(frozen=True)
class FinetuningClips:
    """A random clip, distorted and cropped at random for each view.

    Attributes:
      num_frames: T.
      stride: video frames from one frame of the clip to the next; None for clips of the whole video (SSv2).
      views: S ways to distort and crop the same decoded frames (repeated augmentation).
      image_size: (H, W).
      distort: what happens to the frames before they are cropped; None for nothing.
      crop: "resized" for random areas and aspects, "multi_scale" for the crops of pre-training.
    """

    num_frames: int
    stride: int | None
    views: int
    image_size: tuple[int, int]
    distort: RandAugment | None
    crop: Literal["resized", "multi_scale"] = "resized"

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.views, self.num_frames, *self.image_size, 3

    def __call__(
        self, video: Frames, stride: int | None, rng: np.random.Generator, out: UInt8[np.ndarray, "S T H W 3"]
    ) -> None:
        stride = stride or self.stride
        if stride is None:
            indices = uniform_clip(video.num_frames, self.num_frames, rng)
        else:
            indices = dense_clip(video.num_frames, self.num_frames, stride, rng)
        frames = video.read(indices)
        for view in out:
            distorted = frames if self.distort is None else self.distort(frames, rng)
            draw = random_resized_crop if self.crop == "resized" else multi_scale_crop
            box = draw(*frames.shape[1:3], self.image_size, rng)
            for frame, cropped in zip(distorted, view, strict=True):
                crop_resize(frame, box, self.image_size, antialias=self.crop != "resized", out=cropped)


@dataclass(frozen=True)
class MultiViewClips:
    """All the clips and crops of a video that a test averages over. Nothing is random.

    A frame that several clips share is decoded and resized once, and no more than one is held at its own size.

    Attributes:
      num_frames, stride, image_size: as in `FinetuningClips`.
      segments: clips over the video, in time.
      crops: of each clip, along the frames' longer side. S = segments * crops, crops of one clip side by side.
    """

    num_frames: int
    stride: int | None
    segments: int
    crops: int
    image_size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.segments * self.crops, self.num_frames, *self.image_size, 3

    def __call__(
        self, video: Frames, stride: int | None, rng: np.random.Generator, out: UInt8[np.ndarray, "S T H W 3"]
    ) -> None:
        stride = stride or self.stride
        if stride is None:
            indices = uniform_views(video.num_frames, self.num_frames, self.segments)
        else:
            indices = dense_views(video.num_frames, self.num_frames, stride, self.segments)
        needed, places = np.unique(indices, return_inverse=True)
        places = places.reshape(indices.shape)  # [segments T]
        out = rearrange(out, "(segments crops) T H W C -> segments T crops H W C", crops=self.crops)
        for position, frame in enumerate(video.frames(needed.tolist())):
            out[places == position] = view_crops(frame, self.crops, self.image_size)


def _crop_each(
    video: Frames,
    indices: Int64[np.ndarray, "T"],
    draw: Callable[[int, int], list[Box]],
    out: UInt8[np.ndarray, "S T H W 3"],
) -> None:
    """Cuts boxes, drawn for a height and a width, out of every frame when it is decoded, and keeps nothing else.

    Frame numbers may repeat and do not decrease.
    """
    needed, first, counts = np.unique(indices, return_index=True, return_counts=True)
    size = None
    for frame, start, count in zip(video.frames(needed.tolist()), first, counts, strict=True):
        if size is None:
            size, boxes = frame.shape, draw(*frame.shape[:2])
        elif frame.shape != size:
            raise VideoReadError(video.path, "its frames change size on the way")
        for box, clip in zip(boxes, out, strict=True):
            crop_resize(frame, box, out.shape[2:4], out=clip[start])
            clip[start + 1 : start + count] = clip[start]
