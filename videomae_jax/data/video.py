"""Read and write video files with PyAV: the only file of this package that touches FFmpeg."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Self

import av
import numpy as np
from jaxtyping import UInt8


class VideoReadError(ValueError):
    """A video file that cannot be read as asked. Has `path` and `reason`; crosses process borders."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(os.fspath(path), reason)
        self.path, self.reason = self.args

    def __str__(self) -> str:
        return f"cannot read video {self.path}: {self.reason}"


class VideoFile:
    """Frames of one video file by their number in presentation order.

    Opening reads the packets once without decoding them (about 1 ms for a ten second clip), so `num_frames`
    counts the frames that are there, whatever the container's header claims.

    Attributes:
      path: the file.
      num_frames: the number of frames, at least 1.

    Raises:
      VideoReadError: the file does not exist, is no video, or holds no frame.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        with self._ffmpeg_errors():
            self._open()
            self._timestamps, self._key_timestamps = self._index_packets()
            if self._timestamps is None:
                self.num_frames = sum(1 for _ in self._decode_from_start())
            else:
                self.num_frames = len(self._timestamps)
        if self.num_frames == 0:
            raise VideoReadError(self.path, "its video stream holds no frame")

    def _open(self) -> None:
        # Titles and comments are often in odd encodings; they must not cost us the video.
        self._container = av.open(self.path, metadata_errors="ignore")
        if not self._container.streams.video:
            raise VideoReadError(self.path, "it has no video stream")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            raise VideoReadError(self.path, "FFmpeg has no decoder for its codec")
        # Data loading runs one process a core; FFmpeg threads on top would only get in each other's way.
        self._stream.codec_context.thread_count = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
        """Decodes frames as upright RGB, values 0 to 255.

        Args:
          indices: T >= 1 frame numbers in [0, num_frames), in any order, repeats allowed.

        Raises:
          ValueError: `indices` is empty or out of range.
          VideoReadError: one of these frames does not decode.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or wanted.size == 0:
            raise ValueError(f"indices must be a non-empty flat list of frame numbers, got {indices!r}")
        if wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"frames {wanted.min()} to {wanted.max()} asked of {self.path}, "
                f"which has frames 0 to {self.num_frames - 1}"
            )
        needed = set(wanted.tolist())
        with self._ffmpeg_errors():
            frames = self._collect(self._decode_from_key_frame(min(needed)), needed)
            if len(frames) < len(needed):
                # Some containers seek to a later key frame than asked. Decoding from the start always works.
                frames = self._collect(self._decode_from_start(), needed)
        if len(frames) < len(needed):
            missing = sorted(needed - frames.keys())
            raise VideoReadError(
                self.path, f"{len(missing)} of {len(needed)} frames do not decode, first frame {missing[0]}"
            )
        if len({frame.shape for frame in frames.values()}) > 1:
            raise VideoReadError(self.path, "its frames change size on the way")
        return np.stack([frames[index] for index in wanted.tolist()])

    def _index_packets(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Sorted presentation timestamps of all frames and of key frames; None where they say nothing."""
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in self._container.demux(self._stream)
            if _holds_frame(packet) and not packet.is_discard
        ]
        timestamps = {timestamp for timestamp, _ in packets}
        # AVI stores decoding order only: with B-frames the timestamps FFmpeg makes up for it are wrong.
        guessed = self._container.format.name == "avi" and self._stream.codec_context.has_b_frames
        if None in timestamps or len(timestamps) < len(packets) or guessed:
            return None, None
        keys = sorted(timestamp for timestamp, is_key in packets if is_key)
        return np.array(sorted(timestamps), np.int64), np.array(keys, np.int64)

    def _decode_from_key_frame(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) from the last key frame at or before frame `first`."""
        if self._timestamps is None:
            yield from self._decode_from_start()
            return
        key = np.searchsorted(self._key_timestamps, self._timestamps[first], side="right") - 1
        if key <= 0:
            yield from self._decode_from_start()
            return
        self._container.seek(int(self._key_timestamps[key]), stream=self._stream)
        yield from self._numbered_by_time()

    def _decode_from_start(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number, frame) from the first frame on."""
        try:
            self._container.seek(0, stream=self._stream)
        except av.error.FFmpegError:  # a bare stream without container cannot seek
            self.close()
            self._open()
        yield from enumerate(self._decode()) if self._timestamps is None else self._numbered_by_time()

    def _numbered_by_time(self) -> Iterator[tuple[int, av.VideoFrame]]:
        for frame in self._decode():
            if frame.pts is None:
                continue
            index = int(np.searchsorted(self._timestamps, frame.pts))
            if index < self.num_frames and self._timestamps[index] == frame.pts:
                yield index, frame

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self._stream):
            if _holds_frame(packet):
                yield from packet.decode()
        # The decoder still holds back the frames it delayed to put B-frames in order.
        yield from self._stream.decode(None)

    @staticmethod
    def _collect(numbered: Iterator[tuple[int, av.VideoFrame]], needed: set[int]) -> dict[int, np.ndarray]:
        """RGB of the needed frames, decoding no further than the last of them."""
        frames = {}
        for index, frame in numbered:
            if index in needed:
                frames[index] = _upright_rgb(frame)
                if len(frames) == len(needed):
                    break
        return frames

    @contextmanager
    def _ffmpeg_errors(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise VideoReadError(self.path, f"{type(error).__name__}: {error.strerror}") from error


def read_video(path: str | os.PathLike, indices: Sequence[int] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """Reads frames of a video file, upright, in RGB, values 0 to 255.

    Args:
      path: the video file.
      indices: frame numbers in presentation order, repeats allowed; None for all frames.

    Raises:
      ValueError: an index is out of range.
      VideoReadError: the file or one of these frames cannot be read.
    """
    with VideoFile(path) as video:
        return video.read(range(video.num_frames) if indices is None else indices)


def write_video(path: str | os.PathLike, frames: UInt8[np.ndarray, "T H W 3"], fps: float, *, crf: int = 18) -> None:
    """Writes RGB frames as H.264, yuv420p; the suffix of `path` picks the container.

    Args:
      frames: values 0 to 255; H and W even, because yuv420p stores colour at half the resolution.
      fps: frames a second.
      crf: x264's constant rate factor, 0 (largest file) to 51; 18 is visually lossless.

    Raises:
      ValueError: `frames` has another shape or type, or an odd height or width.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T H W 3], got {frames.dtype} {list(frames.shape)}")
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"yuv420p needs an even height and width, got {height}x{width}; crop one row or column")
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf)}
        # One thread makes the file a function of its arguments: x264's output depends on the thread count.
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _holds_frame(packet: av.Packet) -> bool:
    # An empty packet would tell the decoder that the stream ends; a corrupt one is a cut-off last frame.
    return packet.size > 0 and not packet.is_corrupt


def _upright_rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    quarter_turns = round(frame.rotation / 90)  # counter-clockwise, as np.rot90
    return np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)
