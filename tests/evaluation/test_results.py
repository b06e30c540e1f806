import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from videomae_jax.evaluation import results
from videomae_jax.evaluation.confusion import draw_confusion
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.evaluation.results import describe, write_results
from videomae_jax.evaluation.scores import (
    classification_scores,
    multi_label_scores,
    regression_scores,
)

NAMES = ("walk, slowly", 'say "hi"', "走る")
NO_UTF_8 = os.fsdecode(b"caf\xe9.mp4")


def single():
    """Right, second, third, unreadable, without label."""
    return Predictions(
        paths=("a,b.mp4", NO_UTF_8, "日本.mp4", 'd"e".mp4', "f.mp4"),
        labels=np.array([0, 1, 1, 2, -1], np.int32),
        scores=np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [np.nan] * 3, [0.1, 0.1, 0.8]], np.float32),
        readable=np.array([True, True, True, False, True]),
        num_frames=np.array([30, 9, 10, 0, 4], np.int32),
    )


def several(labels, scores, readable):
    paths = tuple(f"{video}.mp4" for video in range(len(labels)))
    num_frames = np.where(readable, 30, 0).astype(np.int32)
    return Predictions(paths, np.float32(labels), np.float32(scores), np.array(readable), num_frames)


def read_csv(file):
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return list(csv.reader(lines))


def score_and_write(workdir, skip_broken=False, **settings):
    scores = classification_scores(single(), NAMES, skip_broken=skip_broken)
    write_results(workdir, scores, single(), NAMES, settings)
    return scores


def test_predictions_are_a_row_a_video(tmp_path):
    score_and_write(tmp_path)
    assert read_csv(tmp_path / "predictions.csv") == [
        ["path", "label", "predicted", "score", "rank", "num_frames", "reason"],
        ["a,b.mp4", NAMES[0], NAMES[0], "0.7", "1", "30", ""],
        [NO_UTF_8, NAMES[1], NAMES[0], "0.6", "2", "9", ""],
        ["日本.mp4", NAMES[1], NAMES[0], "0.5", "3", "10", ""],
        ['d"e".mp4', NAMES[2], "", "", "", "0", "unreadable"],
        ["f.mp4", "", NAMES[2], "0.8", "", "4", ""],
    ]
    assert b"caf\xe9.mp4" in (tmp_path / "predictions.csv").read_bytes()


def test_confusions_have_names_along_both_axes(tmp_path):
    score_and_write(tmp_path)
    header, *rows = read_csv(tmp_path / "confusion.csv")
    assert header == ["true \\ predicted", *NAMES]
    assert [row[0] for row in rows] == list(NAMES)
    matrix = np.array([row[1:] for row in rows], int)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [2, 0, 0], [0, 0, 0]])
    with Image.open(tmp_path / "confusion.png") as picture:
        np.testing.assert_array_equal(picture, draw_confusion(matrix, NAMES))


@pytest.mark.parametrize("skip_broken", [True, False])
def test_the_table_of_classes_counts_as_the_scores_do(tmp_path, skip_broken):
    score_and_write(tmp_path, skip_broken)
    header, *rows = read_csv(tmp_path / "classes.csv")
    assert header == ["class", "videos", "broken", "correct", "accuracy"]
    last = ["0", "1", "0", ""] if skip_broken else ["1", "1", "0", "0.0"]
    assert rows == [[NAMES[0], "1", "0", "1", "100.0"], [NAMES[1], "2", "0", "0", "0.0"], [NAMES[2], *last]]


def test_results_are_the_scores_and_the_settings(tmp_path):
    scores = score_and_write(
        tmp_path, segments=np.int32(5), learning_rates=(np.float32(0.5), float("nan")), views={"crops": float("-inf")}
    )
    text = (tmp_path / "results.json").read_text()
    read = json.loads(text, parse_constant=pytest.fail)
    settings = {"segments": 5, "learning_rates": [0.5, None], "views": {"crops": None}}
    assert read == scores | {"settings": settings}
    assert read["top5"] is None and read["top1"] == scores["top1"] == 25
    assert text.endswith("}\n") and "\n  " in text


def test_results_come_last_and_nothing_is_left_beside_them(tmp_path, monkeypatch):
    score_and_write(tmp_path, segments=5)
    files = {"predictions.csv", "classes.csv", "confusion.csv", "confusion.png", "results.json"}
    assert {file.name for file in tmp_path.iterdir()} == files
    score_and_write(tmp_path, segments=10)
    assert {file.name for file in tmp_path.iterdir()} == files
    assert json.loads((tmp_path / "results.json").read_text())["settings"] == {"segments": 10}
    written = []
    monkeypatch.setattr(results, "write_atomically", lambda file, content: written.append(file.name))
    score_and_write(tmp_path)
    assert set(written) == files and written[-1] == "results.json"


def test_several_classes_have_their_columns(tmp_path):
    some = several([[1, 0], [1, 1], [0, 0]], [[0.25, 0.5], [np.nan, np.nan], [0.75, 1]], [True, False, True])
    for skip_broken, precision in ((False, "58.333333333333"), (True, "50.0")):
        scores = multi_label_scores(some, ["a,b", "c"], skip_broken=skip_broken)
        write_results(tmp_path, scores, some, ["a,b", "c"], {})
        header, first, second = read_csv(tmp_path / "classes.csv")
        assert header == ["class", "videos", "broken", "average_precision"]
        assert first[:3] == ["a,b", "1" if skip_broken else "2", "1"] and first[3].startswith(precision)
        assert second[1:] == (["0", "1", ""] if skip_broken else ["1", "1", "33.33333333333333"])
    assert read_csv(tmp_path / "predictions.csv") == [
        ["path", "label: a,b", "label: c", "predicted: a,b", "predicted: c", "num_frames", "reason"],
        ["0.mp4", "1.0", "0.0", "0.25", "0.5", "30", ""],
        ["1.mp4", "1.0", "1.0", "", "", "0", "unreadable"],
        ["2.mp4", "0.0", "0.0", "0.75", "1.0", "30", ""],
    ]
    assert not list(tmp_path.glob("confusion*"))
    assert json.loads((tmp_path / "results.json").read_text()) == scores | {"settings": {}}


def test_numbers_have_their_columns(tmp_path):
    some = several([[1.5], [2]], [[1], [2]], [True, True])
    write_results(tmp_path, regression_scores(some, ["height"]), some, ["height"], {})
    assert read_csv(tmp_path / "predictions.csv")[:2] == [
        ["path", "label: height", "predicted: height", "num_frames", "reason"],
        ["0.mp4", "1.5", "1.0", "30", ""],
    ]
    assert {file.name for file in tmp_path.iterdir()} == {"predictions.csv", "results.json"}


@pytest.mark.parametrize("skip_broken", [True, False])
def test_a_person_is_told_what_the_scores_mean(skip_broken):
    lines = describe(classification_scores(single(), NAMES, skip_broken=skip_broken), single(), NAMES, num_segments=10)
    if skip_broken:
        assert lines[0].startswith("top1 33.33 %  top5 not given: 3 classes  mean class accuracy 50.00 %  loss ")
        assert lines[0].endswith("  3 videos")
        assert lines[1] == "1 video cannot be read and is left out"
    else:
        assert lines[0].startswith("top1 25.00 %  top5 not given: 3 classes  mean class accuracy 33.33 %  loss ")
        assert lines[0].endswith("  4 videos")
        assert lines[1] == "1 video cannot be read and counts as wrong (test.skip_broken=True leaves them out)"
    assert lines[2:] == [
        "1 video has no label",
        "2 of 5 videos have fewer frames than the 10 segments: some of their clips are the same",
    ]


def test_where_all_is_well_there_is_one_line():
    some = Predictions(("a", "b"), np.int32([0, 1]), np.eye(2, dtype=np.float32), np.ones(2, bool), np.int32([5, 5]))
    names = ["walk", "run"]
    scores = classification_scores(some, names, skip_broken=True)
    (line,) = describe(scores, some, names, num_segments=5)
    assert line == "top1 100.00 %  top5 not given: 2 classes  mean class accuracy 100.00 %  loss 0.0000  2 videos"


def test_classes_without_videos_are_listed_as_far_as_there_is_room():
    names = [f"class {number}" for number in range(7)]
    for present, said in ((1, "6 classes have"), (2, "5 classes have"), (6, "1 class has")):
        labels = np.arange(present, dtype=np.int32)
        scores = np.eye(7, dtype=np.float32)[labels]
        some = Predictions(("v",) * present, labels, scores, np.ones(present, bool), np.full(present, 9, np.int32))
        headline, line = describe(classification_scores(some, names, skip_broken=True), some, names, num_segments=1)
        assert headline.startswith("top1 100.00 %  top5 100.00 %  mean")
        assert headline.endswith(f"  {present} video{'s' * (present > 1)}")
        listed = ", ".join(names[present:][:5]) + (", ..." if present == 1 else "")
        assert line == f"{said} no test videos: {listed}"


def test_scores_of_several_classes_and_of_numbers_in_words():
    some = several([[1, 0], [0, 0]], [[0.5, 0.5], [np.nan] * 2], [True, False])
    assert describe(multi_label_scores(some, "ab", skip_broken=False), some, "ab", num_segments=1) == [
        "mean average precision 100.00 %  loss 0.6931  2 videos",
        "1 video cannot be read and counts with scores of 0 (test.skip_broken=True leaves them out)",
        "1 class has no test videos: b",
    ]
    none = several([[0], [0], [0]], [[0.5], [0.5], [0.5]], [True, False, False])
    assert describe(multi_label_scores(none, "a", skip_broken=True), none, "a", num_segments=1) == [
        "mean average precision not given: no video has a class  loss 0.6931  1 video",
        "2 videos cannot be read and are left out",
        "1 class has no test videos: a",
    ]
    numbers = several([[0], [0], [0]], [[1], [0], [0]], [True, True, False])
    assert describe(regression_scores(numbers, "a"), numbers, "a", num_segments=31) == [
        "mean squared error 0.5  mean absolute error 0.5  r2 not given: no number differs between videos  2 videos",
        "1 video cannot be read and is left out",
        "2 of 3 videos have fewer frames than the 31 segments: some of their clips are the same",
    ]
    unreadable = several([[1]], [[0]], [False])
    assert (
        "loss not given: no video can be read"
        in describe(multi_label_scores(unreadable, "a", skip_broken=False), unreadable, "a", num_segments=1)[0]
    )
