"""Labels as lists of videos say them, and as numbers: a class, several classes, or values."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from videomae_jax.config import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from videomae_jax.data.annotations import Classes
from videomae_jax.data.files import Entry
from videomae_jax.labels import NO_LABEL, is_integer

LabelArray = Int32[np.ndarray, "V"] | Float32[np.ndarray, "V K"]
Label = int | Float32[np.ndarray, "K"]
SEPARATOR = "|"  # between the classes or the numbers of one video
_LARGEST = float(np.finfo(np.float32).max)
_NUM_SHOWN = 3  # names in a message


def check_problem_type(problem_type: str) -> None:
    """Raises a ValueError unless it is one."""
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type must be one of {', '.join(map(repr, PROBLEM_TYPES))}, got {problem_type!r}")


def split_label(label: str | None, problem_type: str) -> tuple[str, ...]:
    """The classes or numbers of one video; none where it has no label."""
    if not label:
        return ()
    return (label,) if problem_type == SINGLE_LABEL else tuple(word.strip() for word in label.split(SEPARATOR))


def number_labels(name: str, entries: Sequence[Entry], class_names: Classes, problem_type: str) -> LabelArray:
    """The labels of V videos among K classes.

    Args:
      name: of the list, for messages.
      entries: the videos.
      class_names: the known classes, in their order; names of the numbers in regression.
      problem_type: one of `PROBLEM_TYPES`.

    Returns:
      For one class a video its index, -1 where there is no label; for several 1 where a video has the class, else 0;
      in regression the numbers.

    Raises:
      ValueError: a label is not among the classes, or is not as many finite numbers as there are names.
    """
    if problem_type == REGRESSION:
        return np.array([_values(name, entry, len(class_names)) for entry in entries], np.float32)
    labels = [split_label(entry.label, problem_type) for entry in entries]
    seen = {}
    for entry, words in zip(entries, labels, strict=True):
        for word in words:
            seen.setdefault(word, entry.where)
    index_of = _class_indices(name, seen, class_names)
    if problem_type == SINGLE_LABEL:
        return np.array([index_of[words[0]] if words else NO_LABEL for words in labels], np.int32)
    hot = np.zeros((len(labels), len(class_names)), np.float32)
    for row, words in zip(hot, labels, strict=True):
        row[[index_of[word] for word in words]] = 1
    return hot


def relabel(name: str, own: Classes, known: Classes) -> Int32[np.ndarray, "K+1"]:
    """For each of a set's own classes its index among the known ones, as in `number_labels`, and -1 at the end.

    Raises:
      ValueError: one is not there.
    """
    if own == known:
        return np.array([*range(len(own)), NO_LABEL], np.int32)
    index_of = _class_indices(name, dict.fromkeys(own, ""), known)
    return np.array([*map(index_of.get, own), NO_LABEL], np.int32)


def _class_indices(name: str, seen: Mapping[str, str], known: Classes) -> dict[str, int]:
    """The index among the known classes of every label: by name, or the number that it is.

    The original's lists have numbers where its models have names. Where a label could be a name, all are.

    Args:
      name: of the set, for messages.
      seen: the labels, and in which line each was seen first.
      known: the classes in their order.
    """
    index_of = {class_name: index for index, class_name in enumerate(known)}
    shown = f"{', '.join(known[:_NUM_SHOWN])}{', ...' * (len(known) > _NUM_SHOWN)}"
    if all(map(is_integer, seen)) and not all(map(is_integer, known)) and not index_of.keys() & seen.keys():
        index_of = {label: int(label) for label in seen if int(label) < len(known)}
        problem = f"is not in [0, {len(known) - 1}], the numbers of the {len(known)} known classes ({shown})"
    else:
        problem = f"is not one of the {len(known)} known classes ({shown})"
    if unknown := [label for label in seen if label not in index_of]:
        first, *others = unknown
        where = f"{name}, {seen[first]}" if seen[first] else name
        rest = f"; nor are {', '.join(map(repr, others[:_NUM_SHOWN]))}" if others else ""
        rest += f" and {len(others) - _NUM_SHOWN} more" if len(others) > _NUM_SHOWN else ""
        raise ValueError(f"{where}: label {first!r} {problem}{rest}; correct it, or leave its videos out")
    return index_of


def _values(name: str, entry: Entry, count: int) -> list[float]:
    words = split_label(entry.label, REGRESSION)
    if len(words) != count:
        raise ValueError(
            f"{name}, {entry.where}: label {entry.label!r} is {len(words)} numbers; every line must have {count}, as "
            "the first one or the model has"
        )
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = np.nan
        # Beyond float32 it would become infinite.
        if not abs(value) <= _LARGEST:
            raise ValueError(f"{name}, {entry.where}: label {entry.label!r} must be finite numbers, {word!r} is none")
        values.append(value)
    return values
