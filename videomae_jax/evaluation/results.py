"""What an evaluation leaves in a run's folder, and what it says to a person."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videomae_jax.data.shards import write_atomically
from videomae_jax.evaluation.confusion import draw_confusion
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.evaluation.scores import (
    Scores,
    confusion_matrix,
    label_ranks,
    per_class,
    videos_per_class,
)
from videomae_jax.training.workdir import RESULTS_FILE

NUM_LISTED = 5  # names of classes in a line for a person

# Scores in words, with so many digits and a unit.
_WORDS = {
    "top1": ("top1", ".2f", " %"),
    "top5": ("top5", ".2f", " %"),
    "mean_class_accuracy": ("mean class accuracy", ".2f", " %"),
    "map": ("mean average precision", ".2f", " %"),
    "mse": ("mean squared error", ".4g", ""),
    "mae": ("mean absolute error", ".4g", ""),
    "r2": ("r2", ".4f", ""),
    "loss": ("loss", ".4f", ""),
}


def write_results(
    workdir: Path, scores: Scores, predictions: Predictions, class_names: Sequence[str], settings: dict[str, Any]
) -> None:
    """Writes an evaluation into a run's folder, every file whole or not at all, `results.json` last.

    - `predictions.csv`, a row a video: its path, label, predicted class and the score of that, the rank of the label
      (1 where it is predicted), number of frames, and the reason why there is no prediction. Where a video has several
      classes or numbers, the columns `label: NAME` and `predicted: NAME` of each instead.
    - `classes.csv`: `per_class`; not for numbers.
    - `confusion.csv`, `confusion.png`: `confusion_matrix`, and `draw_confusion` of it; where a video has one class.
    - `results.json`: the scores, and the settings under `settings`; null for what is not finite.

    Names of files need not be UTF-8: the tables hold their bytes (`errors="surrogateescape"` reads them).

    Args:
      workdir: the run's folder, which must be there.
      scores: of `classification_scores`, `multi_label_scores` or `regression_scores`.
      predictions: what these are the scores of.
      class_names: names of the K classes or numbers.
      settings: how the predictions were made: JSON's types, and NumPy's numbers.
    """
    single_label = predictions.labels.ndim == 1
    rows = _single_label_rows if single_label else _rows
    _write_csv(workdir / "predictions.csv", rows(predictions, class_names))
    if "mse" not in scores:
        skip_broken = not _counts_broken(scores, predictions)
        classes = per_class(predictions, class_names, skip_broken=skip_broken)
        _write_csv(workdir / "classes.csv", [classes[0].keys(), *(row.values() for row in classes)])
    if single_label:
        matrix = confusion_matrix(predictions)
        named = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
        _write_csv(workdir / "confusion.csv", [["true \\ predicted", *class_names], *named])
        png = io.BytesIO()
        Image.fromarray(draw_confusion(matrix, class_names)).save(png, "png")
        write_atomically(workdir / "confusion.png", png.getvalue())
    results = json.dumps(_plain(scores | {"settings": settings}), indent=2)
    write_atomically(workdir / RESULTS_FILE, f"{results}\n".encode())


def is_tested(workdir: Path, settings: dict[str, Any]) -> bool:
    """Whether the results of just this test are there, and of all its videos: what is broken may have been mended."""
    file = workdir / RESULTS_FILE
    if not file.exists():
        return False
    results = json.loads(file.read_text())
    return results["num_broken"] == 0 and results["settings"] == json.loads(json.dumps(_plain(settings)))


def describe(scores: Scores, predictions: Predictions, class_names: Sequence[str], *, num_segments: int) -> list[str]:
    """Lines for a person: the scores, and what must be known of the videos to understand them.

    Args:
      scores, predictions, class_names: as for `write_results`.
      num_segments: clips that were taken of each video, one after the other in time.
    """
    why_none = {
        "top5": _many(len(class_names), "class", "classes"),
        "map": "no video has a class",
        "r2": "no number differs between videos",
        "loss": "no video can be read",
    }
    shown = [
        f"{words} not given: {why_none[name]}" if scores[name] is None else f"{words} {scores[name]:{digits}}{unit}"
        for name, (words, digits, unit) in _WORDS.items()
        if name in scores
    ]
    headline = "  ".join([*shown, _many(scores["num_videos"], "video", "videos")])
    return [headline, *_remarks(scores, predictions, class_names, num_segments)]


def _remarks(scores: Scores, predictions: Predictions, class_names: Sequence[str], num_segments: int) -> Iterator[str]:
    broken = scores["num_broken"]
    if broken and _counts_broken(scores, predictions):
        count = _many(broken, "video cannot be read and counts", "videos cannot be read and count")
        how = "as wrong" if predictions.labels.ndim == 1 else "with scores of 0"
        yield f"{count} {how} (test.skip_broken=True leaves them out)"
    elif broken:
        yield _many(broken, "video cannot be read and is left out", "videos cannot be read and are left out")
    if without := int((~predictions.labelled).sum()):
        yield _many(without, "video has no label", "videos have no label")
    if "mse" not in scores:
        counts = videos_per_class(predictions)
        if empty := [name for name, count in zip(class_names, counts, strict=True) if not count]:
            listed = ", ".join(empty[:NUM_LISTED]) + ", ..." * (len(empty) > NUM_LISTED)
            yield f"{_many(len(empty), 'class has', 'classes have')} no test videos: {listed}"
    if short := int((predictions.num_frames[predictions.readable] < num_segments).sum()):
        yield (
            f"{short} of {len(predictions.paths)} videos have fewer frames than the {num_segments} segments: "
            "some of their clips are the same"
        )


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _counts_broken(scores: Scores, predictions: Predictions) -> bool:
    """Whether the scores count unreadable videos, should there be any."""
    return scores["num_videos"] == predictions.labelled.sum()


def _single_label_rows(predictions: Predictions, class_names: Sequence[str]) -> Iterator[list]:
    yield ["path", "label", "predicted", "score", "rank", "num_frames", "reason"]
    ranks, predicted = label_ranks(predictions) + 1, predictions.scores.argmax(axis=1)
    for video, (path, label) in enumerate(zip(predictions.paths, predictions.labels, strict=True)):
        label_name = class_names[label] if label >= 0 else ""
        if predictions.readable[video]:
            score = predictions.scores[video, predicted[video]]
            row = [class_names[predicted[video]], score, ranks[video] or ""]
        else:
            row = ["", "", ""]
        yield [path, label_name, *row, predictions.num_frames[video], _reason(predictions, video)]


def _rows(predictions: Predictions, class_names: Sequence[str]) -> Iterator[list]:
    columns = (f"{what}: {name}" for what in ("label", "predicted") for name in class_names)
    yield ["path", *columns, "num_frames", "reason"]
    for video, path in enumerate(predictions.paths):
        predicted = predictions.scores[video] if predictions.readable[video] else [""] * len(class_names)
        num_frames = predictions.num_frames[video]
        yield [path, *predictions.labels[video], *predicted, num_frames, _reason(predictions, video)]


def _reason(predictions: Predictions, video: int) -> str:
    return "" if predictions.readable[video] else "unreadable"


def _write_csv(file: Path, rows: Iterable[Iterable]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_atomically(file, text.getvalue().encode(errors="surrogateescape"))


def _plain(value: Any) -> Any:
    """What JSON has a word for: Python's numbers for NumPy's, None for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
