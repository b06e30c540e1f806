"""One file of a prepared data set: a pure function of the videos, the options and its number.

What a run needs and leaves beside the data set is in the folder `prepare` in it, which all that write shards see: the
plan, and for each finished shard a JSON file with its videos.
"""

import json
import os
import pickle
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float64, Int64, UInt8

from videomae_jax.data.annotations import Classes
from videomae_jax.data.frames import Frames, VideoReadError
from videomae_jax.data.prepared import Codec, serialize_record
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import encode_h264

MAX_IN_MEMORY = 2**26  # bytes of a video's encoded records; a longer one waits on disk until its last frame is read


@dataclass(frozen=True)
class Options:
    """How videos are stored.

    Attributes:
      codec: `jpeg` or `h264`.
      short_side: pixels; frames that are smaller stay as they are.
      quality: of JPEG, 1 to 100, larger is better; or the constant rate factor of H.264, 0 to 51, smaller is better.
      fps: frames a second, where a video has more; None keeps all.
      max_seconds: where longer videos end; None keeps all.
      frames_per_record: a clip reads whole records, and decodes what it needs of them.
      videos_per_shard: videos of one file.
    """

    codec: Codec
    short_side: int
    quality: int
    fps: float | None
    max_seconds: float | None
    frames_per_record: int
    videos_per_shard: int


@dataclass(frozen=True)
class Plan:
    """What to write.

    Attributes:
      name: of the data set.
      options: how.
      class_names: of all splits.
      sources: the videos, by split.
      ids: their names in the data set, by split.
    """

    name: str
    options: Options
    class_names: Classes
    sources: Mapping[str, VideoSource]
    ids: Mapping[str, tuple[str, ...]]

    def shards(self, folder: str) -> list["Shard"]:
        return [
            Shard(folder, split, number)
            for split, source in self.sources.items()
            for number in range(self.num_shards(source))
        ]

    def num_shards(self, source: VideoSource) -> int:
        return -(-len(source) // self.options.videos_per_shard)

    def videos(self, shard: "Shard") -> Int64[np.ndarray, "v"]:
        """The indices of a shard's videos, in its order."""
        source = self.sources[shard.split]
        return _shuffled(len(source), self.num_shards(source))[shard.number]

    def file_name(self, shard: "Shard") -> str:
        count = self.num_shards(self.sources[shard.split])
        return f"{self.name}-{shard.split}.array_record-{shard.number:05d}-of-{count:05d}"


class Shard(NamedTuple):
    folder: str
    split: str
    number: int

    @property
    def report_file(self) -> Path:
        return work_folder(self.folder) / f"{self.split}-{self.number:05d}.json"

    def is_written(self, file_name: str) -> bool:
        """Whether its report and its file are there, and the file is as long as the report says."""
        file = Path(self.folder, file_name)
        return self.report_file.exists() and file.exists() and file.stat().st_size == read_report(self)[2]


class Stored(NamedTuple):
    """A video that was written: its name, label (-1 for none), frames, and stride (0 for none)."""

    id: str
    label: int
    num_frames: int
    stride: int


class Broken(NamedTuple):
    path: str
    reason: str


def work_folder(folder: str | os.PathLike) -> Path:
    return Path(folder, "prepare")


def write_plan(folder: str, plan: Plan) -> None:
    write_atomically(work_folder(folder) / "plan.pickle", pickle.dumps(plan))


@lru_cache
def _shuffled(num_videos: int, num_shards: int) -> list[Int64[np.ndarray, "v"]]:
    # Sources come sorted by class; mixed, shards are alike in size, and a part of them is a sample of the whole.
    return np.array_split(np.random.default_rng(0).permutation(num_videos), num_shards)


@lru_cache(maxsize=1)
def _read_plan(folder: str, version: float) -> Plan:
    return pickle.loads((work_folder(folder) / "plan.pickle").read_bytes())


def write_shard(
    shard: Shard, unreadable: Mapping[int, str] | None = None, at_video: Callable[[int], None] = lambda video: None
) -> None:
    """Writes a shard and then its report, each whole or not at all.

    Args:
      shard: which one.
      unreadable: why not to read some of the videos, by their place in the shard.
      at_video: called with each video's place in the shard before it is read.

    Raises:
      OSError: it cannot be written.
    """
    plan = _read_plan(shard.folder, os.path.getmtime(work_folder(shard.folder) / "plan.pickle"))
    source, options = plan.sources[shard.split], plan.options
    name = plan.file_name(shard)
    # A process that an earlier run left behind may still be writing the same shard.
    temporary = work_folder(shard.folder) / f"{name}.{uuid.uuid4().hex}.tmp"
    stored, broken = [], []
    writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
    try:
        for place, index in enumerate(plan.videos(shard).tolist()):
            video_id = plan.ids[shard.split][index]
            at_video(place)
            # A video that breaks half-way leaves nothing behind.
            with tempfile.SpooledTemporaryFile(MAX_IN_MEMORY, dir=work_folder(shard.folder)) as spool:
                try:
                    if reason := (unreadable or {}).get(place):
                        raise VideoReadError(source.paths[index], reason)
                    video, label = source.open(index)
                    with video:
                        num_frames = _spool(video, video_id, label if plan.class_names else None, options, spool)
                except VideoReadError as error:
                    broken.append(Broken(error.path, error.reason))
                    continue
                except OSError:  # the disk is full
                    raise
                except Exception as error:  # whatever one file does must not end the run
                    broken.append(Broken(source.paths[index], f"{type(error).__name__}: {error}"))
                    continue
                for record in _unspool(spool):
                    writer.write(record)
            stored.append(Stored(video_id, label, num_frames, source.stride(index) or 0))
    finally:
        writer.close()
    _sync(temporary)
    os.replace(temporary, Path(shard.folder, name))
    _sync(shard.folder)
    report = {"stored": stored, "broken": broken, "bytes": os.path.getsize(Path(shard.folder, name))}
    write_atomically(shard.report_file, json.dumps(report).encode())


def read_report(shard: Shard) -> tuple[list[Stored], list[Broken], int]:
    """What a finished shard holds, what could not be read, and its size in bytes."""
    report = json.loads(shard.report_file.read_bytes())
    return [Stored(*row) for row in report["stored"]], [Broken(*row) for row in report["broken"]], report["bytes"]


def kept_frames(
    times: Float64[np.ndarray, "T"], frame_rate: float, fps: float | None, max_seconds: float | None
) -> Int64[np.ndarray, "t"]:
    """Which frames of a video to store: at `fps`, the last one shown at or before each moment.

    Args:
      times: when each frame is shown, in seconds.
      frame_rate: the video's frames a second; it is never raised.
      fps, max_seconds: as in `Options`.

    Returns:
      Frame numbers, never decreasing: where frames lie further apart than 1 / fps they repeat.
    """
    # Times are rounded to the ticks of a clock, of 1 ms in Matroska.
    shown = times - times[0] + 1e-6
    kept = np.arange(len(times))
    if fps is not None and fps < frame_rate:
        moments = np.arange(int(shown[-1] * fps) + 1) / fps
        kept = np.searchsorted(shown, moments + 2e-6, side="right") - 1
        shown = moments + 1e-6
    return kept if max_seconds is None else kept[shown < max_seconds]


def shrink(frame: UInt8[np.ndarray, "H W 3"], options: Options) -> UInt8[np.ndarray, "h w 3"]:
    """The frame at the short side of the options, for H.264 with even sides."""
    sides = np.array(frame.shape[:2])
    target = sides if sides.min() <= options.short_side else np.rint(sides * options.short_side / sides.min())
    if options.codec == "h264":
        target = np.maximum(target // 2 * 2, 2)
    if (0 <= sides - target).all() and (sides - target <= 1).all():
        return frame[: int(target[0]), : int(target[1])]  # a row or column less is better than blurred ones
    return cv2.resize(frame, (int(target[1]), int(target[0])), interpolation=cv2.INTER_AREA)


def encode_jpeg(frame: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()


def write_atomically(file: Path, content: bytes) -> None:
    """Writes a file whole, on disk, or not at all."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    _sync(temporary)
    os.replace(temporary, file)
    _sync(file.parent)


def _spool(video: Frames, video_id: str, label: int | None, options: Options, spool) -> int:
    """Writes the records of a video, each after its length; returns the number of frames in them."""
    first_frame, waiting = 0, []

    def write_record() -> None:
        frames = [encode_h264(waiting, crf=options.quality)] if options.codec == "h264" else waiting
        record = serialize_record(video_id, label, first_frame, frames)
        spool.write(len(record).to_bytes(8, "little"))
        spool.write(record)

    size = None
    for frame in _wanted_frames(video, options):
        if size not in (None, frame.shape):
            raise VideoReadError(video.path, "its frames change size on the way")
        size, small = frame.shape, shrink(frame, options)
        waiting.append(small if options.codec == "h264" else encode_jpeg(small, options.quality))
        if len(waiting) == options.frames_per_record:
            write_record()
            first_frame, waiting = first_frame + len(waiting), []
    if waiting:
        write_record()
    return first_frame + len(waiting)


def _unspool(spool) -> Iterator[bytes]:
    spool.seek(0)
    while length := spool.read(8):
        yield spool.read(int.from_bytes(length, "little"))


def _wanted_frames(video: Frames, options: Options) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    if options.fps is None and options.max_seconds is None:
        yield from video.frames()
        return
    if not hasattr(video, "times"):
        raise VideoReadError(video.path, "it has no times, which --fps and --max-seconds need")
    kept = kept_frames(video.times, video.frame_rate, options.fps, options.max_seconds)
    needed, repeats = np.unique(kept, return_counts=True)
    for frame, count in zip(video.frames(needed.tolist()), repeats.tolist(), strict=True):
        for _ in range(count):
            yield frame


def _sync(path: str | os.PathLike) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
