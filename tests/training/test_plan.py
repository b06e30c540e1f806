import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

import videomae_jax.training.plan
from videomae_jax import VideoMAEConfig, VideoMAEForPreTraining
from videomae_jax.model.flops import pretraining_flops
from videomae_jax.training.devices import accelerator
from videomae_jax.training.downstream import finetuning
from videomae_jax.training.mesh import AXIS_TYPES, make_mesh
from videomae_jax.training.plan import (
    Compiled,
    Memory,
    clips_at_a_time,
    compile_what_fits,
    estimate,
    parts_that_fit,
    recipe_of,
    trainer_of,
)

ROOT = Path(__file__).parents[2]


def plan(*words):
    """The lines of a plan, by their first word."""
    command = [sys.executable, "-m", "videomae_jax.training.plan", *words]
    compilers = {"PYTHONPATH": str(Path(sys.prefix) / "libtpu")}  # for TPUs
    done = subprocess.run(command, cwd=ROOT, env=os.environ | compilers, capture_output=True, text=True, timeout=900)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    return lines, done.stderr


def test_the_figures_of_eight_gpus():
    config = VideoMAEConfig.from_size("base", use_mean_pooling=False)
    model = nnx.eval_shape(lambda: VideoMAEForPreTraining(config, rngs=nnx.Rngs(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.split(model)[1])))
    work = 3 * pretraining_flops(config, 160, 1408)

    lines, _ = plan("--config=configs/k400_pretrain.py", "--topology=NVIDIA H200:8", "--videos=240000", "--mfu=0.5")
    assert f"base, {parameters:,} parameters, bfloat16" in lines["model"]
    assert lines["mesh"].startswith("8 NVIDIA H200, each 989 TFLOP/s and 131.3 GiB: data 8, fsdp 1, tensor 1")
    assert lines["work"] == f"{work / 1e9:.1f} GFLOP a clip, {2048 * work / 1e12:,.1f} TFLOP a step"
    # Parameters and two moments in fp32.
    assert f"state {12 * parameters / 2**30:.2f} GiB, gradients {4 * parameters / 2**30:.2f}" in lines["memory"]
    steps = 1600 * 240000 // 2048
    assert lines["steps"] == f"{steps:,} for 1600 epochs of 240,000"
    hours = steps * 2048 * work / (0.5 * 8 * 989e12) / 3600
    assert lines["time"] == f"{hours:,.1f} hours at an MFU of 50%, {8 * hours:,.0f} device hours"
    assert lines["data"].startswith(f"{steps * 2048 / hours / 3600:,.1f} videos a second")
    assert lines["saved"] == f"{12 * parameters / 1e9:.2f} GB a checkpoint, 2 kept"


def test_this_machines_step_is_compiled():
    lines, _ = plan("--config=configs/quickstart.py", "--config.total_steps=10")
    estimated, compiled = float(lines["memory"].split()[-3]), float(lines["compiled"].split()[0])
    assert 0 < compiled < 2 * estimated < 8 * compiled
    assert lines["traffic"] == "a device receives in a step: nothing"
    assert lines["steps"] == "10"
    assert lines["time"].startswith("not known for this machine")  # nobody knows a CPU's peak


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology=NVIDIA H200:many", "--videos=9"], "must end with the number of devices, as in NVIDIA H200:8"),
        (["--topology=Voodoo2:2", "--videos=9"], "--topology=Voodoo2:2 is no TPU slice"),
        (["--topology=NVIDIA H200:8"], "--videos=N says how many there are, where data.path is not here"),
        (["--topology=NVIDIA H200:8", "--config.mesh.fsdp=3"], "does not fit 8 devices"),
    ],
)
def test_what_cannot_be_planned_says_why(words, message):
    assert message in plan("--config=configs/k400_pretrain.py", *words)[1]


@pytest.fixture
def hundred(recipe):
    """A recipe of 2 x 96 clips over eight devices."""
    data = dataclasses.replace(recipe.data, batch_size=96, views=2)
    return dataclasses.replace(recipe, data=data), AbstractMesh((4, 2, 1), ("data", "fsdp", "tensor"), AXIS_TYPES)


def test_a_batch_is_cut_into_as_few_parts_as_fit(hundred):
    recipe, mesh = hundred
    assert clips_at_a_time(recipe, mesh, 1) == 24
    known = accelerator("NVIDIA L4")._replace(memory=1000.0)
    assert parts_that_fit(recipe, mesh, Memory(state=100, gradients=20, clip=30), known) == 1
    assert parts_that_fit(recipe, mesh, Memory(state=100, gradients=20, clip=60), known) == 2
    assert parts_that_fit(recipe, mesh, Memory(state=100, gradients=20, clip=100), known) == 3  # 4 parts of 12 videos
    assert parts_that_fit(recipe, mesh, Memory(state=2000, gradients=20, clip=1), known) == 12  # one video at a time
    assert parts_that_fit(recipe, mesh, Memory(state=2000, gradients=20, clip=1), None) == 1


@pytest.mark.parametrize(
    ("estimated", "fixed", "clip", "known", "compiled", "taken"),
    [
        (30, 0, 30, True, [1], 1),
        (100, 0, 30, True, [3, 1], 1),  # more room than estimated
        (200, 200, 20, True, [6, 3, 2], 2),  # what is not of the clips weighs less, the more there are
        (30, 0, 100, True, [1, 2, 3], 3),  # less room: no part that was refused is tried again
        (30, 0, 100, False, [1, 2, 3], 3),
        (30, 0, 10_000, True, [1, 2, 3, 4, 6, 12], None),
    ],
)
def test_a_batch_is_compiled_in_as_few_parts_as_the_compiler_has_room_for(
    hundred, monkeypatch, estimated, fixed, clip, known, compiled, taken
):
    recipe, mesh = hundred
    device = accelerator("NVIDIA L4")._replace(memory=1000.0)
    memory, tried = Memory(state=100, gradients=20, clip=estimated), []

    def compile_in_parts(recipe, trainer, parts):
        tried.append(parts)
        used = 120 + fixed + clip * clips_at_a_time(recipe, mesh, parts)
        return Compiled(used, {}) if used <= device.memory else None

    monkeypatch.setattr(videomae_jax.training.plan, "compile_in_parts", compile_in_parts)
    trainer = SimpleNamespace(mesh=mesh)
    found, parts = compile_what_fits(recipe, trainer, memory, device if known else None)
    assert tried == compiled
    assert (parts if found else None) == taken


def test_the_state_on_each_device_is_what_its_shards_take(make_trainer):
    trainer = make_trainer(fsdp=4, tensor=2)
    state = trainer.init_state()
    shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(state)]
    memory = estimate(trainer)
    assert memory.state == sum(shard.nbytes for shard in shards)
    # The same where there are no devices.
    elsewhere = dataclasses.replace(trainer, mesh=AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"), AXIS_TYPES))
    assert estimate(elsewhere) == memory


def test_less_is_kept_where_more_is_computed_again(make_trainer, task):
    clips = []
    for remat in ("none", "dots", "full"):
        config = dataclasses.replace(task.config, decoder_num_hidden_layers=4)
        trainer = dataclasses.replace(make_trainer(), task=dataclasses.replace(task, config=config, remat=remat))
        clips.append(estimate(trainer).clip)
    assert clips[0] > clips[1] > clips[2]
    # At least the tokens before each block of the decoder.
    assert clips[2] > 4 * 4 * math.prod(task.config.grid) * task.config.decoder_hidden_size


def test_a_recipe_that_trains_nothing_has_no_step():
    config = finetuning("tiny")
    config.mode, config.init_from, config.data.path, config.data.val_path = "knn", "scratch", "videos", "videos"
    with pytest.raises(ValueError, match="config.mode=knn trains nothing"):
        recipe_of(config)


def test_a_finetuning_recipe_has_a_head_and_the_average_of_its_weights():
    config = finetuning("tiny")
    config.init_from, config.data.path, config.optim.ema_decay = "scratch", "videos", 0.999
    mesh = make_mesh(data=8, fsdp=1, tensor=1)
    trainer = trainer_of(recipe_of(config), mesh)
    assert trainer.abstract_state.params["classifier"]["bias"].shape == (400,)
    memory = estimate(trainer)
    assert memory.state == pytest.approx(4 * memory.gradients, rel=1e-3)  # parameters, two moments, their average


@pytest.mark.full
@pytest.mark.usefixtures("tpus")
@pytest.mark.parametrize(
    ("topology", "mesh", "videos", "most", "others"),
    # Sixteen chips have one sum of gradients; of more, it is scattered along one axis and then summed along the other.
    [
        ("v5e:4x4", "16 TPU v5 lite", 32, 5, set()),
        ("v5e:16x16", "256 TPU v5 lite", 2048, 11, {"reduce-scatter", "collective-permute"}),
    ],
)
def test_a_giant_on_a_tpu_slice_sums_gradients_gathers_weights_and_moves_nothing_else(
    topology, mesh, videos, most, others
):
    """Each device works on its own clips: else it held 24 GiB of 16 chips, and received 76 GB in a step."""
    lines, errors = plan(
        "--config=configs/k400_pretrain.py:size=giant,recipe=v2",
        f"--topology={topology}",
        "--videos=1000",
        "--config.mesh.fsdp=16",
        f"--config.data.batch_size={videos}",
    )
    assert lines.get("mesh", errors).startswith(mesh) and "fsdp 16, tensor 1" in lines["mesh"]
    assert "1,025,543,960 parameters" in lines["model"]
    assert float(lines["compiled"].split()[0]) < most  # GiB
    assert lines["time"].endswith("device hours")
    assert "fits" not in lines  # it does, in one part
    weights = 2 * 1_025_543_960 / 1e9  # GB in bfloat16
    moved = {kind: float(size) for kind, size in re.findall(r"([a-z-]+) ([\d.]+) GB", lines["traffic"])}
    assert moved.keys() == {"all-gather", "all-reduce"} | others
    gathered = moved.pop("all-gather")  # forwards and again backwards
    assert gathered == pytest.approx(2 * weights, rel=0.03)
    summed = moved.pop("reduce-scatter", 0) + moved.pop("all-reduce") / 2  # a sum counts twice, see `Collective.moved`
    assert weights < summed < 1.2 * weights
    # Part of the gathers: the compiler moves rows so that a device's 88 of the MLP's matrix begin where a tile does.
    assert moved.pop("collective-permute", 0) < 0.04 * gathered
    assert not moved
