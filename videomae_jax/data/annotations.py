"""The official annotation files of Kinetics, Something-Something V2, UCF101 and HMDB51, as they are downloaded.

None of them names the folder of the videos; each reader looks in the places its data set's archives unpack to, and its
error names them. A format is known by what nobody else has: columns, a file's name, or how the path is spelt.
"""

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from videomae_jax.data.files import (
    Entry,
    csv_row,
    csv_values,
    is_video,
    read_lines,
    sorted_labels,
    videos_below,
)

Classes = tuple[str, ...]

_KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
_KINETICS_FOLDERS = ("train", "val", "test", "video")  # how those beside a folder `annotations` begin
_SSV2_VIDEOS = "20bn-something-something-v2"
_SSV2_LABELS = ("labels.json", "something-something-v2-labels.json")
_UCF101_LIST = re.compile(r"(train|test)list\d+\.txt")
_UCF101_VIDEOS = "UCF-101"
_HMDB51_PART = re.compile(r"(?P<folder>.+):(?P<split>\d+):(?P<part>[^:/]*)")
_HMDB51_FILE = re.compile(r"(?P<class_name>.+)_test_split(?P<split>\d+)\.txt")
_HMDB51_VIDEOS = ("hmdb51_org", "hmdb51", "videos")
_HMDB51_CODES = {"train": "1", "test": "2"}  # "0": in neither


def read_official(file: Path) -> tuple[list[Entry], Classes] | None:
    """The videos of an official annotation file and all its classes in the official order; None for other files.

    Kinetics is known by its columns, Something-Something by the suffix .json, UCF101 by the names `trainlist01.txt`
    and `testlist01.txt`.

    Raises:
      ValueError: it is one, and something in it or the videos cannot be found or understood.
    """
    if file.suffix == ".json":
        return _read_ssv2(file)
    if _UCF101_LIST.fullmatch(file.name):
        return _read_ucf101(file)
    columns = csv_values(read_lines(file)[0][1])
    if "path" not in columns and set(_KINETICS_COLUMNS) <= set(columns):
        return _read_kinetics(file)
    return None


def _read_kinetics(file: Path) -> tuple[list[Entry], Classes]:
    """Lines `label,youtube_id,time_start,time_end,split`; the test set's at first had no labels.

    Videos are named ID_START_END with six digits each, or ID, and lie anywhere below the file's folder or, where none
    do, below the folders beside that one which _KINETICS_FOLDERS tells. YouTube loses some every year, so those that
    are not there are left out with a warning.
    """
    (_, header), *numbered = read_lines(file)
    columns = csv_values(header)
    if not numbered:
        raise ValueError(f"manifest {file} has a header and no videos; download it again")
    listed = []  # with the names that the video may have as path
    for number, line in numbered:
        row = csv_row(file, columns, number, line, _KINETICS_COLUMNS)
        times = row["time_start"], row["time_end"]
        if not all(time.isascii() and time.isdigit() for time in times):
            raise ValueError(f"manifest {file}, line {number}: time_start and time_end must be seconds, got {line!r}")
        name = "_".join((row["youtube_id"], *(f"{int(time):06d}" for time in times)))
        listed.append((row["youtube_id"], Entry(name, row.get("label"), f"line {number}")))

    beside = file.absolute().parent.parent
    for places in ([file.parent], sorted(place for name in _KINETICS_FOLDERS for place in beside.glob(f"{name}*/"))):
        videos = defaultdict(list)
        for video in (video for place in places for video in videos_below(place)):
            videos[Path(video).stem].append(video)
        found, missing = [], []
        for youtube_id, entry in listed:
            candidates = videos.get(entry.path) or videos.get(youtube_id)
            if candidates:
                found.append(entry._replace(path=_only_video(file, entry, candidates)))
            else:
                missing.append(entry)
        if found:
            break
    else:
        begin = ", ".join(f"{name}*" for name in _KINETICS_FOLDERS)
        raise ValueError(
            f"manifest {file}: none of its {len(listed)} videos was found (the first: {listed[0][1].path}.mp4); "
            f"looked below {file.absolute().parent} and below {beside}/ in {begin}"
        )
    if missing:
        warnings.warn(
            f"{file}: {len(missing)} of {len(listed)} videos are not there and left out, the first "
            f"{missing[0].path}.mp4 ({missing[0].where})",
            stacklevel=4,
        )
    return found, sorted_labels(entry for _, entry in listed)


def _only_video(file: Path, entry: Entry, candidates: list[str]) -> str:
    """Of files with the same name the one in its class's folder, which may be spelt with underscores."""
    if len(candidates) > 1 and entry.label is not None:
        spelt = entry.label.replace(" ", "_")
        candidates = [video for video in candidates if Path(video).parent.name.replace(" ", "_") == spelt] or candidates
    if len(candidates) > 1:
        raise ValueError(
            f"manifest {file}, {entry.where}: which video is meant, {candidates[0]} or {candidates[1]}? "
            "Move one set of videos elsewhere"
        )
    return str(Path(candidates[0]))  # without the ./ of a folder that is relative


def _read_ssv2(file: Path) -> tuple[list[Entry], Classes]:
    """A list of {"id", "label", "template", "placeholders"}; the test set's have an id alone.

    The class is the template without its brackets, and labels.json numbers the classes.
    """
    listed = _read_json(file)
    if not (isinstance(listed, list) and listed and all(isinstance(item, dict) and "id" in item for item in listed)):
        raise ValueError(
            f'{file} is no annotation file of Something-Something V2, a list of {{"id": ..., "template": ...}}; '
            "give its train.json, validation.json or test.json"
        )
    labelled = [isinstance(item.get("template"), str) for item in listed]
    if any(labelled) and not all(labelled):
        number = labelled.index(False)
        raise ValueError(f"{file}, entry {number + 1} (id {listed[number]['id']}) has no template, as others have")
    class_names = _ssv2_classes(file) if any(labelled) else ()
    known = frozenset(class_names)
    entries = []
    for number, item in enumerate(listed, start=1):
        label = re.sub(r"[\[\]]", "", item["template"]) if any(labelled) else None
        entry = Entry(str(item["id"]), label, f"entry {number} (id {item['id']})")
        if label is not None and label not in known:
            raise ValueError(f"{file}, {entry.where}: class {label!r} is not in the labels.json beside it")
        entries.append(entry)

    above = file.absolute().parent.parent
    places = (file.parent / _SSV2_VIDEOS, above / _SSV2_VIDEOS, file.parent, above)
    for root in places:
        # One listing instead of a look for each of 220,000 files in each place.
        names = set(os.listdir(root)) if root.is_dir() else set()
        paths = [
            next((name for suffix in (".webm", ".mp4", "") if (name := entry.path + suffix) in names), None)
            for entry in entries
        ]
        if any(paths):
            break
    else:
        raise _no_videos(file, f"{entries[0].path}.webm", places)
    entries = [
        entry._replace(path=str(root / (path or f"{entry.path}.webm")))
        for entry, path in zip(entries, paths, strict=True)
    ]
    return entries, class_names


def _ssv2_classes(file: Path) -> Classes:
    places = [folder / name for folder in (file.parent, file.parent / "labels") for name in _SSV2_LABELS]
    labels_file = next((place for place in places if place.is_file()), None)
    if labels_file is None:
        raise ValueError(f"{file} needs the list of classes, labels.json; looked for {_listing(places)}")
    numbers = _read_json(labels_file)
    if not (isinstance(numbers, dict) and all(str(number).isdecimal() for number in numbers.values())):
        raise ValueError(f'{labels_file} must have an object {{"class": "number", ...}}')
    class_names = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    if [int(numbers[name]) for name in class_names] != list(range(len(class_names))):
        raise ValueError(f"{labels_file}: the {len(class_names)} classes are not numbered 0 to {len(class_names) - 1}")
    return class_names


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: no JSON, {error.msg}; download it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text; download it again") from error


def _read_ucf101(file: Path) -> tuple[list[Entry], Classes]:
    """Lines `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`, in test lists without number.

    The folder is the class, and classInd.txt numbers the classes from 1.
    """
    class_names = _ucf101_classes(file)
    number_of = {name: number for number, name in enumerate(class_names, start=1)}
    entries = []
    for number, line in read_lines(file):
        video, *class_number = line.split()
        class_name, _, name = video.partition("/")
        if len(class_number) > 1 or "/" in name or not is_video(name):
            raise ValueError(
                f"{file}, line {number}: {line!r} is not of the form `class/video.avi 1` of UCF101's lists; "
                "rename the file if it is not one of them"
            )
        if class_name not in number_of:
            raise ValueError(f"{file}, line {number}: class {class_name!r} is not in classInd.txt")
        if class_number and class_number[0] != str(number_of[class_name]):
            raise ValueError(
                f"{file}, line {number}: {line!r} says class {class_number[0]}, "
                f"classInd.txt says {number_of[class_name]}"
            )
        entries.append(Entry(video, class_name, f"line {number}"))
    above = file.absolute().parent.parent
    places = (file.parent / _UCF101_VIDEOS, above / _UCF101_VIDEOS, file.parent, above)
    return _below_root(file, entries, places), class_names


def _ucf101_classes(file: Path) -> Classes:
    index = file.parent / "classInd.txt"
    if not index.is_file():
        raise ValueError(
            f"{file} is named as UCF101's lists and needs their classInd.txt beside it, {index}; "
            "copy it there, or rename the file if it is not one of them"
        )
    class_names = []
    for number, line in read_lines(index):
        words = line.split()
        if len(words) != 2 or words[0] != str(len(class_names) + 1):
            raise ValueError(f"{index}, line {number}: expected `{len(class_names) + 1} class`, got {line!r}")
        class_names.append(words[1])
    return tuple(class_names)


def read_hmdb51(path: str) -> tuple[list[Entry], Classes] | None:
    """The videos and all classes, sorted, of one part of HMDB51, `FOLDER:1:train`; None for paths spelt otherwise.

    FOLDER has the files `brush_hair_test_split1.txt` and so on, with lines `name.avi 1`: 1 is train, 2 is test and 0
    is neither.

    Raises:
      ValueError: it is spelt so, and the folder, the part or the videos cannot be found or understood.
    """
    match = _HMDB51_PART.fullmatch(path)
    if match is None:
        return None
    folder, split, part = Path(match["folder"]), match["split"], match["part"]
    if part not in _HMDB51_CODES:
        raise ValueError(f"data path {path!r}: {part!r} is no part of HMDB51; end in :1:train or :1:test")
    files = hmdb51_files(folder)
    if not files:
        raise ValueError(f"data path {path!r}: {folder} has no files CLASS_test_split1.txt of HMDB51")
    if split not in files:
        raise ValueError(f"data path {path!r}: {folder} has no split {split!r}; it has {', '.join(sorted(files))}")
    entries = []
    for class_name, file in sorted(files[split].items()):
        for number, line in read_lines(file):
            name, *code = line.rsplit(maxsplit=1)
            if not is_video(name) or code not in (["0"], ["1"], ["2"]):
                raise ValueError(f"{file}, line {number}: {line!r} is not of the form `video.avi 1` with 0, 1 or 2")
            if code == [_HMDB51_CODES[part]]:
                entries.append(Entry(f"{class_name}/{name}", class_name, f"{file.name} line {number}"))
    if not entries:
        raise ValueError(f"data path {path!r}: the files of split {split} have no videos for {part}")
    above = folder.absolute().parent
    places = (*(above / name for name in _HMDB51_VIDEOS), above, folder)
    return _below_root(folder, entries, places), tuple(sorted(files[split]))


def hmdb51_files(folder: Path) -> dict[str, dict[str, Path]]:
    """The split files of HMDB51 in a folder: split -> class -> file."""
    files = defaultdict(dict)
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := _HMDB51_FILE.fullmatch(file.name):
            files[match["split"]][match["class_name"]] = file
    return dict(files)


def _below_root(annotation: Path, entries: list[Entry], places: Iterable[Path]) -> list[Entry]:
    """The entries, whose paths begin with the class, below the first of the places that has any of their videos."""
    one_a_class = {entry.label: entry.path for entry in entries}.values()
    root = next((place for place in places if any((place / video).is_file() for video in one_a_class)), None)
    if root is None:
        raise _no_videos(annotation, entries[0].path, places)
    return [entry._replace(path=str(root / entry.path)) for entry in entries]


def _no_videos(annotation: Path, example: str, places: Iterable[Path]) -> ValueError:
    return ValueError(f"{annotation}: its videos, such as {example}, were not found; looked in {_listing(places)}")


def _listing(places: Iterable[Path]) -> str:
    return ", ".join(str(place) for place in places)
