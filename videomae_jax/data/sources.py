"""Where videos and their labels come from: a manifest, official annotations, a folder or the built-in clips."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from videomae_jax.data import builtin
from videomae_jax.data.annotations import hmdb51_files, read_hmdb51, read_official
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

NO_LABEL = -1
_BUILTIN = "builtin:"


@dataclass(frozen=True, eq=False)
class VideoSource:
    """Video files with labels, by index.

    Attributes:
      name: what the user called it, for messages.
      paths: V file paths.
      labels: their classes as indices into `class_names`; -1 where there is no label.
      class_names: names in the order of the training set.
    """

    name: str
    paths: tuple[str, ...]
    labels: Int32[np.ndarray, "V"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def open_source(path: str, class_names: tuple[str, ...] | None = None) -> VideoSource:
    """Opens a set of videos.

    Args:
      path: one of
        - a manifest: CSV whose header names a `path` and perhaps a `label` column (names or integers), or
          lines of `path label` without header as the original's lists, where paths may contain spaces and
          labels are integers; relative paths start at the manifest's folder;
        - an official annotation file as it is downloaded: a CSV file of Kinetics (`train.csv`), `train.json` or
          `validation.json` of Something-Something V2, `trainlist01.txt` or `testlist01.txt` of UCF101;
        - `FOLDER:1:train` or `FOLDER:1:test`: split 1 of HMDB51, whose `*_test_split1.txt` are in FOLDER;
        - a folder with one sub-folder for each class, or a folder of videos without classes;
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
    if path.startswith(_BUILTIN):
        entries = _read_manifest(builtin.manifest(path.removeprefix(_BUILTIN)))
        own_classes = builtin.CAMERA_MOVES
    elif not os.path.exists(path) and (hmdb51 := read_hmdb51(path)) is not None:
        entries, own_classes = hmdb51
    elif not os.path.exists(path):
        raise ValueError(f"data path {path!r} does not exist; give a manifest, a folder, builtin:train or builtin:val")
    elif os.path.isdir(path):
        entries = _list_folder(Path(path))
        # As everywhere, sorted folder names count the classes, also where the names are numbers.
        own_classes = sorted_labels(entries)
    elif is_video(path):
        raise ValueError(f"data path {path!r} is a single video; give the folder it lies in, or a manifest")
    elif (official := read_official(Path(path))) is not None:
        entries, own_classes = official
    else:
        entries = _read_manifest(Path(path))
        own_classes = _integer_classes(entries) if _has_integer_labels(entries) else sorted_labels(entries)
    return _source(path, entries, own_classes if class_names is None else class_names)


def _read_manifest(manifest: Path) -> list[Entry]:
    numbered = read_lines(manifest)
    columns = csv_values(numbered[0][1])
    if "path" in columns:
        entries = _parse_csv(manifest, columns, numbered[1:])
    else:
        entries = _parse_path_label_lines(manifest, numbered)
    if not entries:
        raise ValueError(f"manifest {manifest} has a header and no videos; add one line a video")
    entries = [entry._replace(path=str(manifest.parent / entry.path)) for entry in entries]
    if _has_integer_labels(entries):
        entries = [entry._replace(label=str(int(entry.label))) for entry in entries]  # "007" is class 7
    check_files_exist(manifest, entries, manifest.parent)
    return entries


def _parse_csv(manifest: Path, columns: list[str], numbered: list[tuple[int, str]]) -> list[Entry]:
    entries = []
    for number, line in numbered:
        row = csv_row(manifest, columns, number, line, required=("path",))
        entries.append(Entry(row["path"], row.get("label"), f"line {number}"))
    return entries


def _parse_path_label_lines(manifest: Path, numbered: list[tuple[int, str]]) -> list[Entry]:
    entries = []
    for number, line in numbered:
        path_and_label = line.rsplit(maxsplit=1)
        if len(path_and_label) < 2 or not _is_integer(path_and_label[1]):
            raise ValueError(
                f"manifest {manifest}, line {number}: {line!r} does not end in an integer label; write lines "
                "`path label`, or a CSV file whose header has a column `path` (and `label`, for names)"
            )
        entries.append(Entry(*path_and_label, f"line {number}"))
    return entries


def _list_folder(folder: Path) -> list[Entry]:
    loose = sorted(item for item in folder.iterdir() if is_video(item.name) and item.is_file())
    classes = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    entries = [
        Entry(video, class_folder.name, f"folder {class_folder}")
        for class_folder in classes
        for video in videos_below(class_folder)
    ]
    if loose and entries:
        raise ValueError(
            f"data folder {folder} has class folders and, beside them, {len(loose)} videos such as "
            f"{loose[0].name}; move these into a class folder, or use a manifest"
        )
    if not loose and not entries and (splits := hmdb51_files(folder)):
        raise ValueError(
            f"data folder {folder} has split files of HMDB51, {', '.join(sorted(splits))}; "
            f"say which and which part: {folder}:{min(splits)}:train or {folder}:{min(splits)}:test"
        )
    if not loose and not entries:
        raise ValueError(f"data folder {folder} has no videos, here or below, of {' '.join(sorted(VIDEO_SUFFIXES))}")
    return entries or [Entry(str(video), None, f"folder {folder}") for video in loose]


def _source(name: str, entries: list[Entry], class_names: tuple[str, ...]) -> VideoSource:
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
    return VideoSource(name, tuple(entry.path for entry in entries), labels, class_names)


def _has_integer_labels(entries: list[Entry]) -> bool:
    return all(entry.label is not None and _is_integer(entry.label) for entry in entries)


def _integer_classes(entries: list[Entry]) -> tuple[str, ...]:
    return tuple(str(index) for index in range(max(int(entry.label) for entry in entries) + 1))


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit()
