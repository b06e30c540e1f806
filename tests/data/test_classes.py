import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videomae_jax.data.builtin import CAMERA_MOVES
from videomae_jax.data.classes import check_flip, class_counts, directed_classes, empty_classes
from videomae_jax.data.sources import VideoSource

# Of Something-Something V2; the first six are all of its 174 that say a direction.
DIRECTED = (
    "Pulling something from left to right",
    "Pulling something from right to left",
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
)
SSV2 = (
    *DIRECTED,
    "Approaching something with your camera",
    "Moving something and something away from each other",
    "Pretending to put something upright on the table",
    "Putting something that can't roll onto a slanted surface, so it stays where it is",
    "Turning something upside down",
    "Twisting (wringing) something wet until water comes out",
)
UCF101 = ("HandstandPushups", "HighJump", "TableTennisShot", "TaiChi", "UnevenBars", "YoYo", "WritingOnBoard")
K400 = (
    "bowling",
    "brushing teeth",
    "passing American football (in game)",
    "shooting goal (soccer)",
    "tai chi",
    "zumba",
)


def test_templates_that_say_a_direction():
    assert directed_classes(SSV2) == list(DIRECTED)


def test_camera_moves():
    assert directed_classes(CAMERA_MOVES) == ["pan_left", "pan_right", "rotate_cw", "rotate_ccw"]


@pytest.mark.parametrize("names", [UCF101, K400, ("bright", "copyright", "upright", "cleft", "éright", "LeFtovers")])
def test_names_without_direction(names):
    assert directed_classes(names) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Swiping Left", "RIGHT", "turnLeft", "LeftTurn", "rotateCCW", "CCWRotation", "left2right", "step-right"),
        *("leftward", "leftwards", "rightward", "going rightwards", "cw", "ccw", "Turning Hand Clockwise"),
        *("counterclockwise", "counter-clockwise", "anticlockwise", "anti clockwise", "Rotate_CounterClockwise"),
        *("(left)", "pan_left_2", "über_left"),
    ],
)
def test_names_with_direction(name):
    assert directed_classes(["walk", name, "jump"]) == [name]


@given(st.text(alphabet=st.characters(categories=["Ll"]), min_size=1), st.sampled_from(["left", "right", "cw"]))
def test_a_direction_inside_a_word_is_none(letters, direction):
    assert directed_classes([f"x{direction}{letters}x", f"{letters}x{direction}"]) == []


def test_flips_are_refused_with_five_names_and_the_fix():
    check_flip(UCF101)
    check_flip(())
    with pytest.raises(ValueError) as caught:
        check_flip(SSV2)
    shown = ", ".join(map(repr, DIRECTED[:5]))
    assert str(caught.value) == (
        f"mirrored clips would have wrong labels: 6 classes say a direction ({shown}, ...); set augment.flip=False"
    )
    with pytest.raises(
        ValueError, match=r"5 classes say a direction \(.* 'Turning the camera left .* something'\); set"
    ):
        check_flip(DIRECTED[:5])


def source(labels, **attributes):
    paths = tuple(map(str, range(5 if labels is None else len(labels))))
    return VideoSource("list", paths, labels, tuple("abcd"), **attributes)


def test_videos_of_each_class_are_counted():
    single = source(np.array([2, -1, 0, 2, -1], np.int32))
    assert class_counts(single).tolist() == [1, 0, 2, 0] and empty_classes(single) == ["b", "d"]
    several = source(np.array([[1, 0, 1, 0], [1, 0, 0, 0]], np.float32), problem_type="multi_label_classification")
    assert class_counts(several).tolist() == [2, 0, 1, 0] and empty_classes(several) == ["b", "d"]
    unlabelled = dataclasses.replace(single, labels=np.full(5, -1, np.int32))
    assert class_counts(unlabelled).tolist() == [0] * 4 and empty_classes(unlabelled) == list("abcd")


def test_numbers_and_labels_that_are_not_known_yet_are_not_counted():
    for uncounted in (source(None), source(np.zeros((2, 4), np.float32), problem_type="regression")):
        assert class_counts(uncounted) is None and empty_classes(uncounted) == []
