"""Videos prepared for fast reading: a TFDS data set in ArrayRecord, in records of a few dozen frames.

A record holds consecutive frames of one video, as JPEG pictures or as one short H.264 file. The records of a video
follow each other, so the index in the metadata (id, label and number of frames of each video) says where a frame is,
and a clip reads only the records that hold its frames.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64, UInt8
from tensorflow_datasets.proto import tf_example_pb2

from videomae_jax.data.annotations import Classes
from videomae_jax.data.frames import Frames, VideoReadError
from videomae_jax.data.images import decode_jpeg
from videomae_jax.data.labels import relabel
from videomae_jax.data.records import INFO_FILE, RecordFiles, TfdsFolder
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoFile

Codec = Literal["jpeg", "h264"]
FORMAT = "videomae_jax 1"  # what the metadata of such a data set begins with


def record_features(codec: Codec, class_names: Classes) -> tfds.features.FeaturesDict:
    """What TFDS is told about a record; without classes it has no label."""
    features = {
        "id": tfds.features.Text(doc="of the video"),
        "first_frame": tfds.features.Scalar(np.int64, doc="the number in its video of the first frame here"),
    }
    if codec == "jpeg":
        # Not the feature `Video`, which is the same but cannot be described without TensorFlow.
        features["frames"] = tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"))
    else:
        features["frames"] = tfds.features.Tensor(shape=(), dtype=np.object_, doc="an MP4 file")
    if class_names:
        features["label"] = tfds.features.ClassLabel(names=class_names)
    return tfds.features.FeaturesDict(features)


def serialize_record(video_id: str, label: int | None, first_frame: int, frames: Sequence[bytes]) -> bytes:
    """A `tf.train.Example`, the same bytes on every machine.

    Args:
      video_id: of the video.
      label: its class, -1 where it has none; None in a data set without classes.
      first_frame: the number in the video of the first frame.
      frames: a JPEG picture each, or one MP4 file.
    """
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["id"].bytes_list.value.append(os.fsencode(video_id))
    feature["first_frame"].int64_list.value.append(first_frame)
    feature["frames"].bytes_list.value.extend(frames)
    if label is not None:
        feature["label"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


class PreparedVideo(Frames):
    """Frames of one video of a prepared data set. Only records with wanted frames are read, only these are decoded.

    Args:
      path: what to call it.
      video_id: what its records must say.
      num_frames: the number of its frames.
      records: those of its split.
      first_record: the number of the first that is its own.
      frames_per_record: the number of frames in each of them, but perhaps the last.
      codec: how they are stored.
    """

    def __init__(
        self,
        path: str,
        video_id: str,
        num_frames: int,
        records: RecordFiles,
        first_record: int,
        frames_per_record: int,
        codec: Codec,
    ):
        self.path, self.num_frames = path, num_frames
        self._id, self._records, self._first_record = video_id, records, first_record
        self._frames_per_record, self._codec = frames_per_record, codec

    def frames(self, indices: Sequence[int] | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        wanted = np.arange(self.num_frames) if indices is None else np.asarray(indices)
        chunks = wanted // self._frames_per_record
        for chunk in np.unique(chunks).tolist():
            first_frame = chunk * self._frames_per_record
            in_record = (wanted[chunks == chunk] - first_frame).tolist()
            stored = self._read_record(chunk, first_frame)
            try:
                if self._codec == "jpeg":
                    for index in in_record:
                        yield decode_jpeg(stored[index])
                else:
                    with VideoFile(stored[0]) as video:
                        yield from video.frames(in_record)
            except (IndexError, ValueError) as error:
                reason = error.reason if isinstance(error, VideoReadError) else error
                raise VideoReadError(self.path, f"its record of frame {first_frame}: {reason}") from error

    def _read_record(self, chunk: int, first_frame: int) -> Sequence[bytes]:
        try:
            record = self._records[self._first_record + chunk]
        except OSError as error:
            raise VideoReadError(self.path, str(error)) from error
        # A feature that is not there reads as an empty one.
        if list(record["id"].bytes_list.value) != [os.fsencode(self._id)] or (
            list(record["first_frame"].int64_list.value) != [first_frame]
        ):
            raise VideoReadError(
                self.path,
                f"its record of frame {first_frame} is another one; the data set's files do not belong together",
            )
        return record["frames"].bytes_list.value

    def close(self) -> None:
        """Files stay open for the videos beside it."""


@dataclass(frozen=True, eq=False)
class PreparedSource(VideoSource):
    """The videos of a split of a prepared data set.

    To another process it goes as its place alone, which is read again there.

    Attributes:
      folder: where the data set is.
      split: the split or a slice of it.
      prefix: what the paths begin with; the rest of each is its name in the data set.
      num_frames: of each video.
      first_records: the number of each video's first record.
      frames_per_record, codec: as in `PreparedVideo`.
    """

    folder: str = ""
    split: str | None = None
    prefix: str = ""
    num_frames: Int64[np.ndarray, "V"] | None = None
    first_records: Int64[np.ndarray, "V"] | None = None
    frames_per_record: int = 0
    codec: Codec = "jpeg"

    def open(self, index: int) -> tuple[PreparedVideo, int]:
        video = PreparedVideo(
            self.paths[index],
            self.paths[index].removeprefix(self.prefix),
            int(self.num_frames[index]),
            self._records,
            int(self.first_records[index]),
            self.frames_per_record,
            self.codec,
        )
        return video, self.label(index)

    def is_there(self, index: int) -> bool:
        return os.path.isfile(os.path.join(self.folder, INFO_FILE))

    @property
    def ids(self) -> tuple[str, ...]:
        """V names, unique in the split."""
        return tuple(path.removeprefix(self.prefix) for path in self.paths)

    @cached_property
    def _records(self) -> RecordFiles:
        folder = TfdsFolder(self.folder)
        return folder.records(folder.choose(self.split)[0])

    def __reduce__(self):
        return _reopen, (self.name, self.folder, self.split, self.class_names)


def read_prepared(
    name: str, folder: TfdsFolder, metadata: dict, split: str | None, class_names: Classes | None
) -> PreparedSource:
    """Opens a split of a prepared data set.

    Args:
      name: what the user called it.
      folder: the data set.
      metadata: its `metadata.json`.
      split: a split, or a slice of one in videos such as `train[:1000]`; None for the only one.
      class_names: the known classes, in their order; None for its own.

    Raises:
      ValueError: there is no such split, a label is not among `class_names`, or files and metadata do not fit together.
    """
    index = metadata["splits"]
    split_name, start, stop = folder.choose(split, {name: len(videos["ids"]) for name, videos in index.items()})
    videos, own_classes = index[split_name], tuple(metadata["class_names"])
    num_frames = np.array(videos["num_frames"], np.int64)
    records = -(-num_frames // metadata["frames_per_record"])
    stored = len(folder.records(split_name))
    if records.sum() != stored:
        raise ValueError(
            f"data set {folder.folder}: metadata.json tells of {records.sum()} records in the split {split_name}, "
            f"dataset_info.json of {stored}; they do not belong together, prepare it again"
        )
    labels = np.array(videos["labels"], np.int32)[start:stop]
    if class_names is not None:
        labels = relabel(name, own_classes, class_names)[labels]
    prefix = f"{name}/" if split is not None else f"{name}:{split_name}/"
    strides = videos["strides"]
    return PreparedSource(
        name,
        tuple(prefix + video_id for video_id in videos["ids"][start:stop]),
        labels,
        own_classes if class_names is None else class_names,
        None if strides is None else np.array(strides, np.int32)[start:stop],
        folder=folder.folder,
        split=split,
        prefix=prefix,
        num_frames=num_frames[start:stop],
        first_records=(np.cumsum(records) - records)[start:stop],
        frames_per_record=metadata["frames_per_record"],
        codec=metadata["codec"],
    )


def _reopen(name: str, folder: str, split: str | None, class_names: Classes) -> PreparedSource:
    opened = TfdsFolder(folder)
    return read_prepared(name, opened, opened.metadata(), split, class_names)
