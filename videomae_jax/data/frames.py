"""A video as frames by number, whatever it is stored as: the interface of files, folders of pictures and records."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from jaxtyping import Int64, UInt8


class VideoReadError(ValueError):
    """A video, or a set of them, that cannot be read as asked. Has `path` and `reason`; crosses process borders."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(os.fspath(path), reason)
        self.path, self.reason = self.args

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.reason}"


class Frames(ABC):
    """Upright RGB frames of one video by their number in presentation order. Close it, or use it in a `with`.

    Attributes:
      path: what to call it in messages: a file, a folder or the place of a record.
      num_frames: the number of frames, at least 1.
    """

    path: str
    num_frames: int

    @abstractmethod
    def frames(self, indices: Sequence[int] | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Decodes one frame after the other and keeps none: for videos that are longer than memory.

        Args:
          indices: increasing frame numbers in [0, num_frames); None for all.

        Raises:
          VideoReadError: one of these frames does not decode.
        """

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """Decodes frames, values 0 to 255.

        Args:
          indices: T >= 1 frame numbers in [0, num_frames), in any order, repeats allowed.

        Raises:
          ValueError: `indices` is empty or out of range.
          VideoReadError: one of these frames does not decode, or they differ in size.
        """
        wanted = self._checked(indices)
        needed = np.unique(wanted)
        out = None
        for index, frame in zip(needed.tolist(), self.frames(needed.tolist()), strict=True):
            if out is None:
                out = np.empty((len(wanted), *frame.shape), np.uint8)
            if frame.shape != out.shape[1:]:
                raise VideoReadError(self.path, "its frames change size on the way")
            out[wanted == index] = frame
        return out

    @abstractmethod
    def close(self) -> None:
        """Lets go of whatever is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _checked(self, indices: Sequence[int]) -> Int64[np.ndarray, "T"]:
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or wanted.size == 0:
            raise ValueError(f"indices must be a non-empty flat list of frame numbers, got {indices!r}")
        if wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"frames {wanted.min()} to {wanted.max()} asked of {self.path}, "
                f"which has frames 0 to {self.num_frames - 1}"
            )
        return wanted
