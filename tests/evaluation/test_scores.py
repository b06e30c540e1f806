import dataclasses

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given

from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.evaluation.scores import (
    average_precision,
    classification_scores,
    confusion_matrix,
    label_ranks,
    multi_label_scores,
    per_class,
    regression_scores,
    videos_per_class,
)


def predictions(labels, scores, readable=None):
    labels, scores = np.asarray(labels), np.asarray(scores, np.float32)
    labels = labels.astype(np.int32 if labels.ndim == 1 else np.float32)
    readable = np.ones(len(labels), bool) if readable is None else np.asarray(readable, bool)
    num_frames = np.where(readable, 30, 0).astype(np.int32)
    return Predictions(tuple(f"{video}.mp4" for video in range(len(labels))), labels, scores, readable, num_frames)


def chosen(some, videos):
    """Some of the videos, or all in another order."""
    return Predictions(
        tuple(np.array(some.paths)[videos]), *(getattr(some, name)[videos] for name in FIELDS if name != "paths")
    )


def names(some):
    return [f"class {number}" for number in range(some.scores.shape[1])]


FIELDS = [field.name for field in dataclasses.fields(Predictions)]
SCORES = {
    "single": classification_scores,
    "multi": multi_label_scores,
    "numbers": lambda some, names, skip_broken: regression_scores(some, names),
}


@st.composite
def any_predictions(draw, kind):
    """A few videos with many ties, some without label, some unreadable with scores that are no numbers."""
    V, K = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    labels = {
        "single": hnp.arrays(np.int32, V, elements=st.integers(-1, K - 1)),
        "multi": hnp.arrays(np.float32, (V, K), elements=st.sampled_from([0, 1])),
        "numbers": hnp.arrays(np.float32, (V, K), elements=st.integers(-3, 3)),
    }[kind]
    scores = draw(hnp.arrays(np.int8, (V, K), elements=st.integers(0, 4))) / np.float32(4)
    readable = draw(hnp.arrays(bool, V))
    labels = draw(labels)
    assume((readable if labels.ndim == 2 else readable & (labels >= 0)).any())
    return predictions(labels, np.where(readable[:, None], scores, np.nan), readable)


any_kind = st.sampled_from(list(SCORES)).flatmap(lambda kind: st.tuples(st.just(SCORES[kind]), any_predictions(kind)))


def test_accuracies_and_loss_are_those_of_torch():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, 200)
    some = predictions(labels, torch.softmax(torch.tensor(rng.normal(size=(200, 9)) * 2), dim=1))
    scores = classification_scores(some, names(some), skip_broken=False)
    best = torch.tensor(some.scores).topk(5, dim=1).indices
    right = best == torch.tensor(labels)[:, None]
    by_class = [right[torch.tensor(labels) == number, 0].double().mean() for number in range(9)]
    assert scores["top1"] == pytest.approx(100 * right[:, 0].double().mean().item())
    assert scores["top5"] == pytest.approx(100 * right.any(dim=1).double().mean().item())
    assert scores["mean_class_accuracy"] == pytest.approx(100 * np.mean(by_class))
    loss = torch.nn.functional.nll_loss(torch.tensor(some.scores).double().log(), torch.tensor(labels))
    assert scores["loss"] == pytest.approx(loss.item())
    assert (scores["num_videos"], scores["num_broken"], scores["num_without_label"]) == (200, 0, 0)


@given(any_predictions("single"))
def test_ranks_are_those_of_a_stable_sort(some):
    for video, rank in enumerate(label_ranks(some)):
        order = np.argsort(-some.scores[video], kind="stable")
        known = some.readable[video] and some.labels[video] >= 0
        assert rank == (order.tolist().index(some.labels[video]) if known else -1)


@given(any_predictions("single"))
def test_confusions_are_counted_by_class_and_those_of_a_class_with_itself_are_right(some):
    matrix = confusion_matrix(some)
    K = some.scores.shape[1]
    expected = np.zeros((K, K), int)
    for label, scores, readable in zip(some.labels, some.scores, some.readable, strict=True):
        if label >= 0 and readable:
            expected[label, max(range(K), key=lambda k: (scores[k], -k))] += 1
    np.testing.assert_array_equal(matrix, expected)
    assert np.trace(matrix) == (label_ranks(some) == 0).sum()
    assert np.trace(matrix) == sum(row["correct"] for row in per_class(some, names(some), skip_broken=False))


@given(any_kind, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_videos_does_not_matter(kind, skip_broken, random):
    score, some = kind
    order = random.sample(range(len(some.paths)), len(some.paths))
    shuffled = score(chosen(some, order), names(some), skip_broken=skip_broken)
    assert shuffled == pytest.approx(score(some, names(some), skip_broken=skip_broken))


@given(any_kind, st.booleans())
def test_the_scores_of_unreadable_videos_mean_nothing(kind, skip_broken):
    score, some = kind
    other = dataclasses.replace(some, scores=np.where(some.readable[:, None], some.scores, np.float32(1)))
    assert score(other, names(some), skip_broken=skip_broken) == score(some, names(some), skip_broken=skip_broken)
    if some.labels.ndim == 1:
        np.testing.assert_array_equal(confusion_matrix(other), confusion_matrix(some))


@given(any_kind)
def test_skipping_broken_videos_is_to_score_the_others(kind):
    score, some = kind
    scores = score(some, names(some), skip_broken=True)
    readable = score(chosen(some, some.readable), names(some), skip_broken=True)
    for name in ("num_broken", "num_without_label"):
        scores.pop(name, None), readable.pop(name, None)
    assert scores == readable


@given(any_predictions("single"))
def test_broken_videos_count_as_wrong_unless_they_are_skipped(some):
    counted = classification_scores(some, names(some), skip_broken=False)
    skipped = classification_scores(some, names(some), skip_broken=True)
    labelled = some.labels >= 0
    share = (labelled & some.readable).sum() / labelled.sum()
    assert counted["top1"] == pytest.approx(skipped["top1"] * share)
    if counted["top5"] is not None:
        assert counted["top1"] <= counted["top5"] == pytest.approx(skipped["top5"] * share)
    assert counted["loss"] == skipped["loss"]
    assert counted["num_broken"] == skipped["num_broken"] == (labelled & ~some.readable).sum()
    assert counted["num_without_label"] == skipped["num_without_label"] == (~labelled).sum()
    assert counted["num_videos"] == labelled.sum()
    assert skipped["num_videos"] == (labelled & some.readable).sum()


@given(any_predictions("single"), st.booleans())
def test_videos_without_label_do_not_count(some, skip_broken):
    scores = classification_scores(some, names(some), skip_broken=skip_broken)
    labelled = classification_scores(chosen(some, some.labels >= 0), names(some), skip_broken=skip_broken)
    assert scores | {"num_without_label": 0} == labelled


@given(any_predictions("single"), st.booleans())
def test_the_table_of_classes_adds_up_to_the_scores(some, skip_broken):
    scores = classification_scores(some, names(some), skip_broken=skip_broken)
    rows = per_class(some, names(some), skip_broken=skip_broken)
    assert [row["class"] for row in rows] == names(some)
    assert sum(row["videos"] for row in rows) == scores["num_videos"]
    assert sum(row["broken"] for row in rows) == scores["num_broken"]
    assert 100 * sum(row["correct"] for row in rows) / scores["num_videos"] == pytest.approx(scores["top1"])
    accuracies = [row["accuracy"] for row in rows if row["videos"]]
    assert np.mean(accuracies) == pytest.approx(scores["mean_class_accuracy"])
    assert all(row["accuracy"] is None for row in rows if not row["videos"])
    readable = [row["videos"] - (0 if skip_broken else row["broken"]) for row in rows]
    np.testing.assert_array_equal(confusion_matrix(some).sum(axis=1), readable)


def test_a_class_with_broken_videos_alone_has_no_accuracy_when_they_are_skipped():
    some = predictions([0, 1, 1], np.eye(2)[[0, 1, 1]], [True, False, False])
    rows = {skip: per_class(some, ["walk", "run"], skip_broken=skip) for skip in (True, False)}
    assert rows[True][1] == {"class": "run", "videos": 0, "broken": 2, "correct": 0, "accuracy": None}
    assert rows[False][1] == {"class": "run", "videos": 2, "broken": 2, "correct": 0, "accuracy": 0}
    assert classification_scores(some, ["walk", "run"], skip_broken=True)["mean_class_accuracy"] == 100
    assert classification_scores(some, ["walk", "run"], skip_broken=False)["mean_class_accuracy"] == 50


@pytest.mark.parametrize(("num_classes", "top5"), [(1, None), (4, None), (5, 100.0), (6, 75.0)])
def test_top5_needs_five_classes(num_classes, top5):
    last = predictions([0, 0, 0, num_classes - 1], np.linspace(1, 0.5, num_classes)[None].repeat(4, axis=0))
    assert classification_scores(last, names(last), skip_broken=False)["top5"] == top5


def test_perfect_predictions_are_hundred_percent():
    labels = np.arange(12) % 6
    some = predictions(labels, np.eye(6)[labels])
    scores = classification_scores(some, names(some), skip_broken=False)
    assert (scores["top1"], scores["top5"], scores["mean_class_accuracy"], scores["loss"]) == (100, 100, 100, 0)


def test_a_probability_that_rounding_lifts_above_one_has_no_loss():
    some = predictions([0], [[np.nextafter(np.float32(1), 2), 0]])
    assert classification_scores(some, names(some), skip_broken=False)["loss"] == 0


def test_a_probability_of_zero_has_a_finite_loss():
    some = predictions([0, 1], [[0, 1], [0, 1]])
    assert classification_scores(some, names(some), skip_broken=False)["loss"] == pytest.approx(-np.log(1e-12) / 2)
    several = predictions([[1, 0]], [[0, 1]])
    assert multi_label_scores(several, names(several), skip_broken=False)["loss"] == pytest.approx(-np.log(1e-12))


def test_nothing_readable_is_all_wrong_and_has_no_loss():
    some = predictions([0, 1], np.full((2, 5), np.nan), [False, False])
    scores = classification_scores(some, names(some), skip_broken=False)
    assert scores == {
        "top1": 0,
        "top5": 0,
        "mean_class_accuracy": 0,
        "loss": None,
        "num_videos": 2,
        "num_broken": 2,
        "num_without_label": 0,
    }
    assert multi_label_scores(predictions(np.eye(2), np.eye(2), [False] * 2), "ab", skip_broken=False)["loss"] is None


@given(any_predictions("multi"))
def test_average_precision_is_what_its_definition_says(some):
    some = chosen(some, some.readable)
    for labels, scores in zip(some.labels.T, some.scores.T, strict=True):
        expected, recall = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            found = labels[scores >= threshold]
            if labels.any():
                expected += (found.sum() / labels.sum() - recall) * found.mean()
                recall = found.sum() / labels.sum()
        assert average_precision(labels, scores) == pytest.approx(expected if labels.any() else np.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        # What scikit-learn 1.9.1 makes of them.
        ([0, 1, 1, 0, 1, 0, 0, 1], [0.9, 0.9, 0.8, 0.5, 0.5, 0.5, 0.2, 0.1], 0.5416666666666666),
        ([1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
    ],
)
def test_average_precision_is_that_of_scikit_learn_also_with_ties(labels, scores, expected):
    assert average_precision(np.array(labels, np.float32), np.array(scores, np.float32)) == pytest.approx(expected)


def test_mean_average_precision_is_over_the_classes_that_have_videos():
    labels = [[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    scores = [[0.9, 0.5, 0.1], [0.8, 0.5, 0.2], [0.7, 0.1, 0.3], [0.1, 0.2, 0.4]]
    some = predictions(labels, scores)
    precisions = [(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2]
    assert multi_label_scores(some, names(some), skip_broken=False)["map"] == pytest.approx(100 * np.mean(precisions))
    rows = per_class(some, names(some), skip_broken=False)
    assert [row["average_precision"] for row in rows] == pytest.approx(
        [100 * precisions[0], None, 100 * precisions[1]], abs=1e-9
    )
    assert [row["videos"] for row in rows] == [2, 0, 2] == videos_per_class(some).tolist()
    assert multi_label_scores(predictions(np.zeros((2, 3)), scores[:2]), "abc", skip_broken=False)["map"] is None


def test_broken_videos_of_several_classes_are_ranked_last_unless_they_are_skipped():
    some = predictions([[1], [0], [1]], [[0.9], [0.8], [1]], [True, True, False])
    counted = multi_label_scores(some, ["walk"], skip_broken=False)
    assert counted["map"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    skipped = multi_label_scores(some, ["walk"], skip_broken=True)
    assert skipped["map"] == 100
    assert (counted["num_videos"], skipped["num_videos"], counted["num_broken"], skipped["num_broken"]) == (3, 2, 1, 1)
    assert per_class(some, ["walk"], skip_broken=False)[0]["broken"] == 1
    assert per_class(some, ["walk"], skip_broken=True)[0]["videos"] == 1


def test_loss_of_several_classes_is_that_of_torch():
    rng = np.random.default_rng(0)
    readable = np.arange(50) % 7 > 0
    some = predictions(rng.integers(0, 2, (50, 6)), rng.random((50, 6)), readable)
    loss = torch.nn.functional.binary_cross_entropy(
        torch.tensor(some.scores[readable]).double(), torch.tensor(some.labels[readable]).double()
    )
    assert multi_label_scores(some, names(some), skip_broken=False)["loss"] == pytest.approx(loss.item())


def test_errors_of_numbers_are_those_of_torch_and_scikit_learn():
    labels = np.array([[3, -0.5], [-0.5, 1], [2, 2], [7, -3], [0, 0]])
    some = predictions(labels, [[2.5, 0], [0, 2], [2, 2], [8, -5], [np.nan, 9]], [True] * 4 + [False])
    scores = regression_scores(some, names(some))
    seen = torch.tensor(some.scores[:4]).double(), torch.tensor(labels[:4])
    assert scores["mse"] == pytest.approx(torch.nn.functional.mse_loss(*seen).item())
    assert scores["mae"] == pytest.approx(torch.nn.functional.l1_loss(*seen).item())
    assert scores["r2"] == pytest.approx(0.7892820420907659)  # of scikit-learn 1.9.1
    assert (scores["num_videos"], scores["num_broken"]) == (4, 1)


def test_numbers_that_do_not_vary_have_no_r2():
    labels = np.array([[0.1, number] for number in range(6)])
    guesses = labels + [[1, 0]]
    assert regression_scores(predictions(labels, guesses), "ab")["r2"] == 1
    constant = predictions(labels[:, :1], guesses[:, :1])
    assert regression_scores(constant, "a")["r2"] is None


def test_nothing_left_to_score_is_an_error():
    some = predictions([-1, 0, -1], np.eye(3), [True, False, False])
    with pytest.raises(ValueError, match="of 3 videos 2 have no label and 2 cannot be read"):
        classification_scores(some, names(some), skip_broken=True)
    assert classification_scores(some, names(some), skip_broken=False)["num_videos"] == 1
    none = predictions(np.zeros((2, 1)), np.zeros((2, 1)), [False, False])
    with pytest.raises(ValueError, match="of 2 videos 0 have no label and 2 cannot be read"):
        multi_label_scores(none, ["walk"], skip_broken=True)
    with pytest.raises(ValueError, match="no video is left"):
        regression_scores(none, ["height"])
    with pytest.raises(ValueError, match="no video is left"):
        classification_scores(predictions([], np.zeros((0, 2))), ["walk", "run"], skip_broken=False)


@pytest.mark.parametrize(
    ("kind", "labels"), [("single", [0, 1, 1]), ("multi", np.eye(3)[:, :2]), ("numbers", [[0, 1]] * 3)]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_has_diverged_is_not_taken_for_a_perfect_one(kind, labels, bad):
    some = predictions(labels, [[0.1, 0.9], [0.1, bad], [bad, bad]])
    with pytest.raises(ValueError, match=r"scores of 2 of 3 videos are not finite, first those of 1\.mp4"):
        SCORES[kind](some, names(some), skip_broken=False)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_labels_and_names_that_do_not_fit_the_scores_are_errors(score):
    with pytest.raises(ValueError, match="3 names for scores of 2 classes"):
        score(predictions([0, 1], np.eye(2)), ["walk", "run", "sit"], skip_broken=False)
    with pytest.raises(ValueError, match=r"label 2 of 1\.mp4 is not in \[0, 1\]"):
        score(predictions([0, 2, 1], np.eye(3)[:, :2]), ["walk", "run"], skip_broken=False)
    with pytest.raises(ValueError, match="labels of 3 classes for scores of 2"):
        score(predictions(np.eye(3), np.eye(3)[:, :2]), ["walk", "run"], skip_broken=False)
