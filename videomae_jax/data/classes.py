"""What the classes of a data set tell before training on it: whether clips may be mirrored, and how many each has."""

import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from videomae_jax.config import MULTI_LABEL, REGRESSION
from videomae_jax.data.sources import VideoSource

_DIRECTIONS = frozenset(
    "left right leftward leftwards rightward rightwards cw ccw clockwise counterclockwise anticlockwise".split()
)
# `turnLeft` and `rotateCCWFast` have no separators but their capitals.
_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORDS = re.compile(r"[^\W\d_]+")
_NUM_SHOWN = 5


def directed_classes(class_names: Iterable[str]) -> list[str]:
    """The classes whose names say a horizontal or a turning direction, of which a mirror makes the opposite.

    A name's words are compared, whole: `turn_left` and `TurnLeft` are such names, `upright` is not.
    """
    return [name for name in class_names if _DIRECTIONS & {word.lower() for word in _words(name)}]


def check_flip(class_names: Iterable[str]) -> None:
    """Raises a ValueError that names classes which mirrored clips would contradict, where there are some."""
    if directed := directed_classes(class_names):
        shown = ", ".join(map(repr, directed[:_NUM_SHOWN])) + (", ..." if len(directed) > _NUM_SHOWN else "")
        raise ValueError(
            f"mirrored clips would have wrong labels: {len(directed)} classes say a direction ({shown}); "
            "set augment.flip=False"
        )


def class_counts(source: VideoSource) -> Int64[np.ndarray, "K"] | None:
    """How many videos each class has; None where labels are known only when a video is opened, or are no classes."""
    if source.labels is None or source.problem_type == REGRESSION:
        return None
    if source.problem_type == MULTI_LABEL:
        return np.count_nonzero(source.labels, axis=0)
    return np.bincount(source.labels[source.labels >= 0], minlength=len(source.class_names))


def empty_classes(source: VideoSource) -> list[str]:
    """The classes without a single video; none where `class_counts` has no numbers."""
    counts = class_counts(source)
    return [] if counts is None else [source.class_names[index] for index in np.flatnonzero(counts == 0)]


def _words(name: str) -> list[str]:
    return _WORDS.findall(_HUMPS.sub(" ", name))
