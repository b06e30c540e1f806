"""How good predictions of videos are: accuracy, average precision and errors, in NumPy."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64

from videomae_jax.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from videomae_jax.evaluation.predictions import Predictions

TOP = 5  # of top-5
SMALLEST_PROBABILITY = 1e-12  # what probabilities are clipped at before their logarithm is taken

Scores = dict[str, float | int | None]

# The score, the larger the better, by which one model is better than another.
BEST = {SINGLE_LABEL: "top1", MULTI_LABEL: "map", REGRESSION: "r2"}


def scores_of(predictions: Predictions, class_names: Sequence[str], problem_type: str, *, skip_broken: bool) -> Scores:
    """The scores that go with a problem type: those of the functions below."""
    if problem_type == REGRESSION:
        return regression_scores(predictions, class_names)
    score = classification_scores if problem_type == SINGLE_LABEL else multi_label_scores
    return score(predictions, class_names, skip_broken=skip_broken)


def classification_scores(predictions: Predictions, class_names: Sequence[str], *, skip_broken: bool) -> Scores:
    """Scores of predictions of one class a video.

    A video is right among the first k when fewer than k classes are ahead of its own (`label_ranks`). Videos without
    label never count.

    Args:
      predictions: with class indices for labels.
      class_names: K names.
      skip_broken: leave unreadable videos out. Otherwise they count as wrong.

    Returns:
      `top1`, `top5`: percent of the videos; `top5` is None with fewer than five classes.
      `mean_class_accuracy`: percent; the mean of top-1 over the classes that have videos.
      `loss`: mean negative log likelihood of the readable videos' fused probabilities, clipped to [1e-12, 1]; None
        where none can be read.
      `num_videos`: that count.
      `num_broken`: unreadable videos with a label, whether they count or not.
      `num_without_label`: videos without label, readable or not.

    Raises:
      ValueError: no video is left to count, scores of a readable one are not finite, or labels or names do not fit the
        scores.
    """
    _check(predictions, class_names)
    counted = _counted(predictions, skip_broken)
    ranks = label_ranks(predictions)
    num_videos = _class_counts(predictions, counted)
    num_correct = _class_counts(predictions, ranks == 0)
    has_videos = num_videos > 0
    in_top = (ranks[counted] >= 0) & (ranks[counted] < TOP)
    seen = predictions.labelled & predictions.readable
    likelihoods = predictions.scores[seen, predictions.labels[seen]].astype(np.float64)
    likelihoods = np.clip(likelihoods, SMALLEST_PROBABILITY, 1)  # rounding may have made a sum of softmax exceed 1
    return {
        "top1": 100 * float((ranks[counted] == 0).mean()),
        "top5": 100 * float(in_top.mean()) if len(class_names) >= TOP else None,
        "mean_class_accuracy": 100 * float((num_correct[has_videos] / num_videos[has_videos]).mean()),
        "loss": float(np.log(1 / likelihoods).mean()) if seen.any() else None,
        "num_videos": int(counted.sum()),
        "num_broken": int((predictions.labelled & ~predictions.readable).sum()),
        "num_without_label": int((~predictions.labelled).sum()),
    }


def multi_label_scores(predictions: Predictions, class_names: Sequence[str], *, skip_broken: bool) -> Scores:
    """Scores of predictions of any number of classes a video.

    Args:
      predictions: with zeros and ones for labels.
      class_names: K names.
      skip_broken: leave unreadable videos out. Otherwise all their scores count as 0, so that they are ranked last.

    Returns:
      `map`: percent; the mean of `average_precision` over the classes that have videos; None where no class has any.
      `loss`: mean binary cross entropy over the readable videos and the classes, of probabilities clipped to
        [1e-12, 1 - 1e-12]; None where none can be read.
      `num_videos`: that count.
      `num_broken`: unreadable videos, whether they count or not.

    Raises:
      ValueError: as `classification_scores`.
    """
    _check(predictions, class_names)
    counted = _counted(predictions, skip_broken)
    precisions = _average_precisions(predictions, counted)
    has_videos = ~np.isnan(precisions)
    labels = predictions.labels[predictions.readable]
    probabilities = predictions.scores[predictions.readable].astype(np.float64)
    probabilities = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    losses = -labels * np.log(probabilities) - (1 - labels) * np.log1p(-probabilities)
    return {
        "map": 100 * float(precisions[has_videos].mean()) if has_videos.any() else None,
        "loss": float(losses.mean()) if len(losses) else None,
        "num_videos": int(counted.sum()),
        "num_broken": int((~predictions.readable).sum()),
    }


def regression_scores(predictions: Predictions, names: Sequence[str]) -> Scores:
    """Scores of predictions of K numbers a video. Unreadable videos have none, and are left out.

    Args:
      predictions: with numbers for labels.
      names: of the K numbers.

    Returns:
      `mse`, `mae`: mean squared and mean absolute error over videos and numbers, in the labels' units.
      `r2`: the mean of R² over those of the K numbers that are not the same for all videos; None where all are.
      `num_videos`: that count.
      `num_broken`: unreadable videos.

    Raises:
      ValueError: as `classification_scores`.
    """
    _check(predictions, names)
    counted = _counted(predictions, skip_broken=True)
    labels = predictions.labels[counted].astype(np.float64)
    errors = predictions.scores[counted] - labels
    variance = labels.var(axis=0)  # of equal fp32 numbers exactly 0: in fp64 their sum is not rounded
    vary = variance > 0
    unexplained = np.square(errors).mean(axis=0)[vary] / variance[vary]
    return {
        "mse": float(np.square(errors).mean()),
        "mae": float(np.abs(errors).mean()),
        "r2": float(np.mean(1 - unexplained)) if vary.any() else None,
        "num_videos": int(counted.sum()),
        "num_broken": int((~predictions.readable).sum()),
    }


def label_ranks(predictions: Predictions) -> Int64[np.ndarray, "V"]:
    """How many classes are ahead of each video's own; -1 without label and for unreadable videos.

    Ahead are those with a greater score, and those with the same score and a smaller index.
    """
    own = np.maximum(predictions.labels, 0)[:, None]
    own_score = np.take_along_axis(predictions.scores, own, axis=1)
    earlier = np.arange(predictions.scores.shape[1]) < own
    ahead = (predictions.scores > own_score) | ((predictions.scores == own_score) & earlier)
    return np.where(predictions.labelled & predictions.readable, ahead.sum(axis=1), -1)


def confusion_matrix(predictions: Predictions) -> Int64[np.ndarray, "K K"]:
    """How many videos of each class (rows) are taken for each class (columns).

    Unreadable videos are taken for nothing and are in no column, nor are those without label in any row.
    """
    num_classes = predictions.scores.shape[1]
    seen = predictions.labelled & predictions.readable
    pairs = predictions.labels[seen] * num_classes + predictions.scores[seen].argmax(axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(
    predictions: Predictions, class_names: Sequence[str], *, skip_broken: bool
) -> list[dict[str, str | int | float | None]]:
    """A row for each class.

    Returns:
      `class`; `videos`, those that count, by `skip_broken` with or without unreadable ones; `broken`, those that cannot
      be read. For labels of one class a video then `correct`, how many are predicted, and `accuracy`, in percent; for
      several classes `average_precision`, in percent. Percentages are None where no video counts.
    """
    counted = _counted(predictions, skip_broken)
    videos = _class_counts(predictions, counted).tolist()
    broken = _class_counts(predictions, predictions.labelled & ~predictions.readable).tolist()
    rows = [
        {"class": name, "videos": count, "broken": num_broken}
        for name, count, num_broken in zip(class_names, videos, broken, strict=True)
    ]
    if predictions.labels.ndim == 1:
        for row, correct in zip(rows, _class_counts(predictions, label_ranks(predictions) == 0).tolist(), strict=True):
            row |= {"correct": correct, "accuracy": 100 * correct / row["videos"] if row["videos"] else None}
    else:
        for row, precision in zip(rows, _average_precisions(predictions, counted).tolist(), strict=True):
            row["average_precision"] = 100 * precision if row["videos"] else None
    return rows


def videos_per_class(predictions: Predictions) -> Int64[np.ndarray, "K"]:
    """How many videos have each class, readable or not."""
    return _class_counts(predictions, predictions.labelled)


def average_precision(labels: Float[np.ndarray, "V"], scores: Float[np.ndarray, "V"]) -> float:
    """The sum over the distinct scores, from the highest on, of the gain in recall times the precision.

    Videos of equal scores come in together, so that their order does not matter.

    Args:
      labels: zeros and ones; without a one there is no recall, and the result is NaN.

    Source: `sklearn.metrics.average_precision_score`.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(labels[order], dtype=np.float64)
    if not hits[-1]:
        return float("nan")
    last = np.append(scores[1:] != scores[:-1], True)  # of each run of equal scores
    precision = hits[last] / (1 + np.flatnonzero(last))
    return float(precision @ np.diff(hits[last], prepend=0) / hits[-1])


def _average_precisions(predictions: Predictions, counted: Bool[np.ndarray, "V"]) -> Float[np.ndarray, "K"]:
    scores = np.where(predictions.readable[:, None], predictions.scores, 0)
    columns = zip(predictions.labels[counted].T, scores[counted].T, strict=True)
    return np.array([average_precision(labels, scores) for labels, scores in columns])


def _class_counts(predictions: Predictions, chosen: Bool[np.ndarray, "V"]) -> Int64[np.ndarray, "K"]:
    """How many of the chosen videos have each class."""
    labels = predictions.labels[chosen]
    if labels.ndim == 1:
        return np.bincount(labels, minlength=predictions.scores.shape[1])
    return labels.sum(axis=0).astype(np.int64)


def _counted(predictions: Predictions, skip_broken: bool) -> Bool[np.ndarray, "V"]:
    counted = predictions.labelled & (predictions.readable | (not skip_broken))
    if not counted.any():
        raise ValueError(
            f"no video is left to score: of {len(counted)} videos {(~predictions.labelled).sum()} have no label and "
            f"{(~predictions.readable).sum()} cannot be read; give videos with labels that can be read"
        )
    return counted


def _check(predictions: Predictions, names: Sequence[str]) -> None:
    num_classes = predictions.scores.shape[1]
    labels = predictions.labels
    if len(names) != num_classes:
        raise ValueError(f"{len(names)} names for scores of {num_classes} classes; give one name a class")
    if labels.ndim == 2 and labels.shape[1] != num_classes:
        raise ValueError(f"labels of {labels.shape[1]} classes for scores of {num_classes}; they must be as many")
    if labels.ndim == 1 and (labels >= num_classes).any():
        video = labels.argmax()
        raise ValueError(f"label {labels[video]} of {predictions.paths[video]} is not in [0, {num_classes - 1}]")
    # Comparisons with NaN are false: no class would be ahead of the right one.
    bad = predictions.readable & ~np.isfinite(predictions.scores).all(axis=1)
    if bad.any():
        raise ValueError(
            f"scores of {bad.sum()} of {len(bad)} videos are not finite, first those of "
            f"{predictions.paths[bad.argmax()]}; the model has diverged, or its checkpoint is damaged: give another one"
        )
