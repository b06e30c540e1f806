r"""What a recipe takes, before anyone rents a machine: parameters, operations, memory, traffic and time.

    python -m videomae_jax.training.plan --config configs/k400_pretrain.py --videos 240000
    python -m videomae_jax.training.plan --config configs/k400_pretrain.py:size=large --topology "NVIDIA H200:8"
    python -m videomae_jax.training.plan --config configs/k400_pretrain.py:size=giant,recipe=v2 --topology v5e:16x16 \
        --config.mesh.data=16 --config.mesh.fsdp=16

Without a topology the training step is compiled for the devices of this machine. For TPUs it is compiled too, with none
at hand: that takes some minutes, twice where there is more room than estimated, and `pip install libtpu`, of the
version that JAX's extra `tpu` names. For GPUs it is not; their memory is then estimated from what the backward pass
finds in memory.

A batch that does not fit is cut into as many parts (`optim.accumulation`) as make it fit.
"""

import dataclasses
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from videomae_jax.training import command_line
from videomae_jax.training.collectives import collectives
from videomae_jax.training.devices import GIB, Accelerator, accelerator
from videomae_jax.training.downstream import DownstreamRecipe
from videomae_jax.training.finetuning import Finetuning
from videomae_jax.training.init_from import find_encoder, trained_config
from videomae_jax.training.mesh import AXIS_TYPES, batch_shards, check_batch, make_mesh, mesh_sizes
from videomae_jax.training.optimizer import WarmupCosine, adamw, finetuning_optimizer
from videomae_jax.training.progress import say
from videomae_jax.training.recipe import Recipe
from videomae_jax.training.state import Trainer
from videomae_jax.training.tasks import Pretraining
from videomae_jax.training.video_sets import open_video_set

CLASSES = 400  # of a classifier; its head hardly counts
SPARE = 0.92  # of a device's memory; the rest is for what no estimate knows


class Memory(NamedTuple):
    """Bytes on each device.

    Attributes:
      state: parameters, optimizer state and average, for the whole run.
      gradients: of the parameters, in every step.
      clip: of one clip, what the backward pass finds in memory, and what it computes again of one block.
    """

    state: int
    gradients: int
    clip: int

    def used(self, clips: int) -> int:
        """In all, with so many clips at a time on a device."""
        return self.state + self.gradients + clips * self.clip

    def measured(self, total: int, clips: int) -> Self:
        """The same, with a clip's share of what so many clips were found to take in all."""
        return self._replace(clip=max((total - self.used(0)) // clips, 1))


class Compiled(NamedTuple):
    """What the compiler says of a step.

    Attributes:
      used: bytes on each device, state included.
      traffic: kind of collective -> bytes that each device receives in a step.
    """

    used: int
    traffic: dict[str, int]


def main(config: ConfigDict) -> None:
    """Prints the plan of a recipe of `configs/`."""
    options = flags.FLAGS
    devices, known = devices_of(options.topology)
    config = config.copy_and_resolve_references()
    if config.compute_dtype == "auto" and known is not None:
        config.compute_dtype = "bfloat16"
    recipe = recipe_of(config)
    axes = dataclasses.asdict(recipe.mesh)
    if isinstance(devices, int):
        sizes = mesh_sizes(devices, **axes)
        mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes), AXIS_TYPES)
    else:
        mesh = make_mesh(**axes, devices=devices)
    trainer = trainer_of(recipe, mesh)
    check_batch(mesh, recipe.data.batch_size, recipe.optim.accumulation)
    describe(recipe, trainer, known)
    memory = estimate(trainer)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainer.abstract_state))
    say("saved", f"{size / 1e9:,.2f} GB a checkpoint, {recipe.keep_checkpoints} kept")
    compiled, accumulation = None, parts_that_fit(recipe, mesh, memory, known)
    if isinstance(mesh, Mesh):
        compiled, accumulation = compile_what_fits(recipe, trainer, memory, known)
    tell_memory(recipe, mesh, memory, accumulation, compiled, known)
    tell_time(recipe, trainer, known, options.mfu, options.videos)


def devices_of(topology: str | None) -> tuple[Sequence[jax.Device] | int, Accelerator | None]:
    """The devices to plan for, or only their number where none can be had, and what is known of their kind.

    Args:
      topology: a TPU slice such as "v5e:4x4", a GPU's name and number such as "NVIDIA H200:8", or None: this machine.

    Raises:
      ValueError: a topology that nothing is known of.
    """
    if topology is None:
        return jax.devices(), accelerator(jax.devices()[0].device_kind)
    kind, _, size = topology.rpartition(":")
    if known := accelerator(kind):
        if not size.isdecimal() or int(size) < 1:
            raise ValueError(f"--topology={topology} must end with the number of devices, as in {kind}:8.")
        return int(size), known
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"--topology={topology} is no TPU slice that libtpu knows, such as v5e:4x4 (pip install libtpu), and names "
            f'no GPU of training/devices.py with its number, as in "NVIDIA H200:8": {str(error).splitlines()[0]}'
        ) from None
    return devices, accelerator(devices[0].device_kind)


def recipe_of(config: ConfigDict) -> Recipe | DownstreamRecipe:
    """A recipe of either command.

    Raises:
      ValueError: a wrong key, or nothing to train.
    """
    if "mode" not in config:
        return Recipe.from_config(config)
    recipe = DownstreamRecipe.from_config(config)
    if not recipe.trains:
        raise ValueError(f"config.mode={recipe.mode} trains nothing: there is no step to plan.")
    return recipe


def trainer_of(recipe: Recipe | DownstreamRecipe, mesh: Mesh | AbstractMesh) -> Trainer:
    """The step of a recipe."""

    def schedule(step):
        return jnp.zeros(())  # no rate changes what a step costs

    if isinstance(recipe, Recipe):
        return Trainer(Pretraining.of_recipe(recipe), adamw(schedule, recipe.optim), mesh, recipe.optim.accumulation)
    names = tuple(f"class {number}" for number in range(CLASSES))
    task = Finetuning.of_recipe(recipe, trained_config(recipe, find_encoder(recipe), names))
    optimizer = finetuning_optimizer(schedule, recipe.optim)
    return Trainer(task, optimizer, mesh, recipe.optim.accumulation, recipe.optim.ema_decay)


def estimate(trainer: Trainer) -> Memory:
    """A device's memory as far as shapes tell it: exact for the state, roughly for what a step makes."""
    config, params = trainer.task.config, trainer.trained(trainer.abstract_state.params)
    kept, whole = (
        _kept_of_a_clip(dataclasses.replace(trainer.task, remat=each), trainer) for each in (trainer.task.remat, "none")
    )
    # The stack of the largest blocks: the decoder, which has most of the tokens, or the encoder where it has all.
    blocks = config.decoder_num_hidden_layers if isinstance(trainer.task, Pretraining) else config.num_hidden_layers
    return Memory(_bytes_on_each(trainer.abstract_state), _bytes_on_each(params), kept + (whole - kept) // blocks)


def _kept_of_a_clip(task: Pretraining | Finetuning, trainer: Trainer) -> int:
    """Bytes of a clip that the backward pass finds in memory."""
    trainer = dataclasses.replace(trainer, task=task)
    one, two = (_kept_bytes(trainer, clips) for clips in (1, 2))
    return two - one


def _kept_bytes(trainer: Trainer, clips: int) -> int:
    """What the backward pass finds in memory, of so many clips and the parameters."""

    def backwards(trained, params, batch):
        return jax.vjp(lambda trained: trainer.loss(trained, params, batch), trained, has_aux=True)[1]

    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), trainer.abstract_state.params)
    batch = jax.eval_shape(trainer.task.prepare, trainer.task.batch_shapes(clips, views=1))
    kept = jax.eval_shape(backwards, trainer.trained(params), params, batch)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def _bytes_on_each(tree: PyTree) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def clips_at_a_time(recipe: Recipe | DownstreamRecipe, mesh: Mesh | AbstractMesh, accumulation: int) -> int:
    """Clips that a device has in a part of a batch."""
    return recipe.data.batch_size * recipe.data.views // (batch_shards(mesh) * accumulation)


def parts_of_a_batch(recipe: Recipe | DownstreamRecipe, mesh: Mesh | AbstractMesh) -> list[int]:
    """The `optim.accumulation` that a batch allows, from the recipe's own on."""
    own, videos = recipe.optim.accumulation, recipe.data.batch_size // batch_shards(mesh)
    return [parts for parts in range(own, videos + 1) if videos % parts == 0]


def parts_that_fit(
    recipe: Recipe | DownstreamRecipe, mesh: Mesh | AbstractMesh, memory: Memory, known: Accelerator | None
) -> int:
    """The smallest `optim.accumulation` whose parts should fit into a device's memory, where that is known."""
    parts = parts_of_a_batch(recipe, mesh)
    if known is None:
        return parts[0]
    fitting = (count for count in parts if memory.used(clips_at_a_time(recipe, mesh, count)) <= SPARE * known.memory)
    return next(fitting, parts[-1])


def compile_what_fits(
    recipe: Recipe | DownstreamRecipe, trainer: Trainer, memory: Memory, known: Accelerator | None
) -> tuple[Compiled | None, int]:
    """Compiles the step for the trainer's mesh, in as few parts as the compiler finds room for.

    Args:
      recipe, trainer: with a mesh of devices.
      memory: the estimate that it begins with.
      known: of the devices.

    Returns:
      What the compiler says (None: not even one video fits), and the number of parts.
    """
    parts = parts_that_fit(recipe, trainer.mesh, memory, known)
    if (compiled := compile_in_parts(recipe, trainer, parts)) is None:
        for parts in (count for count in parts_of_a_batch(recipe, trainer.mesh) if count > parts):
            if compiled := compile_in_parts(recipe, trainer, parts):
                break
        return compiled, parts
    # It may have room for more than was estimated, and every part gathers the weights anew.
    while True:
        measured = memory.measured(compiled.used, clips_at_a_time(recipe, trainer.mesh, parts))
        fewer = parts_that_fit(recipe, trainer.mesh, measured, known)
        if fewer >= parts or (better := compile_in_parts(recipe, trainer, fewer)) is None:
            return compiled, parts
        compiled, parts = better, fewer


def compile_in_parts(recipe: Recipe | DownstreamRecipe, trainer: Trainer, parts: int) -> Compiled | None:
    """Compiles the step with a batch in so many parts; None, said in a line, where it does not fit."""
    step = dataclasses.replace(trainer, accumulation=parts)
    with jax.set_mesh(trainer.mesh):
        try:
            compiled = step.compile_step(recipe.data.batch_size, recipe.data.views)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            sizes = re.findall(r"[\d.]+[MG]", str(error))
            say("compiled", f"optim.accumulation={parts} does not fit: {' of '.join(sizes[:2])}")
            return None
    traffic = Counter()
    for collective in collectives(compiled.as_text()):
        traffic[collective.kind] += collective.moved
    return Compiled(memory_of(compiled, trainer.mesh), dict(traffic))


def memory_of(step: jax.stages.Compiled, mesh: Mesh) -> int:
    """Bytes that a compiled step takes of each device, state included."""
    figures = step.memory_analysis()
    if mesh.devices.flat[0].platform == "tpu":
        # The compiler for TPUs keeps this below a chip's memory, and takes steps whose temporary arrays add up to more:
        # some take the place of others. The one for CPUs leaves such arrays out of its peak.
        return figures.peak_memory_in_bytes
    whole = figures.argument_size_in_bytes + figures.output_size_in_bytes - figures.alias_size_in_bytes
    return whole + figures.temp_size_in_bytes


def describe(recipe: Recipe | DownstreamRecipe, trainer: Trainer, known: Accelerator | None) -> None:
    """Prints what is planned."""
    task, mesh = trainer.task, trainer.mesh
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trainer.abstract_state.params))
    say("model", f"{recipe.model['size']}, {parameters:,} parameters, {task.dtype.name}, remat {recipe.remat}")
    kind = "devices" if known is None else known.kind
    each = "" if known is None else f", each {known.peak / 1e12:g} TFLOP/s and {known.memory / GIB:.1f} GiB"
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    hosts = {device.process_index for device in mesh.devices.flat} if isinstance(mesh, Mesh) else ()
    of_hosts = f" of {len(hosts)} hosts" if len(hosts) > 1 else ""
    say("mesh", f"{mesh.size} {kind}{of_hosts}{each}: {axes}")
    clips = recipe.data.batch_size * recipe.data.views
    say("batch", f"{recipe.data.batch_size} videos x {recipe.data.views} views")
    if task.clip_flops is not None:
        say("work", f"{task.clip_flops / 1e9:.1f} GFLOP a clip, {task.clip_flops * clips / 1e12:,.1f} TFLOP a step")


def tell_memory(
    recipe: Recipe | DownstreamRecipe,
    mesh: Mesh | AbstractMesh,
    memory: Memory,
    accumulation: int,
    compiled: Compiled | None,
    known: Accelerator | None,
) -> None:
    """Prints what a device holds, and how much more it could."""
    clips = clips_at_a_time(recipe, mesh, accumulation)
    if isinstance(mesh, Mesh) and compiled is None:
        say(
            "fits",
            "not even one video at a time on each device: split the parameters with mesh.fsdp, or take remat=full",
        )
    elif accumulation != recipe.optim.accumulation:
        say("fits", f"with optim.accumulation={accumulation} and not with {recipe.optim.accumulation}")
    say(
        "memory",
        f"of each device, estimated: state {memory.state / GIB:.2f} GiB, gradients {memory.gradients / GIB:.2f}, "
        f"{clips} clips at a time {clips * memory.clip / GIB:.2f}; {memory.used(clips) / GIB:.2f} in all",
    )
    if compiled is not None:
        memory = memory.measured(compiled.used, clips)
        traffic = ", ".join(f"{kind} {size / 1e9:.3f} GB" for kind, size in compiled.traffic.items())
        say("compiled", f"{compiled.used / GIB:.2f} GiB of each device")
        say("traffic", f"a device receives in a step: {traffic or 'nothing'}")
    if known is not None:
        most = int((SPARE * known.memory - memory.used(0)) // memory.clip)
        say("largest", f"about {most} clips at a time fit a device" if most > 0 else "not one clip fits a device")


def tell_time(
    recipe: Recipe | DownstreamRecipe, trainer: Trainer, known: Accelerator | None, mfu: float, videos: int | None
) -> None:
    """Prints how long the whole recipe takes, where the devices' peak rate is known."""
    if videos is None and recipe.total_steps is None:
        try:
            videos = len(open_video_set("path", recipe.data.path, recipe.data.max_broken_share))
        except ValueError as error:
            raise ValueError(f"--videos=N says how many there are, where data.path is not here: {error}") from None
    steps = WarmupCosine.of_recipe(recipe, videos or 0).total_steps
    say("steps", f"{steps:,}" if videos is None else f"{steps:,} for {recipe.total_epochs:g} epochs of {videos:,}")
    if known is None:
        say("time", 'not known for this machine; of others with --topology, such as "NVIDIA H200:8" or v5e:4x4')
    if known is None or trainer.task.clip_flops is None:
        return
    work = steps * recipe.data.batch_size * recipe.data.views * trainer.task.clip_flops
    hours = work / (mfu * known.peak * trainer.mesh.size) / 3600
    say("time", f"{hours:,.1f} hours at an MFU of {mfu:.0%}, {hours * trainer.mesh.size:,.0f} device hours")
    rate = steps * recipe.data.batch_size / (3600 * hours)
    say("data", f"{rate:,.1f} videos a second to decode, for clips of {recipe.data.views} views")


if __name__ == "__main__":
    flags.DEFINE_string("topology", None, "a TPU slice (v5e:4x4) or GPUs (NVIDIA H200:8); default: this machine")
    flags.DEFINE_float("mfu", 0.4, "share of the devices' peak rate that is reached", 0.01, 1.0)
    flags.DEFINE_integer("videos", None, "training videos; default: those of data.path", 1)
    if any(word.startswith(("--topology", "-topology")) for word in sys.argv):
        # libtpu would ask the machine which TPU it is, and keep others, who compile too, out of it.
        os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
        jax.config.update("jax_platforms", "cpu")
    command_line.run_config(main)
