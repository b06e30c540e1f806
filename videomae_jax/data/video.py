"""Read and write video files with PyAV: the only file of this package that touches FFmpeg."""

import io
import os
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import pairwise, takewhile
from operator import attrgetter, itemgetter
from typing import NamedTuple, Self

import av
import av.filter
import numpy as np
from av.format import Flags
from jaxtyping import Float64, UInt8

from videomae_jax.data import mpeg4
from videomae_jax.data.frames import Frames, VideoReadError

# Their bitstreams say of each frame whether others refer to it, and FFmpeg leaves out without a trace those that nobody
# refers to. Others do not qualify: HEVC's flag is about one temporal layer only, VP8 and VP9 carry probabilities and
# segment maps over from every frame, and dav1d (AV1) takes the setting only when it is opened.
_CODECS_THAT_SKIP = {"h264", "mpeg4", "mpeg1video", "mpeg2video"}

_WORTH_A_SEEK = 16  # frames that need not be decoded


class Limits(NamedTuple):
    """What a file from strangers must keep to. What exceeds them is an error before it costs time or memory.

    Attributes:
      containers: FFmpeg's names of those that are taken. Among the others are lists, by which FFmpeg would open
        whatever files and addresses they name.
      frames: at most, of the file.
      pixels: at most, of a frame.
    """

    containers: tuple[str, ...]
    frames: int
    pixels: int


class VideoFile(Frames):
    """Frames of one video file by their number in presentation order.

    Opening reads the packets once without decoding them (about 1 ms for a ten second clip), so `num_frames`
    counts the frames that are there, whatever the container's header claims. A file that was cut off has the frames
    that are whole, and a warning says so.

    Args:
      video: the file, or its content as bytes.
      limits: None for a file that is trusted.

    Attributes:
      path: the file; of bytes, their number.
      num_frames: the number of frames, at least 1.
      height, width: pixels of the upright frames. Before any is read, asking decodes the first.

    Raises:
      VideoReadError: the file does not exist, is no video, holds no frame, or exceeds a limit.
    """

    def __init__(self, video: str | os.PathLike | bytes, limits: Limits | None = None):
        self._size = self._timestamps = self._keys = self._number_at = None
        self._limits = limits
        self._content = video if isinstance(video, bytes) else None
        self.path = os.fspath(video) if self._content is None else f"a video of {len(self._content)} bytes"
        with self._ffmpeg_errors():
            self._open()
            self._index_packets()
            if self._timestamps is None:
                self._seek_to_start()
                self.num_frames = sum(1 for _ in self._decode(self._packets()))
            else:
                self.num_frames = len(self._timestamps)
        if self.num_frames == 0:
            raise VideoReadError(self.path, "its video stream holds no frame")

    def _open(self) -> None:
        # Titles and comments are often in odd encodings; they must not cost us the video.
        source = self.path if self._content is None else io.BytesIO(self._content)
        options = {"format_whitelist": ",".join(self._limits.containers)} if self._limits else {}
        self._container = av.open(source, options=options, metadata_errors="ignore")
        if not self._container.streams.video:
            raise VideoReadError(self.path, "it has no video stream")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            raise VideoReadError(self.path, "FFmpeg has no decoder for its codec")
        if self._limits:
            self._limit_pixels(self._limits.pixels)
        # Data loading runs one process a core; FFmpeg threads on top would only get in each other's way.
        self._stream.codec_context.thread_count = 1
        self._to_rgb, self._matrices = _ToRgb(), {}
        self._may_skip = self._stream.codec_context.name in _CODECS_THAT_SKIP

    def _limit_pixels(self, limit: int) -> None:
        context = self._stream.codec_context
        if context.width * context.height > limit:
            size = f"{context.width} x {context.height} pixels"
            raise VideoReadError(self.path, f"its frames have {size}, more than {limit:,} in all")
        # The header may lie, and frames may grow on the way. Twice, because FFmpeg counts its padding.
        context.options = {"max_pixels": str(2 * limit)}

    def close(self) -> None:
        self._container.close()

    @property
    def height(self) -> int:
        return self._height_and_width[0]

    @property
    def width(self) -> int:
        return self._height_and_width[1]

    @property
    def _height_and_width(self) -> tuple[int, int]:
        # Headers lie, and PyAV tells a rotation only with a frame.
        if self._size is None:
            next(self.frames([0]))
        return self._size

    @property
    def times(self) -> Float64[np.ndarray, "T"]:
        """Seconds from the first frame to each, increasing from 0.

        Where the file stores no times (AVI with B-frames, bare streams), all are as far apart as its header says,
        or 1/25 s.
        """
        if self._timestamps is None or self._number_at is not None:
            return np.arange(self.num_frames) / self._nominal_rate
        return (self._timestamps - self._timestamps[0]) * float(self._stream.time_base)

    @property
    def frame_rate(self) -> float:
        """Mean frames a second from the first to the last; of a single frame what the header says, or 25."""
        return float((self.num_frames - 1) / self.times[-1]) if self.num_frames > 1 else self._nominal_rate

    @property
    def _nominal_rate(self) -> float:
        return float(self._stream.average_rate or 25)

    def frames(self, indices: Sequence[int] | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """As of every `Frames`. Another `frames` or `read` of this object ends it: going on is an error then."""
        return self._images(list(range(self.num_frames)) if indices is None else self._checked(indices).tolist())

    def _images(self, wanted: list[int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Upright RGB of these frames, whose numbers increase."""
        self._reading = reading = object()
        missing, early, turn = set(wanted), {}, 0
        with self._ffmpeg_errors():
            for numbered in self._attempts(missing):
                for index, frame in numbered:
                    if index not in missing:
                        continue
                    missing.remove(index)
                    image = early[index] = _upright(self._to_rgb(frame), self._matrix(frame))
                    self._size = self._size or image.shape[:2]
                    while turn < len(wanted) and wanted[turn] in early:
                        yield early.pop(wanted[turn])
                        if self._reading is not reading:
                            raise ValueError(f"another reading of {self.path} began before this one was over")
                        turn += 1
                    if not missing:
                        return
        raise VideoReadError(
            self.path, f"{len(missing)} of {len(wanted)} frames do not decode, first frame {min(missing)}"
        )

    def _attempts(self, missing: set[int]) -> Iterator[Iterator[tuple[int, av.VideoFrame]]]:
        """(number, frame) of the missing frames, among others: ways to decode them, the cheapest first."""
        if self._timestamps is not None:
            for run in self._runs(missing):
                key = self._seek_to_key_frame(run[0])
                # A field of an interlaced frame may have its own packet, which belongs to no frame that we know of.
                frames = takewhile(lambda frame: not frame.interlaced_frame, self._decode(self._packets_for(run)))
                yield self._numbered(self._from_key_frame(frames, key))
            key = self._seek_to_key_frame(min(missing))
            yield self._numbered(self._from_key_frame(self._decode(self._packets()), key))
        # Some containers seek to a later key frame than asked. Decoding from the start always works.
        self._seek_to_start()
        yield self._numbered(self._decode(self._packets()))

    def _index_packets(self) -> None:
        """Finds the presentation timestamps of all frames and of key frames; None where they say nothing."""
        is_mpeg4 = self._stream.codec_context.name == "mpeg4"
        found = [_Packet.of(packet, is_mpeg4) for packet in self._container.demux(self._stream) if packet.size > 0]
        if self._limits and len(found) > self._limits.frames:
            raise VideoReadError(self.path, f"it has {len(found):,} frames, more than {self._limits.frames:,}")
        whole = [packet for packet in found if not packet.is_corrupt]
        self._warn_if_cut_off(found, len(whole))
        if is_mpeg4 and any(len(packet.pictures) > 1 for packet in whole):
            # A packet's second frame is decoded on the next one. Leaving that out would lose what the next one holds.
            self._may_skip = False
        # Some headers of MPEG-4 claim that there are no B-frames.
        has_b_frames = self._stream.codec_context.has_b_frames or (
            is_mpeg4 and any(coding_type == mpeg4.B for packet in whole for coding_type, _ in packet.pictures)
        )
        if self._container.format.name == "avi" and has_b_frames:
            # AVI stores decoding order only: with B-frames the timestamps FFmpeg makes up for it are wrong.
            header = self._stream.codec_context.extradata or b""
            numbers = mpeg4.frame_numbers(header, [packet.pictures for packet in whole]) if is_mpeg4 else None
            if numbers is None:
                return
            # Place holders of a packed stream bear a key frame's mark, too.
            whole = [
                packet._replace(time=number, is_key=packet.is_key and is_intra)
                for packet, (number, is_intra) in zip(whole, numbers, strict=True)
            ]
            self._number_at = {packet.place: packet.time for packet in whole}
        shown = [packet for packet in whole if not packet.is_hidden]
        timestamps = {packet.time for packet in shown}
        # Those of a bare stream change with a seek.
        is_bare = self._container.format.flags & Flags.no_timestamps.value
        if is_bare or None in timestamps or len(timestamps) < len(shown):
            return
        self._timestamps = np.array(sorted(timestamps), np.int64)
        # AVI seeks by its only time, that of decoding, and transport streams seek by it, too: asked for the time of
        # presentation, which is later, they would go to a packet after the key frame.
        by_decoding = self._number_at is not None or self._container.format.name == "mpegts"
        seek_time = attrgetter("decoding_time" if by_decoding else "time")
        self._keys = sorted((packet.time, seek_time(packet)) for packet in shown if packet.is_key)
        if whole and not (whole[0].is_key and whole[0].time == min(packet.time for packet in whole)):
            # Cut from the middle of a broadcast: what refers to frames before the cut never decodes. Only trying tells.
            self._seek_to_start()
            self._timestamps = self._timestamps[sorted({n for n, _ in self._numbered(self._decode(self._packets()))})]

    def _warn_if_cut_off(self, found: list["_Packet"], whole: int) -> None:
        """Warns of damaged frames, and of fewer than MP4's table lists or than last as long as Matroska promises."""
        listed = self._stream.frames if "mp4" in self._container.format.name else 0
        expected = max(len(found), listed)
        end = max(((packet.time or 0) + packet.duration for packet in found), default=0)
        seconds = float(end * self._stream.time_base)
        promised = self._stream.metadata.get("DURATION", "") if "matroska" in self._container.format.name else ""
        if whole < expected:
            what = f"{whole} of {expected} frames are whole and count"
        elif seconds + 0.5 < _seconds(promised):
            what = f"it ends after {seconds:.1f} of {_seconds(promised):.1f} s"
        else:
            return
        warnings.warn(f"{self.path} is cut off or damaged: {what}", stacklevel=4)

    def _runs(self, numbers: set[int]) -> list[list[int]]:
        """Increasing frame numbers, cut where it is quicker to go on from a later key frame."""
        runs = []
        for number in sorted(numbers):
            key_time, _ = self._keys[max(self._key_before(number), 0)] if self._keys else (self._timestamps[0], None)
            key = int(np.searchsorted(self._timestamps, key_time))
            if not runs or key - runs[-1][-1] > _WORTH_A_SEEK:
                runs.append([])
            runs[-1].append(number)
        return runs

    def _key_before(self, number: int) -> int:
        """The place in the list of key frames of the last one at or before a frame; -1 where there is none."""
        return bisect_right(self._keys, self._timestamps[number], key=itemgetter(0)) - 1

    def _seek_to_key_frame(self, first: int) -> int | None:
        """To the last key frame at or before frame `first`. Returns its time; None where that is the start."""
        key = self._key_before(first)
        if key <= 0:
            self._seek_to_start()
            return None
        time, seek_time = self._keys[key]
        self._container.seek(seek_time, stream=self._stream)
        return time

    def _seek_to_start(self) -> None:
        try:
            self._container.seek(0, stream=self._stream)
        except av.error.FFmpegError:  # a bare stream without container cannot seek
            self.close()
            self._open()

    def _packets(self) -> Iterator[av.Packet]:
        """The packets from here on, all to be decoded."""
        self._stream.codec_context.skip_frame = "DEFAULT"
        # Half-way and not closed, PyAV's generator leaks a packet: gigabytes in a long run.
        with closing(self._container.demux(self._stream)) as packets:
            for packet in packets:
                # An empty packet would tell the decoder that the stream ends; a corrupt one is a cut-off last frame.
                if packet.size > 0 and not packet.is_corrupt:
                    if self._number_at is not None:
                        packet.pts = self._number_at.get(packet.pos)
                    yield packet

    def _packets_for(self, needed: list[int]) -> Iterator[av.Packet]:
        """The packets from here to the last of the needed frames, in decoding order.

        The decoder leaves out frames that are neither needed nor referred to: often half of them.
        """
        timestamps = frozenset(self._timestamps[needed].tolist())
        context, unsent = self._stream.codec_context, set(timestamps)
        for packet in self._packets():
            if self._may_skip:
                context.skip_frame = "DEFAULT" if packet.pts in timestamps else "NONREF"
            yield packet
            unsent.discard(packet.pts)
            if not unsent:
                return

    def _decode(self, packets: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
        for packet in packets:
            yield from packet.decode()
        # The decoder still holds back the frames it delayed to put B-frames in order.
        yield from self._stream.decode(None)

    def _from_key_frame(self, frames: Iterator[av.VideoFrame], time: int | None) -> Iterator[av.VideoFrame]:
        """The frames, if the key frame of this time is one to the decoder, too; None for no such frame.

        H.264 with periodic intra refresh has none but the first. Containers mark the frames at which a refresh begins,
        and what FFmpeg decodes from there on may be wrong without a word.
        """
        for frame in frames:
            if time is not None and frame.pts is not None and frame.pts >= time:
                if not frame.key_frame and self._stream.codec_context.name == "h264":
                    return
                time = None
            yield frame

    def _numbered(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """By their time; where times say nothing, frames must be all from the first on."""
        if self._timestamps is None:
            yield from enumerate(frames)
            return
        for frame in frames:
            if frame.pts is None:
                continue
            index = int(np.searchsorted(self._timestamps, frame.pts))
            if index < len(self._timestamps) and self._timestamps[index] == frame.pts:
                yield index, frame

    def _matrix(self, frame: av.VideoFrame) -> tuple[int, ...] | None:
        """The display matrix. It is looked up once for each rotation.

        Asking PyAV for `side_data` ties a frame into a cycle of references, and keeps its pixels until Python next
        collects garbage, which it seldom does beside a large program.
        """
        if frame.rotation not in self._matrices:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[frame.rotation] = None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())
        return self._matrices[frame.rotation]

    @contextmanager
    def _ffmpeg_errors(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise VideoReadError(self.path, f"{type(error).__name__}: {error.strerror}") from error
        except IndexError as error:  # by PyAV, of a packet whose stream the header does not have
            raise VideoReadError(self.path, f"its packets are damaged ({error})") from error


def read_video(path: str | os.PathLike | bytes, indices: Sequence[int] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """Reads frames of a video file, upright, in RGB, values 0 to 255.

    The values are those of the `ffmpeg` command. A file that was cut off gives the whole frames it has, and a warning.

    Args:
      path: the video file, or its content as bytes.
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
        # The file is a function of its arguments: x264's output depends on the thread count, and the macroblock tree
        # of small frames on what was in memory before (seen below 128 pixels).
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf)} | ({"x264-params": "mbtree=0"} if min(height, width) < 128 else {})
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def encode_h264(frames: Sequence[UInt8[np.ndarray, "H W 3"]], *, crf: int) -> bytes:
    """A short MP4 file made for fast random access: H.264, yuv420p, a key frame every 16, quick to decode.

    Args:
      frames: RGB values 0 to 255, all of one size; H and W even.
      crf: as in `write_video`.
    """
    height, width, _ = frames[0].shape
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf), "g": "16", "bf": "0", "tune": "fastdecode", "preset": "veryfast"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return content.getvalue()


class _Packet(NamedTuple):
    """What a packet tells without being decoded, times in the stream's unit."""

    time: int | None  # of presentation
    decoding_time: int | None
    place: int | None  # bytes from the beginning of the file
    duration: int
    is_key: bool
    is_hidden: bool  # by an edit list
    is_corrupt: bool  # cut off
    pictures: tuple[tuple[int, int], ...]  # of MPEG-4 alone, by `mpeg4.pictures`

    @classmethod
    def of(cls, packet: av.Packet, is_mpeg4: bool) -> Self:
        flags = packet.is_keyframe, packet.is_discard, packet.is_corrupt
        pictures = mpeg4.pictures(bytes(packet)) if is_mpeg4 else ()
        return cls(packet.pts, packet.dts, packet.pos, packet.duration or 0, *flags, pictures)


def _seconds(clock: str) -> float:
    """Seconds of "HH:MM:SS.fraction", 0 where it is none."""
    try:
        hours, minutes, seconds = map(float, clock.split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


class _ToRgb:
    """Converts frames as the `ffmpeg` command does: with its filters, on one thread.

    PyAV's own `VideoFrame.to_ndarray(format="rgb24")` scales colour bilinearly and sets up a converter, with threads on
    all cores, for each frame.
    """

    def __init__(self):
        self._kind, self._graph = None, None

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """A view of FFmpeg's memory, which lives as long as the view."""
        kind = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
        if kind != self._kind:
            self._kind, self._graph = kind, self._build(frame)
        self._graph.push(frame)
        (plane,) = self._graph.pull().planes
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[: frame.height, : 3 * frame.width].reshape(frame.height, frame.width, 3)

    @staticmethod
    def _build(frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        filters = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
            ),
            graph.add("scale", "threads=1"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        for source, target in pairwise(filters):
            source.link_to(target)
        graph.configure()
        return graph


def _upright(image: UInt8[np.ndarray, "H W 3"], matrix: tuple[int, ...] | None) -> UInt8[np.ndarray, "h w 3"]:
    """Turned and mirrored as the display matrix says, to the nearest quarter turn."""
    if matrix is None:
        return image
    # The pixel (x, y) is shown at (a x + c y, b x + d y); the other numbers shift and project.
    a, b, _, c, d = matrix[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
