"""The training loop. Its order: batch, step, line of numbers, evaluation, checkpoint."""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree, UInt8
from PIL import Image

from videomae_jax.data.clips import Clips
from videomae_jax.data.pipeline import train_batches
from videomae_jax.data.sources import VideoSource
from videomae_jax.training.broken import BrokenVideos
from videomae_jax.training.checkpoint import Checkpoints
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.finetuning import Finetuning
from videomae_jax.training.host_memory import keep_steps_memory, warn_if_short
from videomae_jax.training.in_flight import InFlight
from videomae_jax.training.mesh import batch_sharding, own_rows
from videomae_jax.training.metrics import Clock, MetricsLog
from videomae_jax.training.optimizer import WarmupCosine
from videomae_jax.training.preemption import Preempted, Preemption
from videomae_jax.training.processes import is_first
from videomae_jax.training.progress import measured_line, progress_line
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.stall import in_time
from videomae_jax.training.state import SKIPPED, Trainer, TrainState
from videomae_jax.training.tasks import Batch, Pretraining
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
        # Outermost: a second SIGTERM must not end what the first has begun.
        preemption = stack.enter_context(Preemption())
        # Whatever ends the run, what is being written is waited for.
        checkpoints = Checkpoints(workdir / "checkpoints", recipe.keep_checkpoints)
        stack.enter_context(contextlib.closing(checkpoints))
        # Also without checkpoints, which somebody may have removed to save space: the model is there.
        if model_folder(workdir).exists() and checkpoints.latest_step in (None, total_steps):
            return False
        first_step, state = checkpoints.restore(trainer.abstract_state) or (0, initial_state())
        if first_step:
            print(f"continuing from step {first_step}", flush=True)
        compiling = time.perf_counter()
        run_step = trainer.compile_step(recipe.data.batch_size, recipe.data.views, recipe.deterministic)
        print(f"compiled the training step in {time.perf_counter() - compiling:.1f} s", flush=True)
        warn_if_short(run_step, trainer.mesh)
        keep_steps_memory(trainer.mesh)
        log = stack.enter_context(contextlib.closing(MetricsLog(workdir, restored_step=first_step)))
        own_batches = train_clips(source, clips, recipe, trainer.mesh, first_step, total_steps)
        batches = on_devices(own_batches, trainer, broken, source)
        if recipe.data.workers:
            # Grain's last error holds memory that is shared with them, in a cycle; at its end Python leaves that alone.
            stack.callback(gc.collect)
        stack.enter_context(contextlib.closing(batches))
        in_flight, clock = InFlight(), Clock()
        saved_step, must_save = first_step, False

        for step in range(first_step + 1, total_steps + 1):
            fetching = time.perf_counter()
            batch = next(batches)
            clock.got_batch(fetching)
            state, loss = run_step(state, batch)
            in_flight.add(loss)
            last, ends = step == total_steps, preemption.ends_at(step)
            if last:
                in_flight.settle()
            if in_flight.skipped >= recipe.max_skipped_steps:
                raise ValueError(_not_finite(trainer, state, batch, step, in_flight.skipped, saved_step))

            evaluating = last or step % recipe.eval.steps == 0
            if evaluating or step % recipe.log_steps == 0:
                row, state = read_window(state, trainer.task)
                broken.share()
                row |= {"learning_rate": float(schedule(step - 1))}
                row |= clock.rates(clips_a_step, trainer.peak_clips)
                row |= {"broken_videos": len(broken)}
                print(progress_line(step, total_steps, row), flush=True)
                if evaluating:
                    numbers, pictures = evaluate(step, trainer.model_params(state), last)
                    row |= numbers
                    print(f"  {measured_line(numbers)}", flush=True)
                    save_pictures(workdir, step, pictures, log)
                log.write(step, row)
                clock.restart()

            must_save |= last or ends or step % recipe.checkpoint_steps == 0
            if must_save:
                in_flight.settle()
                # Before a step without a finite loss the weights may have been lost already: what is kept is better.
                if in_flight.skipped == 0 or last:
                    checkpoints.save(step, state)
                    saved_step, must_save = step, False
            if ends and not last:
                raise Preempted(f"told to end; saved up to step {saved_step} of {total_steps}")

    write_model(model_folder(workdir), trainer, trainer.model_params(state), recipe.data.stride)
    return True


def _not_finite(trainer: Trainer, state: TrainState, batch: Batch, step: int, skipped: int, saved_step: int) -> str:
    """Why a run cannot go on."""
    kept = f"The last checkpoint is of step {saved_step}" if saved_step else "There is no checkpoint yet"
    return (
        f"{skipped} steps in a row had no finite loss or gradient and were skipped, max_skipped_steps. At step {step} "
        f"{trainer.diagnose(state, batch)}. {kept}. Most often the learning rate is too high for the batch "
        "(optim.base_lr, or a longer optim.warmup_epochs); optim.clip_norm and compute_dtype=float32 help, too."
    )


def train_clips(
    source: VideoSource, clips: Clips, recipe: Recipe | DownstreamRecipe, mesh: Mesh, first_step: int, total_steps: int
):
    """This process's share of the batches of the steps after `first_step`."""
    return train_batches(
        source,
        clips,
        seed=recipe.seed,
        start_step=first_step,
        stop_step=total_steps,
        batch_size=recipe.data.batch_size,
        workers=recipe.data.workers,
        rows=own_rows(mesh, recipe.data.batch_size),
    )


def on_devices(batches, trainer: Trainer, broken: BrokenVideos, source: VideoSource) -> Iterator[dict[str, jax.Array]]:
    """What the task needs of every batch, split over the devices; closing it ends the workers."""
    sharding = batch_sharding(trainer.mesh)
    try:
        for batch in in_time(_from_living_workers(batches), source):
            broken.add(batch["broken"])
            trainer.task.check_batch(batch)
            yield {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in trainer.task.inputs}
    finally:
        batches.close()


def _from_living_workers(batches: Iterator[dict]) -> Iterator[dict]:
    try:
        yield from batches
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise ValueError(
            f"a process that decodes videos ended, killed or out of memory ({error}). With fewer data.workers, or "
            "none (0), the same command goes on from the last checkpoint."
        ) from error


def read_window(state: TrainState, task: Pretraining | Finetuning) -> tuple[dict[str, float], TrainState]:
    """The means since the last line, and the state with an empty window."""
    sums = {name: float(value) for name, value in jax.device_get(state.window).items()}
    steps, skipped = sums.pop("steps"), sums.pop(SKIPPED)
    row = task.summarise({name: value / steps if steps else math.nan for name, value in sums.items()})
    return row | {SKIPPED: int(skipped)}, state.with_empty_window()


def save_pictures(workdir: Path, step: int, pictures: Pictures, log: MetricsLog) -> None:
    """Writes each picture into the folder and the log."""
    for name, picture in pictures.items() if is_first() else ():
        file = picture_file(workdir, name, step)
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
        log.picture(step, name, picture)


def picture_file(workdir: Path, name: str, step: int) -> Path:
    """Where the picture of a set of videos at a step lies."""
    return workdir / "images" / f"{name}_{step:07}.png"
