"""Videos of TFDS data sets: prepared ones by `videomae_jax.data.prepare`, and any other, one video a record."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, UInt8
from tensorflow_datasets.core.utils import file_utils

from videomae_jax.data.annotations import Classes
from videomae_jax.data.frames import Frames, VideoReadError
from videomae_jax.data.images import decode_image
from videomae_jax.data.labels import relabel
from videomae_jax.data.prepared import FORMAT, read_prepared
from videomae_jax.data.records import INFO_FILE, Record, RecordFiles, TfdsFolder
from videomae_jax.data.sources import VideoSource
from videomae_jax.labels import NO_LABEL

NAMED = "tfds:"


def open_tfds(path: str, class_names: Classes | None) -> VideoSource:
    """Opens a split of a TFDS data set in ArrayRecord files, without TensorFlow.

    Args:
      path: `tfds:NAME:SPLIT` for a data set in TFDS's own folder (`TFDS_DATA_DIR`), or `FOLDER:SPLIT`. SPLIT may be a
        slice such as `train[:90%]`, and be left out where there is one split.
      class_names: the known classes, in their order; None for the data set's own.

    Raises:
      ValueError: the data set or split is not there, files are missing or in another format, it has no videos, or a
        class that is not among `class_names`.
    """
    if path.startswith(NAMED):
        # Versions are written NAME:1.0.0, and are no split.
        place, split = re.fullmatch(r"(.+?)(?::([A-Za-z_]\w*(?:\[[^\]]*\])?))?", path.removeprefix(NAMED)).groups()
        folder = _find(path, place)
    elif os.path.isdir(path):
        folder, split = path, None
    else:
        folder, split = re.fullmatch(r"(.+):(\w+(?:\[[^\]]*\])?)", path).groups()
    opened = TfdsFolder(folder)
    metadata = opened.metadata()
    if metadata.get("format") == FORMAT:
        return read_prepared(path, opened, metadata, split, class_names)
    return _read_videos(path, opened, split, class_names)


class TfdsVideo(Frames):
    """Frames of one record, decoded when they are wanted. Gray ones become RGB.

    Args:
      path: what to call it.
      record: the features of the record.
      feature: the name of the one with the video.
      shape: [T H W C] where it holds pixels, None where pictures.
    """

    def __init__(self, path: str, record: Record, feature: str, shape: tuple[int, ...] | None):
        self.path = path
        self._pixels = None
        values = record[feature]
        if shape is None:
            self._pictures = values.bytes_list.value
            self.num_frames = len(self._pictures)
        else:
            content = b"".join(values.bytes_list.value)
            # TFDS writes the pixels as integers, or as bytes where the feature says so.
            flat = np.frombuffer(content, np.uint8) if content else np.array(values.int64_list.value, np.uint8)
            try:
                self._pixels = flat.reshape([side if side >= 0 else -1 for side in shape])
            except ValueError as error:
                raise VideoReadError(path, f"its {len(flat)} values do not have the shape {list(shape)}") from error
            self.num_frames = len(self._pixels)
        if self.num_frames == 0:
            raise VideoReadError(path, f"its feature {feature} holds no frame")

    def frames(self, indices: Sequence[int] | None = None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index in range(self.num_frames) if indices is None else indices:
            if self._pixels is not None:
                yield np.broadcast_to(self._pixels[index], (*self._pixels.shape[1:3], 3))
                continue
            try:
                yield decode_image(self._pictures[index])
            except ValueError as error:
                raise VideoReadError(self.path, f"frame {index}: {error}") from error

    def close(self) -> None:
        """Files stay open for the videos beside it."""


@dataclass(frozen=True, eq=False)
class TfdsSource(VideoSource):
    """Videos of a split of a TFDS data set. Labels are known when a video is opened.

    Attributes:
      folder, split: where the data set is, and the split's name.
      first: the number of the first record.
      feature, shape: as in `TfdsVideo`.
      label_feature: the feature with the label; None where there is none.
      renumbered: for each of the data set's own classes its index into `class_names`, and -1 at the end.
    """

    folder: str = ""
    split: str = ""
    first: int = 0
    feature: str = ""
    shape: tuple[int, ...] | None = None
    label_feature: str | None = None
    renumbered: Int32[np.ndarray, "K+1"] | None = None

    def open(self, index: int) -> tuple[TfdsVideo, int]:
        try:
            record = self._records[self.first + index]
        except OSError as error:
            raise VideoReadError(self.paths[index], str(error)) from error
        label = NO_LABEL
        if self.label_feature is not None:
            label = int(self.renumbered[record[self.label_feature].int64_list.value[0]])
        return TfdsVideo(self.paths[index], record, self.feature, self.shape), label

    def is_there(self, index: int) -> bool:
        return os.path.isfile(os.path.join(self.folder, INFO_FILE))

    @cached_property
    def _records(self) -> RecordFiles:
        return TfdsFolder(self.folder).records(self.split)

    def __getstate__(self) -> dict:
        # Open files stay here.
        return {name: value for name, value in vars(self).items() if name != "_records"}


def _find(path: str, name: str) -> str:
    """The folder of `set`, `set/config` or one of these with `:version`; without a version the newest."""
    # `tfds.builder` and its kind import TensorFlow for the feature `Video`.
    below, _, version = name.partition(":")
    data_dirs = [os.path.join(folder, below) for folder in map(os.fspath, file_utils.list_data_dirs())]
    for data_dir in data_dirs:
        there = [item for item in _folders(data_dir) if tfds.core.Version.is_valid(item) and version in ("", item)]
        if there:
            return os.path.join(data_dir, max(there, key=tfds.core.Version))
    configs = [f"{NAMED}{below}/{config}" for data_dir in data_dirs for config in _folders(data_dir)]
    if configs and "/" not in below and not version:
        raise ValueError(f"data path {path!r}: say which, {' or '.join(configs)}")
    raise ValueError(
        f"data path {path!r}: no TFDS data set {name} at {', '.join(data_dirs)}; prepare it, where TensorFlow is "
        f"installed, with tfds build {name} --file_format=array_record, or set TFDS_DATA_DIR"
    )


def _folders(parent: str) -> list[str]:
    return sorted(item.name for item in os.scandir(parent) if item.is_dir()) if os.path.isdir(parent) else []


def _read_videos(path: str, folder: TfdsFolder, split: str | None, class_names: Classes | None) -> TfdsSource:
    split_name, start, stop = folder.choose(split)
    folder.records(split_name)  # says so where files are missing
    feature, shape = _video_feature(path, folder)
    labels = [name for name, described in folder.features.items() if "classLabel" in described]
    label_feature = "label" if "label" in labels else labels[0] if len(labels) == 1 else None
    own_classes = folder.class_names(label_feature) if label_feature else ()
    prefix = path if split is not None else f"{path}:{split_name}"
    return TfdsSource(
        path,
        tuple(f"{prefix}/{number}" for number in range(start, stop)),
        None if label_feature else np.full(stop - start, NO_LABEL, np.int32),
        own_classes if class_names is None else class_names,
        folder=folder.folder,
        split=split_name,
        first=start,
        feature=feature,
        shape=shape,
        label_feature=label_feature,
        renumbered=relabel(path, own_classes, own_classes if class_names is None else class_names),
    )


def _video_feature(path: str, folder: TfdsFolder) -> tuple[str, tuple[int, ...] | None]:
    found = {}
    for name, described in folder.features.items():
        tensor = described.get("tensor", {})
        shape = tuple(int(side) for side in tensor.get("shape", {}).get("dimensions", ()))
        if "video" in described or "image" in described.get("sequence", {}).get("feature", {}):
            found[name] = None
        elif len(shape) == 4 and shape[-1] in (1, 3) and tensor["dtype"] == "uint8" and tensor["encoding"] != "zlib":
            found[name] = shape
    if len(found) != 1 and "video" not in found:
        raise ValueError(
            f"data path {path!r}: a TFDS data set needs one feature that is a video, a sequence of images or a uint8 "
            f"tensor [T H W 3] or [T H W 1]; it has {', '.join(found) or 'none'} among {', '.join(folder.features)}"
        )
    name = "video" if "video" in found else next(iter(found))
    return name, found[name]
