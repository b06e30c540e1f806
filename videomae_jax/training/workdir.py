"""A run's folder: whose it is, and the model it ends with."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flax import nnx
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.processor import VideoMAEImageProcessor
from videomae_jax.data.sources import VideoSource
from videomae_jax.training.lock import lock
from videomae_jax.training.processes import as_the_first, is_first, wait_for_all
from videomae_jax.training.state import Trainer

RESULTS_FILE = "results.json"  # of eval.py
BEST_FILE = "validation.json"  # beside the best model: when and how it was measured
CONFIG = "config"  # in recipe.json: the classifier's

# What may differ between two commands on one workdir: how a run is watched and spread, not what it computes.
MAY_CHANGE = (
    "log_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "max_skipped_steps",
    "eval",
    "test",
    "knn",
    CONFIG,  # follows from the others
    "mesh",
    "remat",
    "deterministic",
    "data.val_path",
    "data.test_path",
    "data.workers",
    "data.max_broken_share",
)


def is_started(workdir: Path) -> bool:
    """Whether there is something in the folder that another run must not touch: a checkpoint, a model or results."""
    checkpoints = (step.name.isdigit() for step in (workdir / "checkpoints").glob("*"))
    return any(checkpoints) or model_folder(workdir).exists() or (workdir / RESULTS_FILE).exists()


def claim(workdir: Path, recipe: dict[str, Any], class_names: Sequence[str], training: VideoSource | None) -> None:
    """Makes the folder and writes `recipe.json` and `classes.txt` into it, or checks that it is the same run's.

    Args:
      workdir: the run's folder.
      recipe: the resolved recipe.
      class_names: of the classes, or empty.
      training: the training videos, if any. `recipe.json` gets their number and a digest: with others, the order of the
        clips and the learning rates would change on the way.

    Raises:
      ValueError: the folder cannot be written, another process runs in it, or it holds a run of another recipe or
        other videos; it names what differs.
    """
    path = workdir / "recipe.json"
    if training is not None:
        recipe = recipe | {"training_videos": f"{len(training)} videos, {training.digest()}"}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if is_first():
            lock(workdir)
        if path.exists() and is_started(workdir):
            _check_same(path, recipe)
        if is_first():
            write_whole(path, json.dumps(recipe, indent=2) + "\n")
            write_whole(workdir / "classes.txt", "".join(f"{name}\n" for name in class_names))
    except OSError as error:
        raise ValueError(f"workdir {workdir} cannot be used: {error}. Choose another with --workdir.") from error


def recorded_config(workdir: Path) -> VideoMAEConfig | None:
    """The config of the classifier that a run of eval.py trains, as it was when it began.

    None where no such run has begun. What it began with need not be there any more.
    """
    file = workdir / "recipe.json"
    recorded = json.loads(file.read_text()) if is_started(workdir) and file.exists() else {}
    return VideoMAEConfig.from_dict(recorded[CONFIG]) if CONFIG in recorded else None


def _check_same(path: Path, recipe: dict[str, Any]) -> None:
    kinds = [tree.get("mode", "pre-training") for tree in (json.loads(path.read_text()), recipe)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{path.parent} holds another kind of run: {kinds[0]}, and this one is {kinds[1]}. Give this one a folder "
            "of its own with --workdir; that run's model can be its --config.init_from."
        )
    # Through JSON, where tuples are lists.
    old, new = (_flatten(tree) for tree in (json.loads(path.read_text()), json.loads(json.dumps(recipe))))
    differ = [
        f"{name} is {old.get(name)} there and {new.get(name)} here"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) and not any(f"{name}.".startswith(f"{free}.") for free in MAY_CHANGE)
    ]
    if differ:
        raise ValueError(
            f"{path.parent} belongs to another run: {'; '.join(differ)}. Give this one a folder of its own with "
            "--workdir, or go on from that run's weights with --config.init_from."
        )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is complete or, when killed on the way, as it was."""
    new = path.with_name(f"{path.name}.new")
    # Names of class folders need not be UTF-8.
    new.write_bytes(text.encode(errors="surrogateescape"))
    new.replace(path)


def model_folder(workdir: Path) -> Path:
    """Where a finished run leaves its model."""
    return workdir / "model"


def best_model_folder(workdir: Path) -> Path:
    """Where a run keeps the model that did best on its validation videos."""
    return workdir / "best"


def is_best(workdir: Path, step: int, score: float, measured: str) -> bool:
    """Whether a validation score is better than that of the model that is kept; the first of equals is the best.
    The same on every process.

    What was kept by another measure, or in a future that an interrupted run lost, does not count.

    Args:
      workdir: the run's folder.
      step: of the score.
      score: the larger the better, such as a loss with its sign turned.
      measured: how: a digest of the videos, and the like.
    """
    file = best_model_folder(workdir) / BEST_FILE
    if not file.exists():
        return as_the_first(True)
    best = json.loads(file.read_text())
    return as_the_first(best["measured"] != measured or best["step"] >= step or score > best["score"])


def keep_best(
    workdir: Path, step: int, score: float, measured: str, trainer: Trainer, params: PyTree, stride: int | None
) -> None:
    """Keeps a model as the best so far: the arguments of `is_best` and of `write_model`."""
    note = json.dumps({"step": step, "score": score, "measured": measured}, indent=2)
    write_model(best_model_folder(workdir), trainer, params, stride, {BEST_FILE: note + "\n"})


def write_model(
    folder: Path, trainer: Trainer, params: PyTree, stride: int | None, others: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Leaves a trained model for `from_pretrained` and `init_from`: complete or not at all. Every process calls it.

    With it goes how its clips were made, for whoever shows it other videos.

    Args:
      folder: of the model.
      trainer: whose model it is.
      params: its parameters.
      stride: distance of a clip's frames in the video; None where clips are spread over the whole video.
      others: other files to lie beside it, by name.
    """
    whole = multihost_utils.process_allgather(params, tiled=True)
    if is_first():
        _write_model(folder, nnx.merge(trainer.graphdef, whole), trainer.task.config, stride, others)
    wait_for_all(f"{folder.name} written")


def _write_model(
    folder: Path, model: nnx.Module, config: VideoMAEConfig, stride: int | None, others: Mapping[str, str]
) -> None:
    new, old = (folder.with_name(f"{folder.name}.{state}") for state in ("new", "old"))
    for rest in (new, old):
        shutil.rmtree(rest, ignore_errors=True)
    model.save_pretrained(new)
    processor = VideoMAEImageProcessor.for_model(config, resize_backend="opencv", frame_stride=stride)
    processor.save_pretrained(new)
    for name, text in others.items():
        (new / name).write_text(text)
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
