"""train.py and eval.py as two processes on one machine, four devices each, against one process with eight."""

import os
import re
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image
from safetensors.numpy import load_file
from train_command import ROOT, command, losses

pytestmark = pytest.mark.usefixtures("builtin_clips")

RUN = dict(data__batch_size=8, total_steps=5, checkpoint_steps=2, compute_dtype="float32", eval__clips=8)


def environment(devices):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def by_flags(number, port):
    """What the second of two processes is told, or the first."""
    told = ["--coordinator_address", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id", str(number)]
    return told, {}


def by_slurm(number, port):
    """As `srun` starts tasks on two nodes; here both are this machine."""
    step = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    step |= {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "8", "SLURM_LOCALID": "0"}
    return [], step | {"SLURM_PROCID": str(number), "JAX_COORDINATOR_PORT": str(port)}


def by_mpi(number, port):
    """As Open MPI 4 starts ranks."""
    world = {
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }
    return [], world | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://127.0.0.1:1", "JAX_COORDINATOR_PORT": str(port)}


def together(words, launcher=by_flags, devices=4):
    """The command as two processes that know of each other."""
    port, processes = free_port(), []
    for number in range(2):
        told, variables = launcher(number, port)
        processes.append(
            subprocess.Popen(
                [*words, *told],
                cwd=ROOT,
                env=environment(devices) | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes):
    """What they print, when all have ended well."""
    printed = [process.communicate() for process in processes]
    for process, (out, errors) in zip(processes, printed, strict=True):
        assert process.returncode == 0, out + errors
    return ["".join(line for line in out.splitlines(True) if not line.startswith("[Gloo]")) for out, _ in printed]


def alone(words, devices=8):
    done = subprocess.run(words, cwd=ROOT, env=environment(devices), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same_run(left, right, atol):
    rows = [losses(folder) for folder in (left, right)]
    assert len(rows[0]) == len(rows[1])
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, err_msg=name)
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (left, right)]
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=atol, err_msg=name)


def gradients(workdir):
    """The mean of the five steps' gradients, the last ones weighing most: Adam's first moments."""
    folder = workdir / "checkpoints" / "5" / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        state = checkpointer.restore(folder, restore_args=as_numpy)
    parts = jax.tree.leaves(state["opt_state"], is_leaf=lambda part: isinstance(part, dict))
    (moments,) = [part["mu"] for part in parts if "mu" in part]
    return [moment / (1 - 0.9**5) for moment in jax.tree.leaves(moments)]


@pytest.mark.parametrize(
    ("launcher", "axes"),
    [
        pytest.param(by_flags, {}, marks=pytest.mark.full),
        (by_slurm, dict(mesh__fsdp=8)),
        pytest.param(by_mpi, dict(mesh__data=1, mesh__fsdp=4, mesh__tensor=2), marks=pytest.mark.full),
        # Both have all the clips.
        pytest.param(by_flags, dict(mesh__data=1, mesh__fsdp=1, mesh__tensor=8), marks=pytest.mark.full),
    ],
)
def test_two_processes_train_as_one(videos, tmp_path, launcher, axes):
    run = dict(data__path=videos, data__val_path=videos, optim__base_lr=3e-3, **RUN, **axes)
    alone(command("quickstart.py", tmp_path / "one", **run))
    first, second = finish(together(command("quickstart.py", tmp_path / "two", **run), launcher))
    assert "8 cpu devices" in first and second == ""
    assert_same_run(tmp_path / "one", tmp_path / "two", atol=1e-5)
    one, two = gradients(tmp_path / "one"), gradients(tmp_path / "two")
    for left, right in zip(one, two, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in one) > 1e-3
    pictures = [Image.open(tmp_path / name / "images" / "val_0000005.png") for name in ("one", "two")]
    np.testing.assert_allclose(*(np.asarray(picture, int) for picture in pictures), atol=2)  # rounding, enlarged


@pytest.mark.full
def test_one_of_two_that_is_told_to_end_saves_for_both_and_fewer_devices_go_on(videos, tmp_path):
    run = dict(data__path=videos, data__val_path="", **RUN | dict(total_steps=40, checkpoint_steps=1000))
    processes = together(command("quickstart.py", tmp_path, **run))
    for line in processes[0].stdout:
        if line.startswith("step  3/40"):
            break
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], errors
    (saved,) = re.findall(r"told to end; saved up to step (\d+) of 40", errors[0])
    assert f"continuing from step {saved}" in alone(command("quickstart.py", tmp_path, **run), devices=2)
    assert [row["step"] for row in losses(tmp_path)] == list(range(1, 41))


@pytest.mark.full
def test_broken_videos_of_both_are_listed_once_and_counted(videos, tmp_path):
    for file in sorted(videos.glob("*/*.mp4")):
        copy = tmp_path / "videos" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    broken = sorted((tmp_path / "videos").glob("*/*.mp4"))[:3]
    for file in broken:
        file.write_text("no video")
    run = dict(data__path=tmp_path / "videos", data__val_path="", data__max_broken_share=0.5, **RUN)
    finish(together(command("quickstart.py", tmp_path / "run", **run)))
    listed = (tmp_path / "run" / "broken_videos.csv").read_text().splitlines()
    assert len(listed) == 1 + len(broken)
    assert losses(tmp_path / "run")[-1]["broken_videos"] == len(broken)


@pytest.mark.full
def test_two_processes_finetune_and_test_as_one(videos, tmp_path):
    words = [sys.executable, "eval.py", "--config", "configs/quickstart_finetune.py"]
    keys = {"init_from": "scratch", "data.path": videos, "data.val_path": videos, "data.batch_size": 8}
    keys |= {"model.image_size": "(32, 32)", "total_steps": 5, "eval.steps": 2, "log_steps": 1, "data.workers": 0}
    keys |= {"augment.mixup": 0.8, "test.segments": 2, "test.batch_size": 3}
    words += [f"--config.{name}={value}" for name, value in keys.items()]
    alone([*words, "--workdir", str(tmp_path / "one")])
    first, second = finish(together([*words, "--workdir", str(tmp_path / "two")]))
    assert "top1" in first and second == ""
    assert_same_run(tmp_path / "one", tmp_path / "two", atol=1e-4)
    tables = [
        [line.split(",") for line in (tmp_path / name / "predictions.csv").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--coordinator_address and --process_id missing"),
        (
            ["--coordinator_address=here", "--num_processes=2", "--process_id=0"],
            "must be host:port and --process_id from 0 to --num_processes - 1, got here, 0 and 2",
        ),
        (["--coordinator_address=here:1", "--num_processes=2", "--process_id=2"], "got here:1, 2 and 2"),
    ],
)
def test_half_told_processes_are_refused(tmp_path, flags, message):
    words = [*command("quickstart.py", tmp_path), *flags]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert message in ended.stderr and "Traceback" not in ended.stderr
