"""train.py as a user runs it, in a process of its own or, for speed, in this one."""

import contextlib
import functools
import io
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import psutil
from absl import flags

from videomae_jax.training import mesh
from videomae_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]

# A model, clip and batch for a test; numbers are dotted keys of the recipe.
SMALL = {
    "data.batch_size": 4,
    "data.workers": 0,
    "model.image_size": 32,
    "model.num_frames": 4,
    "eval.clips": 4,
    "eval.steps": 1000,
    "log_steps": 1,
}


def command(config, workdir, **keys):
    """The command line; `keys` are dotted, with a double underscore for the dot."""
    options = {**SMALL, **{key.replace("__", "."): value for key, value in keys.items()}}
    words = [f"--config.{key}={value}" for key, value in options.items()]
    return [sys.executable, "train.py", "--config", f"configs/{config}", *words, "--workdir", str(workdir)]


def train(config, workdir, **keys):
    done = subprocess.run(command(config, workdir, **keys), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(words):
    """Exit status, output and messages of a command in this process, where it finds one device.

    A process of its own takes longer to import what it needs than to train a model of these tests.
    """
    out, errors = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    on_one_device = functools.partial(mesh.make_mesh, devices=jax.devices()[:1])
    with (
        mock.patch.object(sys, "argv", words[1:]),
        mock.patch.object(mesh, "make_mesh", on_one_device),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(words[1], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code or 0
        finally:
            for name in list(flags.FLAGS):
                if re.match(r"config(\.|$)|workdir$|coordinator_address$|num_processes$|process_id$", name):
                    delattr(flags.FLAGS, name)  # or the next command could not define it
    return status, *(file.buffer.getvalue().decode() for file in (out, errors))


def train_here(config, workdir, **keys):
    """What a run prints that ends well, in this process."""
    status, printed, errors = run_here(command(config, workdir, **keys))
    assert status == 0, printed + errors
    return printed


def losses(workdir):
    """What must not depend on when and where a run was interrupted: every number but the speed."""
    speed = ("clips_per_second", "step_ms", "data_wait_fraction")
    return [{name: value for name, value in row.items() if name not in speed} for row in read_metrics(workdir)]


def kill_at(line_start, words):
    """Starts the command and kills it, without warning, as soon as it prints a line; its children by then."""
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    children = []
    for line in process.stdout:
        if line.startswith(line_start):
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL, f"the run ended before it printed {line_start!r}"
    return children
