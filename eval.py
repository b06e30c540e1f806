"""Fine-tunes, probes and tests the encoder of a video masked autoencoder.

    python eval.py --config configs/ucf101_finetune.py --config.init_from=runs/ucf101_pretrain
    python eval.py --config configs/ucf101_finetune.py --config.mode=test --config.init_from=runs/ucf101_finetune \
        --workdir runs/ucf101_test

The same command continues an interrupted run.
"""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from videomae_jax import VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.classes import check_flip, empty_classes
from videomae_jax.data.clips import FinetuningClips, MultiViewClips
from videomae_jax.data.labels import NO_LABEL
from videomae_jax.data.randaugment import GEOMETRIC, OPERATIONS, RandAugment
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.data.video import VideoReadError
from videomae_jax.evaluation import knn, results
from videomae_jax.evaluation.features import pooled_features
from videomae_jax.evaluation.multiview import MultiView, PerClip, class_scores
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.evaluation.results import write_results
from videomae_jax.evaluation.scores import BEST, Scores, scores_of
from videomae_jax.training import command_line
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.downstream import SCRATCH, DownstreamRecipe
from videomae_jax.training.finetuning import Finetuning, classifier_config, find_encoder
from videomae_jax.training.loop import train
from videomae_jax.training.mesh import batch_sharding, batch_shards, check_batch, compute_dtype, make_mesh, shardings
from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.mixing import Mixing
from videomae_jax.training.optimizer import WarmupCosine, finetuning_optimizer
from videomae_jax.training.state import Trainer
from videomae_jax.training.workdir import (
    RESULTS_FILE,
    best_model_folder,
    claim,
    is_started,
    model_folder,
    write_model,
)
from videomae_jax.weights.checkpoint import Checkpoint

UNNAMED = "LABEL_"  # how classes are called that have no names

# Parameters that stay as they are in a probe.
FROZEN = {"linear": r"^(?!classifier/)", "attentive": r"^(?!(pooler|classifier)/)"}


def main(config: ConfigDict, workdir: Path) -> None:
    """Runs a recipe of `configs/` in the folder `workdir`."""
    # Whatever is wrong with the recipe, the checkpoint or the data comes out here, before anything is written.
    recipe = DownstreamRecipe.from_config(config)
    mesh = make_mesh(**dataclasses.asdict(recipe.mesh))
    if recipe.mode == "knn":
        vote(recipe, config.to_dict(), mesh, workdir)
    elif recipe.mode == "test":
        test(recipe, config.to_dict(), mesh, workdir)
    else:
        finetune(recipe, config.to_dict(), mesh, workdir)


def finetune(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Trains a classifier on an encoder, whole or frozen, and tests it."""
    check_batch(mesh, recipe.data.batch_size, recipe.optim.accumulation)
    sources = open_sources(recipe)
    config, checkpoint = config_of_run(workdir), None
    if config is None:
        checkpoint = None if recipe.init_from == SCRATCH else find_encoder(recipe.init_from, recipe.model)
        config = model_config(recipe, checkpoint, sources["train"].class_names)
    task = make_task(recipe, config)
    schedule = WarmupCosine.of_recipe(recipe, len(sources["train"]))
    optimizer = finetuning_optimizer(schedule, recipe.optim)
    trainer = Trainer(task, optimizer, mesh, recipe.optim.accumulation, recipe.optim.ema_decay)
    claim(workdir, values | {"config": config.to_dict()}, sources["train"])

    describe(recipe, trainer, sources, schedule)
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    validation = MultiView(
        trainer.graphdef,
        batch_sharding(mesh),
        views(recipe, config, segments=1, crops=1),
        test_batch_size(recipe, mesh),
        broken.add,
        num_videos=recipe.eval.videos,
    )

    def initial_state():
        return trainer.init_state() if checkpoint is None else trainer.state_from(task.load(checkpoint))

    def evaluate(params, at_end: bool):
        if "val" not in sources:
            return {}, {}
        try:
            predictions = validation.measure(params, sources["val"])
        except VideoReadError as error:  # no reason to lose what was trained
            print(f"warning: {error}", flush=True)
            return {}, {}
        scores = scores_of_recipe(recipe, predictions, sources["val"])
        numbers = {f"val_{name}": value for name, value in scores.items() if value is not None}
        if is_best(numbers, recipe.problem_type, workdir):
            write_model(best_model_folder(workdir), trainer, params, recipe.data.stride)
        return numbers, {}

    clips = training_clips(recipe, config)
    if not train(trainer, schedule, sources["train"], clips, recipe, workdir, initial_state, broken, evaluate):
        print(f"{workdir} is finished: all {schedule.total_steps} steps are done.")
    if "test" in sources and not is_tested(recipe, workdir, sources["test"]):
        model = VideoMAEForVideoClassification.from_pretrained(model_folder(workdir), dtype=task.dtype)
        write(recipe, workdir, multi_view(recipe, model, mesh, broken)(sources["test"]), sources["test"])
    report(recipe, workdir, broken)


def test(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Tests a trained classifier on many views of each video."""
    checkpoint = find_encoder(recipe.init_from, recipe.model)
    if not checkpoint.has("classifier"):
        raise ValueError(f"init_from={recipe.init_from} has no classifier to test: train it first, with mode=finetune.")
    config = classifier_config(checkpoint, recipe.model, problem_type=recipe.problem_type)
    source = open_for_model(recipe, config)
    claim(workdir, values, source)
    broken = BrokenVideos(workdir, (), recipe.data.max_broken_share)
    if not is_tested(recipe, workdir, source):
        print(f"{'model':9} {recipe.init_from}, {config.num_labels} classes")
        print(f"{'data':9} {len(source)} videos of {source.name}", flush=True)
        model = VideoMAEForVideoClassification.from_checkpoint(
            dataclasses.replace(checkpoint, config=config), dtype=compute_dtype(recipe.compute_dtype)
        )
        write(recipe, workdir, multi_view(recipe, model, mesh, broken)(source), source)
    report(recipe, workdir, broken)


def vote(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Classifies videos by the nearest training videos in the encoder's features; nothing is trained."""
    model = encoder(recipe)
    sources = open_sources(recipe)
    claim(workdir, values, sources["train"])
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    if not is_tested(recipe, workdir, sources["test"]):
        features = multi_view(recipe, model, mesh, broken, pooled_features)
        bank, queries = features(sources["train"]), features(sources["test"])
        predictions = knn.vote(bank, queries, len(sources["train"].class_names), **dataclasses.asdict(recipe.knn))
        write(recipe, workdir, predictions, sources["test"])
    report(recipe, workdir, broken)


def encoder(recipe: DownstreamRecipe) -> VideoMAEModel | VideoMAEForVideoClassification:
    """The model whose features are compared: with its norm after pooling, where it has one."""
    dtype = compute_dtype(recipe.compute_dtype)
    if recipe.init_from == SCRATCH:
        config = classifier_config(None, recipe.model)
        return VideoMAEModel(config, dtype=dtype, rngs=nnx.Rngs(recipe.seed))
    checkpoint = find_encoder(recipe.init_from, recipe.model)
    checkpoint = dataclasses.replace(checkpoint, config=classifier_config(checkpoint, recipe.model))
    cls = VideoMAEForVideoClassification if checkpoint.has("classifier") else VideoMAEModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders that are not used
        return cls.from_checkpoint(checkpoint, dtype=dtype)


def open_sources(recipe: DownstreamRecipe) -> dict[str, VideoSource]:
    """The sets of videos by name, `train`, `val`, `test`, all with the classes of `train`.

    Raises:
      ValueError: one is not there or cannot be understood, or has other labels; it says which key to set.
    """
    train_set = open_videos("path", recipe.data.path, None, recipe.problem_type)
    names = train_set.class_names
    sources = {"train": train_set}
    if recipe.data.val_path:
        sources["val"] = open_videos("val_path", recipe.data.val_path, names, recipe.problem_type)
    if recipe.data.test_path:
        sources["test"] = open_videos("test_path", recipe.data.test_path, names, recipe.problem_type)
    elif "val" in sources:
        sources["test"] = sources["val"]
    if recipe.problem_type == "single_label_classification":
        check_classes(train_set)
        for source in sources.values():
            if source.labels is not None and (source.labels == NO_LABEL).all():
                raise ValueError(f"none of the {len(source)} videos of {source.name} has a label to compare with.")
    if recipe.augment.flip and recipe.trains:
        check_flip(names)
    return sources


def open_videos(key: str, path: str, class_names: tuple[str, ...] | None, problem_type: str) -> VideoSource:
    """A set of videos; errors name the key of the recipe."""
    try:
        return open_source(path, class_names, problem_type)
    except (ValueError, OSError) as error:
        raise ValueError(f"config.data.{key}: {error}.\nSet it with --config.data.{key}=PATH.") from error


def open_for_model(recipe: DownstreamRecipe, config: VideoMAEConfig) -> VideoSource:
    """The test videos, with the classes of a trained model."""
    key = "test_path" if recipe.data.test_path else "val_path"
    path, names = getattr(recipe.data, key), tuple(config.id2label.values())
    unnamed = all(name.startswith(UNNAMED) for name in names)
    source = open_videos(key, path, None if unnamed else names, recipe.problem_type)
    if unnamed and len(source.class_names) > len(names):
        raise ValueError(
            f"config.data.{key}: {source.name} has {len(source.class_names)} classes, init_from={recipe.init_from} "
            f"{len(names)}."
        )
    if unnamed and not all(name.isdigit() for name in source.class_names):
        print(f"{'note':9} the model's classes have no names: taken to be the data's, in the order of their names")
    return source


def check_classes(source: VideoSource) -> None:
    """Raises a ValueError where training videos have nothing to teach; prints the classes without any."""
    if len(source.class_names) < 2:
        raise ValueError(
            f"config.data.path: {source.name} has {len(source.class_names)} classes; a classifier needs at least two."
        )
    if source.labels is not None and (missing := int((source.labels == NO_LABEL).sum())):
        raise ValueError(f"config.data.path: {missing} of {len(source)} videos of {source.name} have no label.")
    if empty := empty_classes(source):
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        print(f"{'note':9} {len(empty)} of {len(source.class_names)} classes have no training videos: {shown}")


def model_config(
    recipe: DownstreamRecipe, checkpoint: Checkpoint | None, class_names: tuple[str, ...]
) -> VideoMAEConfig:
    """The classifier's: the checkpoint's encoder or a new one, with the classes of the data."""
    attentive = recipe.mode == "attentive"
    return classifier_config(
        checkpoint,
        recipe.model,
        id2label=dict(enumerate(class_names)),
        problem_type=recipe.problem_type,
        use_mean_pooling=not attentive,
        attentive_pooling=attentive,
    )


def config_of_run(workdir: Path) -> VideoMAEConfig | None:
    """The classifier's, as a run wrote it when it began: what it began with need not be there any more.

    None where no such run has begun.
    """
    recorded = json.loads((workdir / "recipe.json").read_text()) if is_started(workdir) else {}
    return VideoMAEConfig.from_dict(recorded["config"]) if "config" in recorded else None


def make_task(recipe: DownstreamRecipe, config: VideoMAEConfig) -> Finetuning:
    """What is trained, and how clips are augmented on the device."""
    augment, optim = recipe.augment, recipe.optim
    return Finetuning(
        config,
        flip=augment.flip,
        erasing=augment.erasing,
        mixing=Mixing(augment.mixup, augment.cutmix, augment.mix_probability, augment.mix_switch),
        label_smoothing=augment.label_smoothing,
        frozen=FROZEN.get(recipe.mode, optim.freeze),
        adapter_rank=optim.adapter_rank,
        seed=recipe.seed,
        dtype=compute_dtype(recipe.compute_dtype),
    )


def training_clips(recipe: DownstreamRecipe, config: VideoMAEConfig) -> FinetuningClips:
    """What is made of a training video on the host."""
    size, data, augment = config.clip_size, recipe.data, recipe.augment
    operations = tuple(name for name in OPERATIONS if augment.geometric or name not in GEOMETRIC)
    distort = RandAugment.from_name(augment.randaugment, operations) if augment.randaugment else None
    return FinetuningClips(size[0], data.stride, data.views, size[1:], distort, augment.crop)


def views(recipe: DownstreamRecipe, config: VideoMAEConfig, segments: int, crops: int) -> MultiViewClips:
    """What is made of a video that is measured."""
    return MultiViewClips(config.num_frames, recipe.data.stride, segments, crops, config.clip_size[1:])


def test_batch_size(recipe: DownstreamRecipe, mesh: Mesh) -> int:
    """Videos at a time, a multiple of what the batch is split over."""
    shards = batch_shards(mesh)
    return shards * -(-recipe.test.batch_size // shards)


def placed(model: nnx.Module, mesh: Mesh) -> tuple[nnx.GraphDef, PyTree]:
    """A model's structure, and its parameters on the devices."""
    graphdef, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    return graphdef, jax.device_put(params, shardings(params, mesh))


def multi_view(
    recipe: DownstreamRecipe, model: nnx.Module, mesh: Mesh, broken: BrokenVideos, per_clip: PerClip = class_scores
) -> Callable[[VideoSource], Predictions]:
    """Measures a model on all the views of videos."""
    graphdef, params = placed(model, mesh)
    clips = views(recipe, model.config, recipe.test.segments, recipe.test.crops)
    measure = MultiView(
        graphdef, batch_sharding(mesh), clips, test_batch_size(recipe, mesh), broken.add, per_clip
    ).measure
    return functools.partial(measure, params)


def scores_of_recipe(recipe: DownstreamRecipe, predictions: Predictions, source: VideoSource) -> Scores:
    """How good predictions are, by what is asked for."""
    skip_broken = recipe.test.skip_broken
    return scores_of(predictions, source.class_names, recipe.problem_type, skip_broken=skip_broken)


def settings_of(recipe: DownstreamRecipe, source: VideoSource) -> dict[str, Any]:
    """How the videos of a test are measured."""
    votes = {"knn": dataclasses.asdict(recipe.knn)} if recipe.mode == "knn" else {}
    videos = f"{source.name}, {source.digest()}"
    return {"mode": recipe.mode, "videos": videos, **dataclasses.asdict(recipe.test), **votes}


def is_tested(recipe: DownstreamRecipe, workdir: Path, source: VideoSource) -> bool:
    """Whether the results of just this test are there."""
    file = workdir / RESULTS_FILE
    tested = file.exists() and json.loads(file.read_text())["settings"] == settings_of(recipe, source)
    if tested:
        print(f"{file} is there: the test is done.")
    return tested


def write(recipe: DownstreamRecipe, workdir: Path, predictions: Predictions, source: VideoSource) -> None:
    """Scores predictions, and leaves all there is to say of them in the folder."""
    scores = scores_of_recipe(recipe, predictions, source)
    if jax.process_index() == 0:
        write_results(workdir, scores, predictions, source.class_names, settings_of(recipe, source))
    for line in results.describe(scores, predictions, source.class_names, num_segments=recipe.test.segments):
        print(f"{'test':9} {line}", flush=True)


def is_best(numbers: dict[str, float], problem_type: str, workdir: Path) -> bool:
    """Whether no line of the log is as good as these numbers; the first of equals is the best."""
    key = f"val_{BEST[problem_type]}"
    return key in numbers and all(row[key] < numbers[key] for row in read_metrics(workdir) if key in row)


def describe(
    recipe: DownstreamRecipe, trainer: Trainer, sources: dict[str, VideoSource], schedule: WarmupCosine
) -> None:
    """Prints what will run."""
    config, batch_size = trainer.task.config, recipe.data.batch_size
    params = trainer.abstract_state.params
    total, trained = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, trainer.trained(params)))
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind} device{'s'[: jax.device_count() > 1]}"
    names = list(config.id2label.values())
    frames = f"{recipe.data.stride} apart" if recipe.data.stride else "spread over the video"
    lines = {
        "from": "random weights" if recipe.init_from == SCRATCH else f"the weights of {recipe.init_from}",
        "model": f"{recipe.model['size']}, {recipe.mode}: {trained:,} of {total:,} parameters, "
        f"{trainer.task.dtype.name} on {devices}",
        "clip": f"{' x '.join(map(str, config.clip_size))}, frames {frames}, "
        f"{' x '.join(map(str, config.grid))} tokens",
        "classes": f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
        "data": ", ".join(f"{len(source)} videos of {source.name} ({name})" for name, source in sources.items()),
        "steps": f"{schedule.total_steps} of {batch_size} videos x {recipe.data.views} views, "
        f"{schedule.total_steps * batch_size / len(sources['train']):.1f} epochs",
        "rate": f"{recipe.optim.base_lr} x {batch_size}/256 = {schedule.peak_lr:.3g} after {schedule.warmup_steps} "
        f"steps, then a cosine to {schedule.min_lr:.3g}; layer decay {recipe.optim.layer_decay}",
    }
    if config.position_grid is not None:
        lines["positions"] = f"resampled from {' x '.join(map(str, config.position_grid))} tokens"
    for name, line in lines.items():
        print(f"{name:9} {line}")
    print(flush=True)


def report(recipe: DownstreamRecipe, workdir: Path, broken: BrokenVideos) -> None:
    """Says where what came out is."""
    lines = [("run", workdir)]
    if recipe.trains:
        lines.append(("model", model_folder(workdir)))
    if (workdir / RESULTS_FILE).exists():
        content = json.loads((workdir / RESULTS_FILE).read_text())
        name = BEST[recipe.problem_type]
        score = "not given" if content[name] is None else f"{content[name]:.2f}"
        lines.append(("result", f"{name} {score}, {content['num_videos']} videos; {workdir / RESULTS_FILE}"))
    if len(broken):
        lines.append(("broken", f"{len(broken)} videos, listed in {broken.file}"))
    print()
    for name, line in lines:
        print(f"{name:9} {line}")


if __name__ == "__main__":
    command_line.run(main)
