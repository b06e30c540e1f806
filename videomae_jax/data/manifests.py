"""Lists of videos that users write, and those of the original repositories."""

import re
from pathlib import Path

from videomae_jax.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from videomae_jax.data.annotations import Classes
from videomae_jax.data.files import (
    Entry,
    csv_row,
    csv_values,
    read_lines,
)
from videomae_jax.data.images import numbered_images
from videomae_jax.data.labels import SEPARATOR, split_label
from videomae_jax.labels import is_integer

_THREE_FIELDS = re.compile(r"(?P<path>.+?)\s+(?P<second>\d+)\s+(?P<third>-1|\d+)")
_WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)
_CLASS_NUMBER = re.compile(r"0*\d{1,5}", re.ASCII)
_SSV2_FRAMES = "SomethingV2"
_SSV2_STRIDE = 2
_FOLDERS_LOOKED_AT = 50


def read_manifest(manifest: Path, problem_type: str = SINGLE_LABEL) -> tuple[list[Entry], Classes]:
    """The videos of a CSV file or of an original's list, and its classes: numbers as they are, names sorted.

    The lists have lines `video label` (VideoMAE), `video 0 -1` and `folder first count` (V2's pre-training) or
    `folder count label` (V2's fine-tuning), where folders hold pictures, one a frame. They have one class a video.
    In regression the names are "0", "1", ..., one for each number that the first video has.

    Raises:
      ValueError: a line cannot be understood, or a number is none of a class.
    """
    numbered = read_lines(manifest)
    columns = csv_values(numbered[0][1])
    if "path" in columns:
        entries = _parse_csv(manifest, columns, numbered[1:], problem_type)
    else:
        entries = _parse_lines(manifest, numbered)
    if not entries:
        raise ValueError(f"manifest {manifest} has a header and no videos; add one line a video")
    entries = [entry._replace(path=str(manifest.parent / entry.path)) for entry in entries]
    labels = [split_label(entry.label, problem_type) for entry in entries]
    if problem_type == REGRESSION:
        return entries, tuple(map(str, range(len(labels[0]))))
    names = sorted({name for label in labels for name in label})
    _check_numbers(manifest, entries, labels)
    if not names or not all(map(is_integer, names)):
        return entries, tuple(names)
    plain = (SEPARATOR.join(str(int(name)) for name in label) for label in labels)  # "007" is class 7
    entries = [entry._replace(label=label) for entry, label in zip(entries, plain, strict=True)]
    return entries, tuple(str(index) for index in range(max(map(int, names)) + 1))


def _check_numbers(manifest: Path, entries: list[Entry], labels: list[tuple[str, ...]]) -> None:
    """Raises a ValueError where all labels are whole numbers, and one is below 0 or too large to count classes."""
    if not all(_WHOLE_NUMBER.fullmatch(name) for label in labels for name in label):
        return
    for entry, label in zip(entries, labels, strict=True):
        if wrong := [name for name in label if not _CLASS_NUMBER.fullmatch(name)]:
            raise ValueError(
                f"manifest {manifest}, {entry.where}: label {wrong[0]!r:.40} is no number of a class, counted from 0 "
                "to at most 99999; leave videos without a class out, and give names to classes that are other numbers"
            )


def _parse_csv(manifest: Path, columns: list[str], numbered: list[tuple[int, str]], problem_type: str) -> list[Entry]:
    if problem_type != SINGLE_LABEL and "label" not in columns:
        raise ValueError(f"manifest {manifest} has the columns {','.join(columns)}; {problem_type} needs one `label`")
    entries = []
    for number, line in numbered:
        row = csv_row(manifest, columns, number, line, required=("path",), empty_label=problem_type == MULTI_LABEL)
        label = row.get("label")
        if problem_type == MULTI_LABEL and "" in split_label(label, problem_type):
            raise ValueError(
                f"manifest {manifest}, line {number}: label {label!r} has a {SEPARATOR} without a class on both sides; "
                f"write class{SEPARATOR}class, or leave it empty for none"
            )
        entries.append(Entry(row["path"], label, f"line {number}"))
    return entries


def _parse_lines(manifest: Path, numbered: list[tuple[int, str]]) -> list[Entry]:
    three = [_THREE_FIELDS.fullmatch(line) for _, line in numbered]
    if all(three) and _are_fields(manifest, three[0]):
        return _parse_three_fields(manifest, numbered, three)
    entries = []
    for number, line in numbered:
        path_and_label = line.rsplit(maxsplit=1)
        if len(path_and_label) < 2 or not is_integer(path_and_label[1]):
            raise ValueError(
                f"manifest {manifest}, line {number}: {line!r} does not end in an integer label; write lines "
                "`path label`, or a CSV file whose header has a column `path` (and `label`, for names)"
            )
        entries.append(Entry(*path_and_label, f"line {number}"))
    return entries


def _are_fields(manifest: Path, line: re.Match) -> bool:
    """Whether a line is three fields, and not a path with a space and a number in its name, and a label."""
    return line["third"] == "-1" or (manifest.parent / line["path"]).is_dir()


def _parse_three_fields(manifest: Path, numbered: list[tuple[int, str]], lines: list[re.Match]) -> list[Entry]:
    labelled = _are_labelled(manifest, lines)
    entries = []
    for (number, _), line in zip(numbered, lines, strict=True):
        entry = Entry(line["path"], None, f"line {number}")
        if labelled:
            entry = entry._replace(label=line["third"])
        elif line["third"] == "0":
            raise ValueError(f"manifest {manifest}, line {number}: {line[0]!r} names a clip of no pictures")
        elif line["third"] != "-1":
            # V2 takes its frames of Something-Something at 12 a second, every second one.
            stride = _SSV2_STRIDE if _SSV2_FRAMES in line["path"] else None
            entry = entry._replace(span=(int(line["second"]), int(line["third"])), stride=stride)
        entries.append(entry)
    return entries


def _are_labelled(manifest: Path, lines: list[re.Match]) -> bool:
    """Whether they are `folder count label`, and not `folder first count`, by the pictures of some of the folders."""
    folders = [line for line in lines if line["third"] != "-1"]
    if len(folders) < len(lines):
        return False
    counts = firsts = 0
    for line in folders[:: -(-len(folders) // _FOLDERS_LOOKED_AT)]:
        pictures, second, third = (
            numbered_images(manifest.parent / line["path"]),
            int(line["second"]),
            int(line["third"]),
        )
        # A folder of 62 pictures has no clip that begins at the 62nd.
        is_count = len(pictures) == second
        counts += is_count
        firsts += not is_count and third > 0 and {second, second + third - 1} <= pictures.keys()
    if counts == firsts:
        raise ValueError(
            f"manifest {manifest}: the folders' pictures do not tell whether its lines, such as {lines[0][0]!r}, are "
            "`folder count label` or `folder first count`; write a CSV file with the columns path and label"
        )
    return counts > firsts
