"""Pre-trains a video masked autoencoder.

    python train.py --config configs/quickstart.py
    python train.py --config configs/k400_pretrain.py:size=large --config.data.path=k400/train.csv --workdir runs/k400

The same command continues an interrupted run.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from videomae_jax.config import VideoMAEConfig
from videomae_jax.data.sources import VideoSource, open_source
from videomae_jax.evaluation.reconstruction import Reconstruction
from videomae_jax.model.masking import Masking
from videomae_jax.training import command_line
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.loop import picture_file, train
from videomae_jax.training.mesh import batch_sharding, batch_shards, make_mesh
from videomae_jax.training.metrics import read_metrics
from videomae_jax.training.optimizer import adamw, warmup_cosine
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.state import Trainer
from videomae_jax.training.tasks import Pretraining
from videomae_jax.training.workdir import claim, model_folder


def main(config: ConfigDict, workdir: Path) -> None:
    """Pre-trains by a recipe of `configs/` in the folder `workdir`."""
    recipe = Recipe.from_config(config)
    trainer, schedule, sources, total_steps = prepare(recipe)
    claim(workdir, config.to_dict(), sources["train"].class_names)
    broken = BrokenVideos(workdir, sources["train"].paths, recipe.data.max_broken_share)
    measure = Reconstruction(
        trainer.task,
        trainer.graphdef,
        batch_sharding(trainer.mesh),
        num_clips=recipe.eval.clips,
        batch_size=evaluation_batch_size(recipe, trainer),
        stride=recipe.data.stride,
        report=broken.add,
    ).measure

    def evaluate(params, at_end: bool):
        numbers, pictures = {}, {}
        watched = "val" if "val" in sources else "train"
        for name in sources if at_end else [watched]:
            values, pictures[name] = measure(params, sources[name])
            numbers |= {f"{name}_{key}": value for key, value in values.items()}
        return numbers, pictures

    if not train(trainer, schedule, sources["train"], recipe, total_steps, workdir, broken, evaluate):
        print(f"{workdir} is finished: {total_steps} steps. Its model is in {model_folder(workdir)}.")
    report(workdir, sources, broken)


def prepare(recipe: Recipe) -> tuple[Trainer, optax.Schedule, dict[str, VideoSource], int]:
    """Finds what is wrong with a recipe before the first step, and prints what will run.

    Returns:
      The trainer, the learning rate of each step, the sets of videos by name (`train`, `val`, `test`) and the number
      of steps.

    Raises:
      ValueError: sizes that do not fit together, or data that is not there.
    """
    config = VideoMAEConfig.from_size(**recipe.model)
    masking = Masking(**dataclasses.asdict(recipe.mask), grid=config.grid)
    mesh = make_mesh(**dataclasses.asdict(recipe.mesh))
    batch_size, parts = recipe.data.batch_size, batch_shards(mesh) * recipe.optim.accumulation
    if batch_size % parts:
        raise ValueError(
            f"data.batch_size={batch_size} does not divide over {batch_shards(mesh)} devices (mesh axes data and fsdp) "
            f"times optim.accumulation={recipe.optim.accumulation}: use a multiple of {parts}."
        )
    sources = open_sources(recipe)

    total_steps = recipe.total_steps or round(recipe.total_epochs * len(sources["train"]) / batch_size)
    warmup_steps = round(total_steps * recipe.optim.warmup_epochs / recipe.total_epochs)
    peak_lr, min_lr = (lr * batch_size / 256 for lr in (recipe.optim.base_lr, recipe.optim.min_lr))
    if total_steps <= warmup_steps:
        raise ValueError(
            f"The run has {total_steps} steps, {warmup_steps} of them warm-up: raise total_epochs="
            f"{recipe.total_epochs}, or lower optim.warmup_epochs={recipe.optim.warmup_epochs} or "
            f"data.batch_size={batch_size}."
        )
    schedule = warmup_cosine(peak_lr=peak_lr, min_lr=min_lr, warmup_steps=warmup_steps, total_steps=total_steps)
    optimizer = adamw(
        schedule,
        b1=recipe.optim.b1,
        b2=recipe.optim.b2,
        weight_decay=recipe.optim.weight_decay,
        clip_norm=recipe.optim.clip_norm,
    )
    dtype = compute_dtype(recipe.compute_dtype)
    task = Pretraining(config, masking, recipe.data.flip, recipe.seed, dtype)
    trainer = Trainer(task, optimizer, mesh, recipe.optim.accumulation)
    if recipe.init_from is not None:
        task.find(recipe.init_from)

    encoder, visible = masking.encoder, config.num_patches - masking.encoder.num_masked
    decoded = encoder.num_masked if masking.decoder is None else config.num_patches - masking.decoder.num_masked
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.abstract_state.params))
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind} device{'s'[: jax.device_count() > 1]}"
    print(f"model    {recipe.model['size']}, {parameters:,} parameters, {jnp.dtype(dtype).name} on {devices}")
    print(f"clip     {' x '.join(map(str, config.clip_size))}, {' x '.join(map(str, config.grid))} tokens")
    print(f"mask     {encoder.kind} {encoder.ratio}, really {encoder.effective_ratio:.4f}: ", end="")
    print(f"{visible} of {config.num_patches} tokens visible, {decoded} decoded")
    for name, source in sources.items():
        print(f"data     {name}: {len(source)} videos of {source.name}")
    print(
        f"steps    {total_steps} of {batch_size} clips, {total_steps * batch_size / len(sources['train']):.1f} epochs"
    )
    print(f"rate     {recipe.optim.base_lr} x {batch_size}/256 = {peak_lr:.3g} after {warmup_steps} steps, ", end="")
    print(f"then a cosine to {min_lr:.3g}", flush=True)
    if config.position_embedding_type != "sincos_1d":
        print(
            f"note     position_embedding_type={config.position_embedding_type} differs from the published model's "
            "sincos_1d: with it\n         neighbours in every direction look alike, and a small model learns in "
            "minutes what else takes hours."
        )
    return trainer, schedule, sources, total_steps


def evaluation_batch_size(recipe: Recipe, trainer: Trainer) -> int:
    """As many clips a device as in training, but no more than there are to measure."""
    shards = batch_shards(trainer.mesh)
    in_training = recipe.data.batch_size // (shards * recipe.optim.accumulation)
    return shards * min(in_training, -(-recipe.eval.clips // shards))


def open_sources(recipe: Recipe) -> dict[str, VideoSource]:
    """The sets of videos that the recipe names. Labels play no part, so their classes need not agree.

    Raises:
      ValueError: one is not there or cannot be understood; it says which key to set, and how to do without.
    """
    sources = {}
    for name, key in (("train", "path"), ("val", "val_path"), ("test", "test_path")):
        path = getattr(recipe.data, key)
        if path is None:
            continue
        try:
            sources[name] = open_source(path)
        except ValueError as error:
            raise ValueError(
                f"config.data.{key}: {error}.\nPoint it to your videos with --config.data.{key}=PATH. "
                "To try without any: python train.py --config configs/quickstart.py"
            ) from error
    return sources


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of matrix products: bfloat16 where the device is made for it, when the recipe leaves it open.

    Raises:
      ValueError: an unknown name.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"compute_dtype must be 'auto', 'float32' or 'bfloat16', got {name!r}.")
    return jnp.dtype(name)


def report(workdir: Path, sources: dict[str, VideoSource], broken: BrokenVideos) -> None:
    """Says what came out and where it is."""
    row = read_metrics(workdir)[-1]
    print(f"\nrun       {workdir}\nmodel     {model_folder(workdir)}")
    for name, source in sources.items():
        seen = "trained on" if name == "train" else "not trained on"
        relative = f"{row[f'{name}_relative_loss']:.3f} of the loss of each clip's mean colour"
        if f"{name}_relative_to_fill" in row:
            relative += f", {row[f'{name}_relative_to_fill']:.3f} of a distance-weighted fill from the visible patches"
        print(f"loss      {source.name} ({seen}): {row[f'{name}_loss']:.4f}, {relative}")
    for name in sources:
        print(f"picture   {picture_file(workdir, name, row['step'])}  (original | masked | reconstruction)")
    if len(broken):
        print(f"broken    {len(broken)} videos, listed in {broken.file}")


if __name__ == "__main__":
    command_line.run(main)
