"""Pre-trains a video masked autoencoder.

    python train.py --config configs/quickstart.py
    python train.py --config configs/k400_pretrain.py:size=large --config.data.path=k400/train.csv --workdir runs/k400

The same command continues an interrupted run.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.clips import MultiViewClips, PretrainingClips
from videomae_jax.data.sources import VideoSource
from videomae_jax.data.video import VideoReadError
from videomae_jax.evaluation.knn import vote
from videomae_jax.evaluation.multiview import MultiView
from videomae_jax.evaluation.reconstruction import Reconstruction
from videomae_jax.evaluation.scores import classification_scores
from videomae_jax.model.masking import Masking
from videomae_jax.model.readout import pooled_features
from videomae_jax.training import command_line
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.downstream import NEIGHBOURS, TEMPERATURE
from videomae_jax.training.loop import picture_file, train
from videomae_jax.training.mesh import batch_sharding, batch_shards, check_batch, make_mesh
from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.model_card import write_model_card
from videomae_jax.training.optimizer import WarmupCosine, adamw
from videomae_jax.training.processes import is_first
from videomae_jax.training.programs import keep_programs
from videomae_jax.training.progress import say
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.state import Trainer
from videomae_jax.training.tasks import Pretraining
from videomae_jax.training.video_sets import check_labels, in_words, open_video_set
from videomae_jax.training.workdir import claim, is_best, is_started, keep_best, model_folder


def main(config: ConfigDict, workdir: Path) -> None:
    """Pre-trains by a recipe of `configs/` in the folder `workdir`."""
    recipe = Recipe.from_config(config)
    task = Pretraining.of_recipe(recipe)
    mesh = make_mesh(**dataclasses.asdict(recipe.mesh))
    keep_programs(mesh)
    with jax.set_mesh(mesh):
        pretrain(recipe, config.to_dict(), task, mesh, workdir)


def pretrain(recipe: Recipe, values: dict, task: Pretraining, mesh: Mesh, workdir: Path) -> None:
    """Trains, and says what came of it."""
    # Whatever is wrong with the recipe or the data comes out here, before anything is written.
    check_batch(mesh, recipe.data.batch_size, recipe.optim.accumulation)
    sources = open_sources(recipe)
    schedule = WarmupCosine.of_recipe(recipe, len(sources["train"]))
    trainer = Trainer(task, adamw(schedule, recipe.optim), mesh, recipe.optim.accumulation)
    if recipe.init_from is not None and not is_started(workdir):
        task.find(recipe.init_from)
    claim(workdir, values, sources["train"].class_names, sources["train"])

    describe(recipe, trainer, sources, schedule)
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    measure = Reconstruction(
        task,
        trainer.graphdef,
        batch_sharding(mesh),
        num_clips=recipe.eval.clips,
        batch_size=evaluation_batch_size(recipe, batch_shards(mesh)),
        stride=recipe.data.stride,
        report=broken.add,
    ).measure

    features = MultiView(
        trainer.graphdef,
        batch_sharding(mesh),
        MultiViewClips(task.config.num_frames, recipe.data.stride, 1, 1, task.config.clip_size[1:]),
        evaluation_batch_size(recipe, batch_shards(mesh)),
        broken.add,
        pooled_features,
        recipe.eval.knn_videos,
    )

    def evaluate(step: int, params, at_end: bool):
        numbers, pictures = {}, {}
        watched = "val" if "val" in sources else "train"
        for name in sources if at_end else [watched]:
            try:
                values, pictures[name] = measure(params, sources[name])
            except VideoReadError as error:  # no reason to lose what was trained
                print(f"warning: {error}", flush=True)
                continue
            numbers |= {f"{name}_{key}": value for key, value in values.items()}
        if math.isfinite(loss := numbers.get("val_loss", math.nan)):
            measured = f"{sources['val'].digest()}, {recipe.eval.clips}"
            if is_best(workdir, step, -loss, measured):
                keep_best(workdir, step, -loss, measured, trainer, params, recipe.data.stride)
        if recipe.eval.knn_videos:
            try:
                numbers["val_knn_top1"] = knn_top1(features, params, sources)
            except VideoReadError as error:
                print(f"warning: {error}", flush=True)
        return numbers, pictures

    clips = PretrainingClips(task.config.num_frames, recipe.data.stride, recipe.data.views, task.config.clip_size[1:])

    def initial_state():
        if recipe.init_from is None:
            return trainer.init_state()
        return trainer.state_from(task.load(recipe.init_from))

    if not train(trainer, schedule, sources["train"], clips, recipe, workdir, initial_state, broken, evaluate):
        print(f"{workdir} is finished: all {schedule.total_steps} steps are done.")
    report(workdir, sources, broken)


def open_sources(recipe: Recipe) -> dict[str, VideoSource]:
    """The sets of videos by name, `train`, `val`, `test`.

    Labels play no part, so that their classes need not agree, unless neighbours vote.

    Raises:
      ValueError: one is not there or cannot be understood; it says which key to set, and how to do without.
    """
    hint = "To try without any: python train.py --config configs/quickstart.py"
    sources = {"train": open_video_set("path", recipe.data.path, recipe.data.max_broken_share, hint=hint)}
    for name, key in (("val", "val_path"), ("test", "test_path")):
        if path := getattr(recipe.data, key):
            votes = recipe.eval.knn_videos and name == "val"
            classes = sources["train"].class_names if votes else None
            sources[name] = open_video_set(key, path, recipe.data.max_broken_share, classes, hint=hint)
    if recipe.eval.knn_videos:
        if "val" not in sources or not sources["train"].class_names:
            raise ValueError(
                f"config.eval.knn_videos={recipe.eval.knn_videos}: neighbours vote for the classes of data.val_path, "
                "and know those of data.path; give both with labels, or leave it empty."
            )
        check_labels("val_path", sources["val"])
    return sources


def knn_top1(features: MultiView, params: PyTree, sources: dict[str, VideoSource]) -> float:
    """Percent of the validation videos whose class the nearest of the training videos know."""
    bank, videos = (features.measure(params, sources[name]) for name in ("train", "val"))
    classes = sources["train"].class_names
    votes = vote(bank, videos, len(classes), neighbours=NEIGHBOURS, temperature=TEMPERATURE)
    return classification_scores(votes, classes, skip_broken=True)["top1"]


def evaluation_batch_size(recipe: Recipe, shards: int) -> int:
    """As many clips a device as in training, but no more than there are to measure."""
    in_training = recipe.data.batch_size * recipe.data.views // (shards * recipe.optim.accumulation)
    return shards * min(in_training, -(-recipe.eval.clips // shards))


def describe(recipe: Recipe, trainer: Trainer, sources: dict[str, VideoSource], schedule: WarmupCosine) -> None:
    """Prints what will run."""
    config, masking = trainer.task.config, trainer.task.masking
    batch_size, encoder = recipe.data.batch_size, masking.encoder
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.abstract_state.params))
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind} device{'s'[: jax.device_count() > 1]}"
    epochs = schedule.total_steps * batch_size / len(sources["train"])
    lines = {} if recipe.init_from is None else {"from": f"the weights of {recipe.init_from}"}
    lines |= {
        "model": f"{recipe.model['size']}, {parameters:,} parameters, {trainer.task.dtype.name} on {devices}",
        "clip": f"{' x '.join(map(str, config.clip_size))}, {' x '.join(map(str, config.grid))} tokens",
        "mask": f"{encoder.kind} {encoder.ratio}, really {encoder.effective_ratio:.4f}: "
        f"{masking.num_visible} of {config.num_patches} tokens visible, {masking.num_decoded} decoded",
        "data": in_words(sources),
        "steps": f"{schedule.total_steps} of {batch_size} clips x {recipe.data.views} views, {epochs:.1f} epochs",
        "rate": f"{recipe.optim.base_lr} x {batch_size}/256 = {schedule.peak_lr:.3g} after {schedule.warmup_steps} "
        f"steps, then a cosine to {schedule.min_lr:.3g}",
    }
    for name, line in lines.items():
        say(name, line)
    for difference in differences(config, masking):
        say("differs", f"from the published model: {difference}")
    print(flush=True)


def differences(config: VideoMAEConfig, masking: Masking) -> Iterator[str]:
    """Where a model is not as published, and why one would want that."""
    if config.position_embedding_type == "sincos_3d":
        yield "3-D positions (sincos_3d): neighbours in every direction look alike, and a small model learns sooner"
    if config.tubelet_size != 2:
        yield f"tokens of {config.tubelet_size} frames, not 2"
    if masking.decoder is not None:
        yield "the decoder does a part of what is hidden, as in V2: cheaper steps"
    if not config.norm_pix_loss:
        yield "raw pixels as targets, not normalised ones: the loss compares with predictors that need no model"


def report(workdir: Path, sources: dict[str, VideoSource], broken: BrokenVideos) -> None:
    """Says what came out and where it is."""
    broken.share()
    if is_first():
        write_model_card(workdir)
    row = read_metrics(workdir)[-1]
    lines = [("run", workdir), ("model", model_folder(workdir))]
    for name, source in sources.items():
        if row.get(f"{name}_loss") is None or row[f"{name}_relative_loss"] is None:
            continue  # a set that was named after the run, that could not be read, or a loss that is not finite
        seen = "trained on" if name == "train" else "held out"
        relative = f"{row[f'{name}_relative_loss']:.3f} of the loss of each clip's mean colour"
        if f"{name}_relative_to_fill" in row:
            relative += f", {row[f'{name}_relative_to_fill']:.3f} of a distance-weighted fill from the visible patches"
        lines.append(("loss", f"{source.name} ({seen}): {row[f'{name}_loss']:.4f}, {relative}"))
        lines.append(
            ("picture", f"{picture_file(workdir, name, row['step'])}  (original | masked | reconstruction, twice)")
        )
    if len(broken):
        lines.append(("broken", f"{len(broken)} videos, listed in {broken.file}"))
    print()
    for name, line in lines:
        say(name, line)


if __name__ == "__main__":
    command_line.run(main)
