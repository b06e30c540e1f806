"""Fine-tunes, probes and tests the encoder of a video masked autoencoder.

    python eval.py --config configs/ucf101_finetune.py --config.init_from=runs/ucf101_pretrain
    python eval.py --config configs/ucf101_finetune.py --config.mode=test --config.init_from=runs/ucf101_finetune \
        --workdir runs/ucf101_test

The same command continues an interrupted run.
"""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from videomae_jax import VideoMAEForVideoClassification, VideoMAEModel
from videomae_jax.config import VideoMAEConfig, find_processor
from videomae_jax.data.clips import FinetuningClips
from videomae_jax.data.randaugment import GEOMETRIC, OPERATIONS, RandAugment
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError
from videomae_jax.evaluation import knn, results
from videomae_jax.evaluation.multiview import MultiView, measuring, videos_at_a_time, views_of
from videomae_jax.evaluation.predictions import Predictions
from videomae_jax.evaluation.scores import BEST, Scores, scores_of
from videomae_jax.model.readout import pooled_features
from videomae_jax.training import command_line
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.downstream import SCRATCH, DownstreamRecipe
from videomae_jax.training.finetuning import Finetuning
from videomae_jax.training.init_from import classifier_config, find_encoder, trained_config
from videomae_jax.training.loop import train
from videomae_jax.training.mesh import batch_sharding, check_batch, compute_dtype, make_mesh
from videomae_jax.training.model_card import write_model_card
from videomae_jax.training.optimizer import WarmupCosine, finetuning_optimizer
from videomae_jax.training.processes import is_first, wait_for_all
from videomae_jax.training.programs import keep_programs
from videomae_jax.training.progress import say
from videomae_jax.training.state import Trainer
from videomae_jax.training.video_sets import in_words, open_downstream_sets, open_test_set
from videomae_jax.training.workdir import (
    CONFIG,
    RESULTS_FILE,
    claim,
    is_best,
    keep_best,
    model_folder,
    recorded_config,
)
from videomae_jax.weights.checkpoint import Checkpoint
from videomae_jax.weights.files import digest, find_weights


def main(config: ConfigDict, workdir: Path) -> None:
    """Runs a recipe of `configs/` in the folder `workdir`."""
    # Whatever is wrong with the recipe, the checkpoint or the data comes out here, before anything is written.
    recipe = DownstreamRecipe.from_config(config)
    mesh = make_mesh(**dataclasses.asdict(recipe.mesh))
    keep_programs(mesh)
    run = {"knn": vote, "test": test}.get(recipe.mode, finetune)
    with jax.set_mesh(mesh):
        run(recipe, config.to_dict(), mesh, workdir)


def finetune(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Trains a classifier on an encoder, whole or frozen, and tests it."""
    check_batch(mesh, recipe.data.batch_size, recipe.optim.accumulation)
    sources = open_downstream_sets(recipe)
    config, checkpoint = recorded_config(workdir), None
    if config is None:
        checkpoint = find_encoder(recipe)
        config = trained_config(recipe, checkpoint, sources["train"].class_names)
    task, clips = Finetuning.of_recipe(recipe, config), training_clips(recipe, config)
    schedule = WarmupCosine.of_recipe(recipe, len(sources["train"]))
    optimizer = finetuning_optimizer(schedule, recipe.optim)
    trainer = Trainer(task, optimizer, mesh, recipe.optim.accumulation, recipe.optim.ema_decay)
    task.check_frozen(trainer.abstract_state.params)
    claim(workdir, values | {CONFIG: config.to_dict()}, sources["train"].class_names, sources["train"])

    describe(recipe, trainer, sources, schedule)
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    validation = MultiView(
        trainer.graphdef,
        batch_sharding(mesh),
        views_of(recipe, config, segments=1, crops=1),
        videos_at_a_time(recipe, mesh),
        broken.add,
        num_videos=recipe.eval.videos,
    )

    def initial_state():
        # A run may have begun and have nothing to go on from, where somebody removed its checkpoints and its model.
        begins_with = checkpoint or find_encoder(recipe)
        return trainer.init_state() if begins_with is None else trainer.state_from(task.load(begins_with))

    def evaluate(step: int, params, at_end: bool):
        if "val" not in sources:
            return {}, {}
        try:
            predictions = validation.measure(params, sources["val"])
        except VideoReadError as error:  # no reason to lose what was trained
            print(f"warning: {error}", flush=True)
            return {}, {}
        scores = score(recipe, predictions, sources["val"])
        best = scores[BEST[recipe.problem_type]]
        measured = f"{sources['val'].digest()}, {recipe.eval.videos}, {recipe.test.skip_broken}"
        if best is not None and is_best(workdir, step, best, measured):
            keep_best(workdir, step, best, measured, trainer, params, recipe.data.stride)
        return {f"val_{name}": value for name, value in scores.items() if value is not None}, {}

    if not train(trainer, schedule, sources["train"], clips, recipe, workdir, initial_state, broken, evaluate):
        print(f"{workdir} is finished: all {schedule.total_steps} steps are done.")
    if "test" in sources:
        settings = settings_of(recipe, sources["test"], model_folder(workdir))
        if not is_tested(workdir, settings):
            model = VideoMAEForVideoClassification.from_pretrained(model_folder(workdir), dtype=task.dtype)
            predictions = measuring(recipe, model, mesh, broken.add)(sources["test"])
            write(recipe, workdir, predictions, sources["test"], settings)
    report(recipe, workdir, broken)


def test(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Tests a trained classifier on many views of each video."""
    checkpoint = find_encoder(recipe)
    if not checkpoint.has("classifier"):
        raise ValueError(f"init_from={recipe.init_from} has no classifier to test: train it first, with mode=finetune.")
    if checkpoint.config.problem_type not in (None, recipe.problem_type):
        raise ValueError(
            f"init_from={recipe.init_from} was trained for {checkpoint.config.problem_type}: set "
            f"problem_type={checkpoint.config.problem_type} (it is {recipe.problem_type})."
        )
    config = classifier_config(recipe, checkpoint, problem_type=recipe.problem_type)
    source = open_test_set(recipe, config)
    settings = settings_of(recipe, source, checkpoint.file)
    claim(workdir, values, source.class_names, training=None)
    broken = BrokenVideos(workdir, (), recipe.data.max_broken_share)
    if not is_tested(workdir, settings):
        say("model", f"{recipe.init_from}, {config.num_labels} classes")
        say("data", f"{len(source)} videos of {source.name}")
        note_stride(recipe, checkpoint)
        model = VideoMAEForVideoClassification.from_checkpoint(
            dataclasses.replace(checkpoint, config=config), dtype=compute_dtype(recipe.compute_dtype)
        )
        write(recipe, workdir, measuring(recipe, model, mesh, broken.add)(source), source, settings)
    report(recipe, workdir, broken)


def vote(recipe: DownstreamRecipe, values: dict, mesh: Mesh, workdir: Path) -> None:
    """Classifies videos by the nearest training videos in the encoder's features; nothing is trained."""
    checkpoint = find_encoder(recipe)
    model = encoder(recipe, checkpoint)
    sources = open_downstream_sets(recipe)
    if recipe.knn.neighbours > len(sources["train"]):
        raise ValueError(
            f"config.knn.neighbours={recipe.knn.neighbours} are more than the {len(sources['train'])} videos to vote."
        )
    settings = settings_of(recipe, sources["test"], None if checkpoint is None else checkpoint.file)
    claim(workdir, values, sources["train"].class_names, sources["train"])
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    if not is_tested(workdir, settings):
        say("model", "random weights" if checkpoint is None else f"{recipe.init_from}, its encoder's pooled tokens")
        say("data", in_words({name: sources[name] for name in ("train", "test")}))
        if checkpoint is not None:
            note_stride(recipe, checkpoint)
        features = measuring(recipe, model, mesh, broken.add, pooled_features)
        bank, queries = features(sources["train"]), features(sources["test"])
        predictions = knn.vote(bank, queries, len(sources["train"].class_names), **dataclasses.asdict(recipe.knn))
        write(recipe, workdir, predictions, sources["test"], settings)
    report(recipe, workdir, broken)


def encoder(recipe: DownstreamRecipe, checkpoint: Checkpoint | None) -> VideoMAEModel | VideoMAEForVideoClassification:
    """The model whose features are compared: with its norm after pooling, where it has one."""
    config, dtype = classifier_config(recipe, checkpoint), compute_dtype(recipe.compute_dtype)
    if checkpoint is None:
        return VideoMAEModel(config, dtype=dtype, rngs=nnx.Rngs(recipe.seed))
    cls = VideoMAEForVideoClassification if checkpoint.has("classifier") else VideoMAEModel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders that are not used
        return cls.from_checkpoint(dataclasses.replace(checkpoint, config=config), dtype=dtype)


def training_clips(recipe: DownstreamRecipe, config: VideoMAEConfig) -> FinetuningClips:
    """What is made of a training video on the host."""
    size, data, augment = config.clip_size, recipe.data, recipe.augment
    operations = tuple(name for name in OPERATIONS if augment.geometric or name not in GEOMETRIC)
    distort = RandAugment.from_name(augment.randaugment, operations) if augment.randaugment else None
    return FinetuningClips(size[0], data.stride, data.views, size[1:], distort, augment.crop)


def note_stride(recipe: DownstreamRecipe, checkpoint: Checkpoint) -> None:
    """Says so where a model is tested on other frames than it was trained on."""
    processor = find_processor(checkpoint.file.parent)
    saved = {} if processor is None else json.loads(processor.read_text())
    if "frame_stride" in saved and saved["frame_stride"] != recipe.data.stride:
        trained, tested = frames_of(saved["frame_stride"]), frames_of(recipe.data.stride)
        say("note", f"the model was trained on frames {trained}, and is tested on frames {tested} (data.stride)")


def frames_of(stride: int | None) -> str:
    """How far a clip's frames are from each other, in words."""
    return f"{stride} apart" if stride else "spread over the video"


def settings_of(recipe: DownstreamRecipe, source: VideoSource, model: Path | None) -> dict[str, Any]:
    """What a result depends on: the model's weights (None: random ones), the videos, and how they are measured."""
    votes = {"knn": dataclasses.asdict(recipe.knn)} if recipe.mode == "knn" else {}
    return {
        "mode": recipe.mode,
        "init_from": recipe.init_from,
        "weights": "random" if model is None else digest(find_weights(model)),
        "problem_type": recipe.problem_type,
        "videos": f"{source.name}, {source.digest()}",
        "stride": recipe.data.stride,
        **dataclasses.asdict(recipe.test),
        **votes,
    }


def is_tested(workdir: Path, settings: dict[str, Any]) -> bool:
    """Whether the results of this test are there; says so."""
    tested = results.is_tested(workdir, settings)
    if tested:
        print(f"{workdir / RESULTS_FILE} is there: the test is done.")
    return tested


def score(recipe: DownstreamRecipe, predictions: Predictions, source: VideoSource) -> Scores:
    """How good predictions are, by what is asked for."""
    skip_broken = recipe.test.skip_broken
    return scores_of(predictions, source.class_names, recipe.problem_type, skip_broken=skip_broken)


def write(
    recipe: DownstreamRecipe, workdir: Path, predictions: Predictions, source: VideoSource, settings: dict[str, Any]
) -> None:
    """Scores predictions, and leaves all there is to say of them in the folder."""
    scores = score(recipe, predictions, source)
    if is_first():
        results.write_results(workdir, scores, predictions, source.class_names, settings)
    wait_for_all("results written")
    for line in results.describe(scores, predictions, source.class_names, num_segments=recipe.test.segments):
        say("test", line)


def describe(
    recipe: DownstreamRecipe, trainer: Trainer, sources: dict[str, VideoSource], schedule: WarmupCosine
) -> None:
    """Prints what will run."""
    config, batch_size = trainer.task.config, recipe.data.batch_size
    params = trainer.abstract_state.params
    total, trained = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, trainer.trained(params)))
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind} device{'s'[: jax.device_count() > 1]}"
    names = list(config.id2label.values())
    lines = {
        "from": "random weights" if recipe.init_from == SCRATCH else f"the weights of {recipe.init_from}",
        "model": f"{recipe.model['size']}, {recipe.mode}: {trained:,} of {total:,} parameters, "
        f"{trainer.task.dtype.name} on {devices}",
        "clip": f"{' x '.join(map(str, config.clip_size))}, frames {frames_of(recipe.data.stride)}, "
        f"{' x '.join(map(str, config.grid))} tokens",
        "classes": f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
        "data": in_words(sources),
        "steps": f"{schedule.total_steps} of {batch_size} videos x {recipe.data.views} views, "
        f"{schedule.total_steps * batch_size / len(sources['train']):.1f} epochs",
        "rate": f"{recipe.optim.base_lr} x {batch_size}/256 = {schedule.peak_lr:.3g} after {schedule.warmup_steps} "
        f"steps, then a cosine to {schedule.min_lr:.3g}; layer decay {recipe.optim.layer_decay}",
    }
    if config.position_grid is not None:
        lines["positions"] = f"resampled from {' x '.join(map(str, config.position_grid))} tokens"
    for name, line in lines.items():
        say(name, line)
    print(flush=True)


def report(recipe: DownstreamRecipe, workdir: Path, broken: BrokenVideos) -> None:
    """Says where what came out is."""
    broken.share()
    lines = [("run", workdir)]
    if recipe.trains:
        if is_first():
            write_model_card(workdir)
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
        say(name, line)


if __name__ == "__main__":
    command_line.run(main)
