"""Where videos and their labels come from: manifests, official annotations, folders, built-in clips, mixtures."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from videomae_jax.config import REGRESSION, SINGLE_LABEL
from videomae_jax.data import builtin
from videomae_jax.data.annotations import Classes, hmdb51_files, read_hmdb51, read_official
from videomae_jax.data.files import (
    VIDEO_SUFFIXES,
    Entry,
    check_files_exist,
    csv_row,
    csv_values,
    is_video,
    read_lines,
    sorted_labels,
    videos_below,
)
from videomae_jax.data.frames import Frames
from videomae_jax.data.images import IMAGE_SUFFIXES, FrameFolder, is_image
from videomae_jax.data.labels import (
    Label,
    LabelArray,
    check_problem_type,
    number_labels,
    relabel,
)
from videomae_jax.data.manifests import read_manifest
from videomae_jax.data.video import VideoFile
from videomae_jax.labels import NO_LABEL, is_integer

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
      labels: their classes as indices into `class_names`; -1 where there is no label. None: known when opened. For
        other problem types a row of numbers each: 1 for every class that a video has and 0 for the others, or the
        values of a regression.
      class_names: the known classes in their order. In regression the names of the values.
      strides: distance between the frames of a clip, for each video; 0 where the recipe's holds; None for no video.
      spans: of folders of pictures the first one's number and how many; their number 0 for all; None for no video.
      problem_type: what the labels are, one of `config.PROBLEM_TYPES`.
    """

    name: str
    paths: tuple[str, ...]
    labels: LabelArray | None
    class_names: Classes
    strides: Int32[np.ndarray, "V"] | None = None
    spans: Int32[np.ndarray, "V 2"] | None = None
    problem_type: str = SINGLE_LABEL

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> tuple[Frames, Label]:
        """A video, to be closed, and its label.

        Raises:
          VideoReadError: it is not there, or cannot be read.
        """
        path, label = self.paths[index], self.label(index)
        if not os.path.isdir(path):
            return VideoFile(path), label
        first, count = (0, 0) if self.spans is None else self.spans[index].tolist()
        return FrameFolder(path, (first, count) if count else None), label

    def label(self, index: int) -> Label:
        """A video's label without opening it: -1 where that takes opening it."""
        if self.labels is None:
            return NO_LABEL
        return int(self.labels[index]) if self.labels.ndim == 1 else self.labels[index]

    def is_there(self, index: int) -> bool:
        """Whether what a video lies on is there, by some of its videos: a disk or a mount may have gone."""
        some = np.linspace(0, len(self) - 1, num=64).astype(int)
        return any(os.path.exists(self.paths[place]) for place in {index, *some.tolist()})

    def stride(self, index: int) -> int | None:
        """The distance between the frames of a clip that goes with a video; None: the recipe's."""
        return None if self.strides is None else int(self.strides[index]) or None

    def digest(self) -> str:
        """16 hexadecimal digits that tell sets of videos apart: by names, labels, spans and strides, not by place."""
        labels = [""] * len(self) if self.labels is None else self.labels.tolist()
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

    def open(self, index: int) -> tuple[Frames, Label]:
        number, in_part = self._place(index)
        video, label = self.parts[number].open(in_part)
        return video, self.label(index) if self.labels is not None else int(self.renumbered[number][label])

    def label(self, index: int) -> Label:
        if self.labels is not None:
            return super().label(index)
        number, in_part = self._place(index)
        return int(self.renumbered[number][self.parts[number].label(in_part)])

    def is_there(self, index: int) -> bool:
        number, in_part = self._place(index)
        return self.parts[number].is_there(in_part)

    def _place(self, index: int) -> tuple[int, int]:
        for number, part in enumerate(self.parts):
            if index < len(part):
                return number, index
            index -= len(part)
        raise IndexError(index)


def open_source(
    path: str, class_names: Classes | None = None, problem_type: str = SINGLE_LABEL, max_missing: float = 0.0
) -> VideoSource:
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
      class_names: the known classes in their order: those of a model, or of the training set for every other set.
        Labels that are all integers, none of which is such a name, are indices of these, as in the original's lists,
        unless all of these are integers too. None for the set's own: names are sorted, integers stay as they are and
        get the names "0", "1", ..., and annotations that number their classes keep that order.
      problem_type: what a label is; the last two are for CSV files with `path` and `label`, and mixtures of these:
        - "single_label_classification": a class;
        - "multi_label_classification": classes with | between them, or empty for none of them;
        - "regression": finite numbers with | between them, as many in every line; their names are "0", "1", ...

      max_missing: share of the files of a list that need not be there; reading them fails.

    Warns:
      UserWarning: videos of a list are not there; those of a Kinetics file are left out. It counts them and names the
        first.

    Raises:
      ValueError: nothing is there, something in it cannot be understood, more files are missing, a label is not among
        `class_names`, or the format has no labels of that problem type. The message names the place and the fix.
    """
    check_problem_type(problem_type)
    if problem_type != SINGLE_LABEL:
        _check_is_csv(path, problem_type)
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
        return _open_mixture(Path(path), class_names, problem_type, max_missing)
    else:
        entries, own_classes = read_manifest(Path(path), problem_type)
    if not os.path.isdir(path):
        check_files_exist(path, entries, max_missing)
    return _source(path, entries, own_classes if class_names is None else class_names, problem_type)


def _check_is_csv(path: str, problem_type: str) -> None:
    is_file = os.path.isfile(path) and not is_video(path)
    columns = csv_values(read_lines(Path(path))[0][1]) if is_file else ()
    if not {"path", "source"} & set(columns):
        raise ValueError(
            f"data path {path!r} {'has no such columns' if is_file else 'is no such file'}: {problem_type} needs a CSV "
            "file with the columns `path` and `label`, or with `source` for a mixture of such files; lists, folders, "
            "official annotations, prepared and TFDS data sets have one class a video"
        )


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


def _open_mixture(file: Path, class_names: Classes | None, problem_type: str, max_missing: float) -> Mixture:
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
            part = open_source(place, class_names, problem_type, max_missing)
        except ValueError as error:
            raise ValueError(f"mixture {file}, line {number}: {error}") from error
        if problem_type == REGRESSION:
            class_names = part.class_names  # so that the next ones must have as many numbers
        own = np.zeros(len(part), np.int32) if part.strides is None else part.strides
        parts.append(part)
        strides.append(np.full(len(part), int(stride), np.int32) if stride else own)
    if class_names is None:
        class_names = _all_classes(parts)
    renumbered = tuple(relabel(part.name, part.class_names, class_names) for part in parts)
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate(
            [_renumber(part.labels, new, len(class_names)) for part, new in zip(parts, renumbered, strict=True)]
        )
    return Mixture(
        str(file),
        tuple(path for part in parts for path in part.paths),
        labels,
        class_names,
        np.concatenate(strides),
        problem_type=problem_type,
        parts=tuple(parts),
        renumbered=renumbered,
    )


def _renumber(labels: LabelArray, renumbered: Int32[np.ndarray, "K+1"], num_classes: int) -> LabelArray:
    if labels.ndim == 1:
        return renumbered[labels]
    rows = np.zeros((len(labels), num_classes), np.float32)
    rows[:, renumbered[:-1]] = labels
    return rows


def _all_classes(parts: list[VideoSource]) -> Classes:
    """The classes of any of the parts: sorted; those of integer labels alone as they are."""
    names = {name for part in parts for name in part.class_names}
    return tuple(sorted(names, key=int if all(map(is_integer, names)) else None))


def _source(name: str, entries: list[Entry], class_names: Classes, problem_type: str) -> VideoSource:
    labels = number_labels(name, entries, class_names, problem_type)
    strides = spans = None
    if any(entry.stride for entry in entries):
        strides = np.array([entry.stride or 0 for entry in entries], np.int32)
    if any(entry.span for entry in entries):
        spans = np.array([entry.span or (0, 0) for entry in entries], np.int32)
    paths = tuple(entry.path for entry in entries)
    return VideoSource(name, paths, labels, class_names, strides, spans, problem_type)
