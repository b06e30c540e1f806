"""train.py as a user runs it, in a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

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
