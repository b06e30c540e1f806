"""Where videos and their labels come from: a manifest, a folder or the built-in clips."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from videomae_jax.data import builtin

NO_LABEL = -1
VIDEO_SUFFIXES = frozenset(".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .wmv .flv .3gp .ogv .gif".split())
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


class _Entry(NamedTuple):
    path: str
    label: str | None
    where: str  # "line 7", or the class folder: what the user must look at when it is wrong


def open_source(path: str, class_names: tuple[str, ...] | None = None) -> VideoSource:
    """Opens a set of videos.

    Args:
      path: one of
        - a manifest: CSV whose header names a `path` and perhaps a `label` column (names or integers), or
          lines of `path label` without header as the original's lists, where paths may contain spaces and
          labels are integers; relative paths start at the manifest's folder;
        - a folder with one sub-folder for each class, or a folder of videos without classes;
        - `builtin:train` or `builtin:val`.
      class_names: the classes of the training set, in its order, for every other set. None for the training
        set itself: names are sorted, integers stay as they are and get the names "0", "1", ...

    Raises:
      ValueError: nothing is there, something in it cannot be understood, a file is missing, or a label is not
        among `class_names`. The message names the place and the fix.
    """
    if path.startswith(_BUILTIN):
        entries = _read_manifest(builtin.manifest(path.removeprefix(_BUILTIN)))
        own_classes = builtin.CAMERA_MOVES
    elif not os.path.exists(path):
        raise ValueError(f"data path {path!r} does not exist; give a manifest, a folder, builtin:train or builtin:val")
    elif os.path.isdir(path):
        entries = _list_folder(Path(path))
        # As everywhere, sorted folder names count the classes, also where the names are numbers.
        own_classes = _sorted_labels(entries)
    elif _is_video(path):
        raise ValueError(f"data path {path!r} is a single video; give the folder it lies in, or a manifest")
    else:
        entries = _read_manifest(Path(path))
        own_classes = _integer_classes(entries) if _has_integer_labels(entries) else _sorted_labels(entries)
    return _source(path, entries, own_classes if class_names is None else class_names)


def _read_manifest(manifest: Path) -> list[_Entry]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"manifest {manifest} is no UTF-8 text; give a CSV file or a folder of videos") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"manifest {manifest} is empty; write a header `path,label` and one line a video")
    columns = [column.strip() for column in next(csv.reader([numbered[0][1]]))]
    if "path" in columns:
        entries = _parse_csv(manifest, columns, numbered[1:])
    else:
        entries = _parse_path_label_lines(manifest, numbered)
    if not entries:
        raise ValueError(f"manifest {manifest} has a header and no videos; add one line a video")
    entries = [entry._replace(path=str(manifest.parent / entry.path)) for entry in entries]
    if _has_integer_labels(entries):
        entries = [entry._replace(label=str(int(entry.label))) for entry in entries]  # "007" is class 7
    _check_files_exist(manifest, entries)
    return entries


def _parse_csv(manifest: Path, columns: list[str], numbered: list[tuple[int, str]]) -> list[_Entry]:
    path_column = columns.index("path")
    label_column = columns.index("label") if "label" in columns else None
    entries = []
    for number, line in numbered:
        values = [value.strip() for value in next(csv.reader([line]))]
        if len(values) != len(columns) or not values[path_column]:
            raise ValueError(
                f"manifest {manifest}, line {number}: {line!r} does not fit the header "
                f"{','.join(columns)!r}; quote values that contain a comma"
            )
        label = None if label_column is None else values[label_column]
        if label == "":
            raise ValueError(
                f"manifest {manifest}, line {number}: {line!r} has no label; "
                "add it, or remove the label column to train without labels"
            )
        entries.append(_Entry(values[path_column], label, f"line {number}"))
    return entries


def _parse_path_label_lines(manifest: Path, numbered: list[tuple[int, str]]) -> list[_Entry]:
    entries = []
    for number, line in numbered:
        path_and_label = line.rsplit(maxsplit=1)
        if len(path_and_label) < 2 or not _is_integer(path_and_label[1]):
            raise ValueError(
                f"manifest {manifest}, line {number}: {line!r} does not end in an integer label; write lines "
                "`path label`, or a CSV file whose header has a column `path` (and `label`, for names)"
            )
        entries.append(_Entry(*path_and_label, f"line {number}"))
    return entries


def _check_files_exist(manifest: Path, entries: list[_Entry]) -> None:
    # Threads, because on network file systems each look takes milliseconds and Kinetics has 240,000 files.
    with ThreadPoolExecutor(32) as pool:
        exists = pool.map(os.path.isfile, [entry.path for entry in entries])
        missing = [entry for entry, found in zip(entries, exists, strict=True) if not found]
    if missing:
        named = "; ".join(f"{entry.where}: {entry.path}" for entry in missing[:3])
        raise ValueError(
            f"manifest {manifest}: {len(missing)} of {len(entries)} files do not exist ({named}); "
            f"relative paths start at {manifest.parent.resolve()}"
        )


def _list_folder(folder: Path) -> list[_Entry]:
    loose = sorted(item for item in folder.iterdir() if _is_video(item.name) and item.is_file())
    classes = sorted(item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    entries = [
        _Entry(video, class_folder.name, f"folder {class_folder}")
        for class_folder in classes
        for video in _videos_below(class_folder)
    ]
    if loose and entries:
        raise ValueError(
            f"data folder {folder} has class folders and, beside them, {len(loose)} videos such as "
            f"{loose[0].name}; move these into a class folder, or use a manifest"
        )
    if not loose and not entries:
        raise ValueError(f"data folder {folder} has no videos, here or below, of {' '.join(sorted(VIDEO_SUFFIXES))}")
    return entries or [_Entry(str(video), None, f"folder {folder}") for video in loose]


def _videos_below(folder: Path) -> list[str]:
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if _is_video(name)
    )


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


def _source(name: str, entries: list[_Entry], class_names: tuple[str, ...]) -> VideoSource:
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


def _has_integer_labels(entries: list[_Entry]) -> bool:
    return all(entry.label is not None and _is_integer(entry.label) for entry in entries)


def _integer_classes(entries: list[_Entry]) -> tuple[str, ...]:
    return tuple(str(index) for index in range(max(int(entry.label) for entry in entries) + 1))


def _sorted_labels(entries: list[_Entry]) -> tuple[str, ...]:
    return tuple(sorted({entry.label for entry in entries if entry.label is not None}))


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit()
