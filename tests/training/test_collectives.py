import dataclasses
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from videomae_jax.training.collectives import Collective, collectives
from videomae_jax.training.mesh import make_mesh
from videomae_jax.training.plan import memory_of

P = PartitionSpec
SPLIT = P("data")


def program_of(function, x, out=SPLIT):
    mesh = make_mesh(data=8, fsdp=1, tensor=1)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=SPLIT, out_specs=out, check_vma=False)
    return jax.jit(mapped).lower(jax.device_put(x, NamedSharding(mesh, SPLIT))).compile().as_text()


@pytest.mark.parametrize(
    ("function", "out", "kind", "size", "moved"),
    [
        (lambda x: jax.lax.psum(x, "data"), P(), "all-reduce", 4 * 48, 2 * 4 * 48),
        (lambda x: jax.lax.all_gather(x, "data"), P(), "all-gather", 8 * 4 * 48, 8 * 4 * 48),
        (lambda x: jax.lax.psum_scatter(x, "data", tiled=True), P("data"), "reduce-scatter", 4 * 48, 4 * 48),
        (lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), P("data"), "collective-permute", 4 * 48, 4 * 48),
    ],
)
def test_what_one_device_gives_or_gets(function, out, kind, size, moved):
    (only,) = collectives(program_of(function, jnp.ones((64, 6)), out=out))
    assert only == Collective(kind, size, 1)
    assert only.moved == moved


def test_in_a_loop_it_runs_once_a_round_and_in_a_loop_of_loops_as_often_as_that():
    def rounds(x):
        inner = lambda x, _: (jax.lax.psum(x * 2, "data") / 8, None)  # noqa: E731
        outer = lambda x, _: (jnp.sin(jax.lax.scan(inner, x, None, length=5)[0]), None)  # noqa: E731
        return jax.lax.scan(outer, x, None, length=3)[0]

    assert collectives(program_of(rounds, jnp.ones((8, 10), jnp.float32))) == [Collective("all-reduce", 40, 15)]


def test_one_device_alone_sends_nothing():
    program = jax.jit(lambda x: jnp.sin(x).sum()).lower(np.ones(8, np.float32)).compile().as_text()
    assert collectives(program) == []


def test_a_tpus_reduce_scatter_and_the_pieces_of_one_channel():
    program = """HloModule m

%all-reduce-scatter.1 (p.1: bf16[4,8]) -> bf16[4,2] {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %all-reduce.1 = bf16[4,8]{1,0} all-reduce(%p.1), channel_id=3, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[4,2]{1,0} dynamic-slice(%all-reduce.1), dynamic_slice_sizes={4,2}
}

%piece.1 (p.2: bf16[4,2]) -> bf16[4,8] {
  %p.2 = bf16[4,2]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[4,8]{1,0} all-gather(%p.2), channel_id=4, dimensions={1}
}

%piece.2 (p.3: bf16[4,2]) -> bf16[4,8] {
  %p.3 = bf16[4,2]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[4,8]{1,0} all-gather(%p.3), channel_id=4, dimensions={1}
}

ENTRY %main (p: bf16[4,8]) -> bf16[4,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  %fusion.1 = bf16[4,2]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %fusion.2 = bf16[4,8]{1,0} fusion(%fusion.1), kind=kCustom, calls=%piece.1
  ROOT %fusion.3 = bf16[4,8]{1,0} fusion(%fusion.1), kind=kCustom, calls=%piece.2
}
"""
    assert sorted(collectives(program)) == [Collective("all-gather", 64, 1), Collective("reduce-scatter", 64, 1)]


def test_asynchronous_ones_count_once_with_their_result():
    program = """HloModule m

ENTRY %main (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  %all-gather-start = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%p), channel_id=1, dimensions={0}
  ROOT %all-gather-done = bf16[32,8]{1,0} all-gather-done(%all-gather-start)
}
"""
    assert collectives(program) == [Collective("all-gather", 512, 1)]


def on_each_device(tree):
    """Bytes of a tree of shapes with shardings."""
    leaves = [leaf for leaf in jax.tree.leaves(tree)]
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def check_what_a_step_moves(trainer, clips, least=4):
    """Compiles a step for so many clips. It sums gradients, gathers what is split, and moves nothing else.

    Args:
      trainer, clips: the step.
      least: bytes of a number on its way; the compiler may take more.
    """
    with jax.set_mesh(trainer.mesh):
        compiled = trainer.compile_step(clips, views=1)
    moved = Counter()
    for collective in collectives(compiled.as_text()):
        moved[collective.kind] += collective.size * collective.times
    params = jax.tree.leaves(trainer.abstract_state.params)
    whole = sum(leaf.size for leaf in params)
    split = sum(leaf.size for leaf in params if "fsdp" in leaf.sharding.spec)
    data, fsdp = trainer.mesh.shape["data"], trainer.mesh.shape["fsdp"]
    assert set(moved) <= {"all-reduce", "reduce-scatter", "all-gather"}
    scalars = 1024
    # Gradients, once over all devices or, split, once over each axis.
    summed = moved["all-reduce"] + moved["reduce-scatter"]
    assert least * whole <= summed <= 4 * (whole + split * (data > 1 and fsdp > 1)) + scalars
    # What is split, forwards and again backwards.
    gathered = split if fsdp > 1 else 0
    assert least * gathered <= moved["all-gather"] <= 2 * 4 * gathered
    return compiled


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(dict(data=8), marks=pytest.mark.full),
        pytest.param(dict(data=1, fsdp=8), marks=pytest.mark.full),
        dict(data=4, fsdp=2),
    ],
    ids=str,
)
def test_a_step_sums_gradients_gathers_what_is_split_and_moves_nothing_else(make_trainer, axes):
    trainer = make_trainer(**axes)
    compiled = check_what_a_step_moves(trainer, clips=16)
    batch = trainer.task.batch_shapes(16, 1)
    clips = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch)) // 8
    assert compiled.memory_analysis().argument_size_in_bytes == on_each_device(trainer.abstract_state) + clips


def test_a_step_of_sixteen_tpus_moves_nothing_else_either(make_trainer, tpus):
    mesh = make_mesh(data=4, fsdp=4, tensor=1, devices=tpus("v5e:4x4"))
    # It rounds to bfloat16 what it multiplies, and sends no more.
    trainer = dataclasses.replace(make_trainer(), mesh=mesh)
    compiled = check_what_a_step_moves(trainer, clips=32, least=2)
    figures = compiled.memory_analysis()
    whole = figures.argument_size_in_bytes + figures.output_size_in_bytes - figures.alias_size_in_bytes
    assert whole < memory_of(compiled, mesh) < whole + figures.temp_size_in_bytes  # some take the place of others


def test_splitting_the_state_takes_it_from_every_device(make_trainer):
    whole, split = (
        on_each_device(make_trainer(**axes).abstract_state) for axes in (dict(data=8), dict(data=1, fsdp=8))
    )
    assert split < whole / 6  # all but biases and norms
