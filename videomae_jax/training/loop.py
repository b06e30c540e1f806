"""The training loop. Its order: batch, step, line of numbers, evaluation, checkpoint."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree, UInt8
from PIL import Image

from videomae_jax.data.clips import Clips
from videomae_jax.data.pipeline import train_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.checkpoint import Checkpoints
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.mesh import batch_sharding
from videomae_jax.training.metrics import Clock, MetricsLog
from videomae_jax.training.optimizer import WarmupCosine
from videomae_jax.training.progress import progress_line
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.state import Trainer, TrainState
from videomae_jax.training.workdir import model_folder, write_model

Pictures = dict[str, UInt8[np.ndarray, "H W 3"]]
Evaluate = Callable[[int, PyTree, bool], tuple[dict[str, float], Pictures]]


def train(
    trainer: Trainer,
    schedule: WarmupCosine,
    source: VideoSource,
    clips: Clips,
    recipe: Recipe | DownstreamRecipe,
    workdir: Path,
    initial_state: Callable[[], TrainState],
    broken: BrokenVideos,
    evaluate: Evaluate,
) -> bool:
    """Runs a recipe's steps, or those that are left of them, and leaves the model in `workdir/model`.

    Args:
      trainer: the task on its mesh.
      schedule: the steps, and the learning rate of each for the log.
      source: training videos.
      clips: what is made of them.
      recipe: numbers of the run.
      workdir: its folder; checkpoints found there are continued.
      initial_state: makes the state to begin with, where there is no checkpoint.
      broken: takes the reports of unreadable videos.
      evaluate: `(step, params, at the end) -> numbers and pictures`, run every `eval.steps` and after the last step.

    Returns:
      False when there was nothing to do, because the run is finished.
    """
    total_steps, clips_a_step = schedule.total_steps, recipe.data.batch_size * recipe.data.views
    with contextlib.ExitStack() as stack:
        # Whatever ends the run, what is being written is waited for.
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir / "checkpoints")))
        first_step = checkpoints.latest_step or 0
        # Also without checkpoints, which somebody may have removed to save space: the model is there.
        if model_folder(workdir).exists() and first_step in (0, total_steps):
            return False
        if first_step:
            print(f"continuing from step {first_step}", flush=True)
            state = checkpoints.restore(trainer.abstract_state)
        else:
            state = initial_state()
        compiling = time.perf_counter()
        run_step = trainer.compile_step(recipe.data.batch_size, recipe.data.views)
        print(f"compiled the training step in {time.perf_counter() - compiling:.1f} s", flush=True)
        log = stack.enter_context(contextlib.closing(MetricsLog(workdir, restored_step=first_step)))
        batches = on_devices(train_clips(source, clips, recipe, first_step, total_steps), trainer, broken)
        stack.enter_context(contextlib.closing(batches))
        in_flight = collections.deque()
        clock = Clock()

        for step in range(first_step + 1, total_steps + 1):
            fetching = time.perf_counter()
            batch = next(batches)
            clock.waited(fetching)
            state, loss = run_step(state, batch)

            # Steps run behind Python's back; no more than two at a time, or their batches would pile up on the devices.
            in_flight.append(loss)
            if len(in_flight) > 2:
                in_flight.popleft().block_until_ready()

            last = step == total_steps
            evaluating = last or step % recipe.eval.steps == 0
            if evaluating or step % recipe.log_steps == 0:
                row, state = read_window(state)
                row = trainer.task.summarise(row)
                row |= {"learning_rate": float(schedule(step - 1))}
                row |= clock.rates(int(row.pop("steps")), clips_a_step, trainer.peak_clips)
                row |= {"broken_videos": len(broken)}
                print(progress_line(step, total_steps, row), flush=True)
                if evaluating:
                    numbers, pictures = evaluate(step, trainer.model_params(state), last)
                    row |= numbers
                    print("  " + "  ".join(f"{name} {value:.4f}" for name, value in numbers.items()), flush=True)
                    save_pictures(workdir, step, pictures, log)
                log.write(step, row)
                clock.restart()
            if last or step % recipe.checkpoint_steps == 0:
                checkpoints.save(step, state)

    write_model(model_folder(workdir), trainer, trainer.model_params(state), recipe.data.stride)
    return True


def train_clips(
    source: VideoSource, clips: Clips, recipe: Recipe | DownstreamRecipe, first_step: int, total_steps: int
):
    """The batches of the steps after `first_step`."""
    return train_batches(
        source,
        clips,
        seed=recipe.seed,
        start_step=first_step,
        stop_step=total_steps,
        batch_size=recipe.data.batch_size,
        workers=recipe.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def on_devices(batches, trainer: Trainer, broken: BrokenVideos) -> Iterator[dict[str, jax.Array]]:
    """What the task needs of every batch, split over the devices; closing it ends the workers."""
    sharding = batch_sharding(trainer.mesh)
    try:
        for batch in batches:
            broken.add(batch["broken"])
            trainer.task.check_batch(batch)
            yield {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in trainer.task.inputs}
    finally:
        batches.close()


def read_window(state: TrainState) -> tuple[dict[str, float], TrainState]:
    """The means since the last line, and the state with an empty window."""
    sums = {name: float(value) for name, value in jax.device_get(state.window).items()}
    steps = sums.pop("steps")
    row = {name: value / steps for name, value in sums.items()}
    return row | {"steps": steps}, state.with_empty_window()


def save_pictures(workdir: Path, step: int, pictures: Pictures, log: MetricsLog) -> None:
    """Writes each picture into the folder and the log."""
    for name, picture in pictures.items():
        file = picture_file(workdir, name, step)
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
        log.picture(step, name, picture)


def picture_file(workdir: Path, name: str, step: int) -> Path:
    """Where the picture of a set of videos at a step lies."""
    return workdir / "images" / f"{name}_{step:07}.png"
