"""Names of classes by number, as a config holds them."""

import numbers
from collections.abc import Mapping

NO_LABEL = -1  # in the place of a number


class Labels(dict):
    """Names of classes by number: a dict that a frozen config can hold."""

    def __hash__(self):
        return hash(tuple(self.items()))

    def __reduce__(self):
        return Labels, (dict(self),)

    def _refuse(self, *_, **__):
        raise TypeError("the labels of a config do not change; config.adapt(id2label=...) makes another config")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse


def labels_of(num_labels: int | None, id2label: Mapping | None, label2id: Mapping | None) -> Labels:
    """The names of the classes by number, from what of the three is given; without any, two unnamed ones.

    Raises:
      ValueError: one is of another type, the numbers have gaps, or two of them contradict each other.
    """
    for name, value in (("id2label", id2label), ("label2id", label2id)):
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{name} must be a dict, got {value!r:.80}.")
    if id2label is None and label2id is not None:
        id2label = {number: label for label, number in label2id.items()}
    if id2label is None:
        count = 2 if num_labels is None else num_labels
        if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 1:
            raise ValueError(f"num_labels must be a whole number of at least 1, got {num_labels!r}.")
        return Labels({number: f"LABEL_{number}" for number in range(count)})
    try:
        numbered = sorted((int(number), label) for number, label in id2label.items())
    except (ValueError, TypeError):
        raise ValueError(f"id2label must number the classes from 0, got the numbers {list(id2label)[:5]}.") from None
    id2label = dict(numbered)
    if list(id2label) != list(range(len(id2label))) or not id2label:
        raise ValueError(f"id2label must number the classes from 0 without gaps, got the numbers {list(id2label)}.")
    if num_labels not in (None, len(id2label)):
        raise ValueError(f"num_labels={num_labels}, but id2label names {len(id2label)} classes.")
    if label2id is not None and {label: int(number) for label, number in label2id.items()} != inverse(id2label):
        raise ValueError("label2id is not the inverse of id2label.")
    return Labels(id2label)


def is_unnamed(id2label: Mapping[int, str]) -> bool:
    """Whether classes have no names but those that were made of their numbers."""
    return all(label == f"LABEL_{number}" for number, label in id2label.items())


def inverse(id2label: Mapping[int, str]) -> dict[str, int]:
    """The number of each class."""
    return {label: number for number, label in id2label.items()}


def is_integer(name: str) -> bool:
    """Whether the name of a class is a number, as in lists that do not name the classes."""
    return name.isascii() and name.isdigit()
