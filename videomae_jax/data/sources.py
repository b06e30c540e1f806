"""Where videos and their labels come from: manifests, official annotations, folders, built-in clips, mixtures."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from videomae_jax.data import builtin
from videomae_jax.data.annotations import Classes, hmdb51_files, read_hmdb51, read_official
from videomae_jax.data.files import (
    VIDEO_SUFFIXES,
    Entry,
    csv_row,
    csv_values,
    is_video,
    read_lines,
    sorted_labels,
    videos_below,
)
from videomae_jax.data.frames import Frames
from videomae_jax.data.images import IMAGE_SUFFIXES, FrameFolder, is_image
from videomae_jax.data.manifests import is_integer, read_manifest
from videomae_jax.data.video import VideoFile

NO_LABEL = -1
_BUILTIN = "builtin:"
_TFDS = "tfds:"
_TFDS_SPLIT = re.compile(r":\w+(\[[^\]]*\])?$")  # `:train`, `:train[:90%]`
_NAMED = (_BUILTIN, _TFDS)  # how sources begin that are no places in the file system


@dataclass(frozen=True, eq=False)
class VideoSource:
    """Videos with labels, by index.

    Attributes:
      name: what the user called it, for messages.
      paths: V files, or folders of pictures, one a frame.
      labels: their classes as indices into `class_names`; -1 where there is no label. None: known when opened.
      class_names: names in the order of the training set.
      strides: distance between the frames of a clip, for each video; 0 where the recipe's holds; None for no video.
      spans: of folders of pictures the first one's number and how many; their number 0 for all; None for no video.
    """

    name: str
    paths: tuple[str, ...]
    labels: Int32[np.ndarray, "V"] | None
    class_names: Classes
    strides: Int32[np.ndarray, "V"] | None = None
    spans: Int32[np.ndarray, "V 2"] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> tuple[Frames, int]:
        """A video, to be closed, and its label.

        Raises:
          VideoReadError: it is not there, or cannot be read.
        """
        path, label = self.paths[index], int(self.labels[index])
        if not os.path.isdir(path):
            return VideoFile(path), label
        first, count = (0, 0) if self.spans is None else self.spans[index].tolist()
        return FrameFolder(path, (first, count) if count else None), label

    def stride(self, index: int) -> int | None:
        """The distance between the frames of a clip that goes with a video; None: the recipe's."""
        return None if self.strides is None else int(self.strides[index]) or None

    def digest(self) -> str:
        """16 hexadecimal digits that tell sets of videos apart: by names, labels, spans and strides, not by place."""
        labels = [""] * len(self) if self.labels is None else self.labels
        lines = [f"{Path(path).name} {label}" for path, label in zip(self.paths, labels, strict=True)]
        if self.labels is None:
            lines.append(Path(self.name).name)  # of a TFDS data set, whose videos are only numbered
        for more in (self.spans, self.strides):
            lines += [] if more is None else map(str, more.tolist())
        return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Mixture(VideoSource):
    """Sources one after the other. Classes are the same where their names are.

    Attributes:
      parts: the sources.
      renumbered: for each part its classes' indices into `class_names`, and -1 at the end.
    """

    parts: tuple[VideoSource, ...] = ()
    renumbered: tuple[Int32[np.ndarray, "K+1"], ...] = ()

    def open(self, index: int) -> tuple[Frames, int]:
        for part, renumbered in zip(self.parts, self.renumbered, strict=True):
            if index < len(part):
                video, label = part.open(index)
                return video, int(renumbered[label])
            index -= len(part)
        raise IndexError(index)


def open_source(path: str, class_names: Classes | None = None) -> VideoSource:
    """Opens a set of videos.

    Args:
      path: one of
        - a manifest: CSV whose header names a `path` and perhaps a `label` column (names or integers), or the lists of
          the original (`path label`) and of V2 (`path 0 -1`, `folder first count`, `folder count label`), where labels
          are integers; a path is a file or a folder of pictures, and relative ones start at the manifest's folder;
        - a mixture: CSV whose header names a `source` and perhaps a `stride` column: any of these, one a line, and the
          distance between the frames of their clips, empty for the recipe's;
        - an official annotation file as it is downloaded: a CSV file of Kinetics (`train.csv`), `train.json` or
          `validation.json` of Something-Something V2, `trainlist01.txt` or `testlist01.txt` of UCF101;
        - `FOLDER:1:train` or `FOLDER:1:test`: split 1 of HMDB51, whose `*_test_split1.txt` are in FOLDER;
        - a folder with one sub-folder for each class, or a folder of videos without classes; folders of numbered
          pictures are videos;
        - a data set that `videomae_jax.data.prepare` made, or any TFDS data set with videos, in ArrayRecord files:
          `FOLDER:SPLIT`, where SPLIT may be a slice such as `train[:90%]`, or `FOLDER` where it has one split; and
          `tfds:NAME:SPLIT` for one in the folder of TFDS (`TFDS_DATA_DIR`);
        - `builtin:train` or `builtin:val`.
      class_names: the classes of the training set, in its order, for every other set. None for the training
        set itself: names are sorted, integers stay as they are and get the names "0", "1", ..., and annotations
        that number their classes keep that order.

    Warns:
      UserWarning: videos of a Kinetics file are not there, and left out. It counts them and names the first.

    Raises:
      ValueError: nothing is there, something in it cannot be understood, a file is missing, or a label is not
        among `class_names`. The message names the place and the fix.
    """
    if path.startswith(_TFDS) or any(map(_is_tfds_folder, {path, _TFDS_SPLIT.sub("", path)})):
        # It builds on this file, and what it imports takes half a second.
        from videomae_jax.data.tfds_videos import open_tfds

        source = open_tfds(path, class_names)
        if len(source) == 0:
            raise ValueError(f"data set {path} has no videos")
        return source
    if path.startswith(_BUILTIN):
        entries, own_classes = read_manifest(builtin.manifest(path.removeprefix(_BUILTIN)))
        own_classes = builtin.CAMERA_MOVES
    elif not os.path.exists(path) and (hmdb51 := read_hmdb51(path)) is not None:
        entries, own_classes = hmdb51
    elif not os.path.exists(path):
        there = _TFDS_SPLIT.sub("", path)
        raise ValueError(
            f"data path {path!r} does not exist; give a manifest, a folder, builtin:train or builtin:val"
            + (f"; {there} is there, but no prepared data set with splits" if os.path.exists(there) else "")
        )
    elif os.path.isdir(path):
        entries = _list_folder(Path(path))
        # As everywhere, sorted folder names count the classes, also where the names are numbers.
        own_classes = sorted_labels(entries)
    elif is_video(path):
        raise ValueError(f"data path {path!r} is a single video; give the folder it lies in, or a manifest")
    elif (official := read_official(Path(path))) is not None:
        entries, own_classes = official
    elif _is_mixture(Path(path)):
        return _open_mixture(Path(path), class_names)
    else:
        entries, own_classes = read_manifest(Path(path))
    return _source(path, entries, own_classes if class_names is None else class_names)


def _is_tfds_folder(path: str) -> bool:
    # The second is that of an unfinished one, which has more to say than that it holds no videos.
    return any(os.path.isfile(os.path.join(path, file)) for file in ("dataset_info.json", "prepare/options.json"))


def _list_folder(folder: Path) -> list[Entry]:
    files = sorted(str(item) for item in folder.iterdir() if is_video(item.name) and item.is_file())
    folders = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    below = {item: videos_below(item) for item in folders}
    loose = files + [str(item) for item in folders if below[item] == [str(item)]]  # those are folders of pictures
    entries = [
        Entry(video, item.name, f"folder {item}")
        for item in folders
        for video in below[item]
        if below[item] != [str(item)]
    ]
    if loose and entries:
        raise ValueError(
            f"data folder {folder} has class folders and, beside them, {len(loose)} videos such as "
            f"{Path(loose[0]).name}; move these into a class folder, or use a manifest"
        )
    if not loose and not entries and (splits := hmdb51_files(folder)):
        raise ValueError(
            f"data folder {folder} has split files of HMDB51, {', '.join(sorted(splits))}; "
            f"say which and which part: {folder}:{min(splits)}:train or {folder}:{min(splits)}:test"
        )
    if not loose and not entries and any(is_image(item.name) for item in folder.iterdir()):
        raise ValueError(f"data folder {folder} has the pictures of a single video; give the folder it lies in")
    if not loose and not entries:
        raise ValueError(
            f"data folder {folder} has no videos, here or below, of {' '.join(sorted(VIDEO_SUFFIXES))}, "
            f"and no folders of numbered pictures, of {' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return entries or [Entry(video, None, f"folder {folder}") for video in loose]


def _is_mixture(file: Path) -> bool:
    columns = csv_values(read_lines(file)[0][1])
    return "source" in columns and "path" not in columns


def _open_mixture(file: Path, class_names: Classes | None) -> Mixture:
    (_, header), *numbered = read_lines(file)
    columns = csv_values(header)
    if not numbered:
        raise ValueError(f"mixture {file} has a header and no sources; add one line a source")
    parts, strides = [], []
    for number, line in numbered:
        row = csv_row(file, columns, number, line, required=("source",))
        stride = row.get("stride", "")
        if stride and not (stride.isascii() and stride.isdigit() and int(stride) > 0):
            raise ValueError(
                f"mixture {file}, line {number}: stride must be a positive integer or empty, got {stride!r}"
            )
        source = row["source"]
        place = source if source.startswith(_NAMED) else os.path.join(file.parent, source)
        if os.path.exists(place) and os.path.samefile(place, file):
            raise ValueError(f"mixture {file}, line {number}: {source} is this file itself")
        try:
            part = open_source(place, class_names)
        except ValueError as error:
            raise ValueError(f"mixture {file}, line {number}: {error}") from error
        own = np.zeros(len(part), np.int32) if part.strides is None else part.strides
        parts.append(part)
        strides.append(np.full(len(part), int(stride), np.int32) if stride else own)
    if class_names is None:
        class_names = _all_classes(parts)
    index_of = {name: index for index, name in enumerate(class_names)}
    renumbered = [np.array([*map(index_of.get, part.class_names), NO_LABEL], np.int32) for part in parts]
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([new[part.labels] for new, part in zip(renumbered, parts, strict=True)])
    paths = tuple(path for part in parts for path in part.paths)
    return Mixture(
        str(file), paths, labels, class_names, np.concatenate(strides), parts=tuple(parts), renumbered=tuple(renumbered)
    )


def _all_classes(parts: list[VideoSource]) -> Classes:
    """The classes of any of the parts: sorted; those of integer labels alone as they are."""
    names = {name for part in parts for name in part.class_names}
    return tuple(sorted(names, key=int if all(map(is_integer, names)) else None))


def _source(name: str, entries: list[Entry], class_names: Classes) -> VideoSource:
    index_of = {class_name: index for index, class_name in enumerate(class_names)}
    labels = np.full(len(entries), NO_LABEL, np.int32)
    for position, entry in enumerate(entries):
        if entry.label is None:
            continue
        if entry.label not in index_of:
            shown = ", ".join(class_names[:3]) + (", ..." if len(class_names) > 3 else "")
            raise ValueError(
                f"{name}, {entry.where}: label {entry.label!r} is not one of the training set's "
                f"{len(class_names)} classes ({shown}); correct it, or add training videos of that class"
            )
        labels[position] = index_of[entry.label]
    strides = spans = None
    if any(entry.stride for entry in entries):
        strides = np.array([entry.stride or 0 for entry in entries], np.int32)
    if any(entry.span for entry in entries):
        spans = np.array([entry.span or (0, 0) for entry in entries], np.int32)
    return VideoSource(name, tuple(entry.path for entry in entries), labels, class_names, strides, spans)
