"""What reading a list of videos takes, whatever its format: lines with numbers, entries, a look for the files."""

import csv
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from videomae_jax.data.images import is_image

VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .wmv .flv .3gp .ogv .gif .ts .mts .m2ts .vob .asf .divx".split()
)


class Entry(NamedTuple):
    path: str  # a video file, or a folder of pictures
    label: str | None
    where: str  # "line 7", or the class folder: what the user must look at when it is wrong
    span: tuple[int, int] | None = None  # the first picture and their number; None: the whole video
    stride: int | None = None  # None: the recipe's


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1.

    Raises:
      ValueError: the file is no UTF-8 text or has no such lines.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"manifest {file} is no UTF-8 text; give a CSV file or a folder of videos") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"manifest {file} is empty; write a header `path,label` and one line a video")
    return numbered


def csv_values(line: str) -> list[str]:
    return [value.strip() for value in next(csv.reader([line]))]


def csv_row(
    file: Path,
    columns: list[str],
    number: int,
    line: str,
    required: tuple[str, ...],
    *,
    empty_label: bool = False,
) -> dict[str, str]:
    """One line's values by column.

    Raises:
      ValueError: there are more or fewer than columns, a required one is empty, or there is a column `label` and
        it is empty, unless `empty_label` says that it may be.
    """
    values = csv_values(line)
    row = dict(zip(columns, values, strict=False))
    if len(values) != len(columns) or not all(row[column] for column in required):
        raise ValueError(
            f"manifest {file}, line {number}: {line!r} does not fit the header "
            f"{','.join(columns)!r}; quote values that contain a comma"
        )
    if row.get("label") == "" and not empty_label:
        raise ValueError(
            f"manifest {file}, line {number}: {line!r} has no label; "
            "add it, or remove the label column to train without labels"
        )
    return row


def check_files_exist(name: str, entries: list[Entry], max_missing: float) -> None:
    """Looks for all files of a source, and warns of those that are not there: reading them will fail.

    Raises:
      ValueError: a larger share than `max_missing`, or all, are not there; it names the first three.
    """
    # Threads, because on network file systems each look takes milliseconds and Kinetics has 240,000 files.
    with ThreadPoolExecutor(32) as pool:
        exists = pool.map(os.path.exists, [entry.path for entry in entries])
        missing = [entry for entry, found in zip(entries, exists, strict=True) if not found]
    if not missing:
        return
    named = "; ".join(f"{entry.where}: {os.path.abspath(entry.path)}" for entry in missing[:3])
    message = f"{name}: {len(missing)} of {len(entries)} files do not exist ({named})"
    if len(missing) > max_missing * len(entries) or len(missing) == len(entries):
        raise ValueError(f"{message}; at most {max_missing:.0%} may be missing (max_broken_share)")
    warnings.warn(f"{message}; they count as unreadable", stacklevel=3)


def videos_below(folder: Path) -> list[str]:
    """The video files and the folders of pictures in a folder and its sub-folders."""
    videos = []
    for parent, _, names in os.walk(folder, followlinks=True):
        found = [os.path.join(parent, name) for name in names if is_video(name)]
        if not found and sum(map(is_image, names)) > 1:
            found = [parent]
        videos += found
    return sorted(videos)


def is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


def sorted_labels(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted({entry.label for entry in entries if entry.label is not None}))
