"""A run that is killed again and again, at random moments, comes to what an undisturbed one comes to."""

import itertools
import random
import signal
import subprocess
import time

import pytest
from train_command import ROOT, command, losses, train

from videomae_jax.training.preemption import EXIT_STATUS


def disturb(words, checkpoints, while_writing, end, rng):
    """Lets a run begin or take some steps, and ends it: a moment later, or while it writes its next checkpoint.

    Returns:
      Its exit status, and whether it left a checkpoint half written.
    """
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        steps, times = rng.randint(0, 5), []
        for line in process.stdout:
            if line.startswith("step "):
                times.append(time.perf_counter())
            if line.startswith(("compiled ", "step ")) and len(times) == steps:
                break
        if while_writing:
            while process.poll() is None and not half_written(checkpoints):
                time.sleep(0.0005)
        elif steps > 2:  # one of two steps may have waited for a measurement
            time.sleep(rng.uniform(0, 2 * min(after - before for before, after in itertools.pairwise(times))))
        process.send_signal(end)
        process.stdout.read()  # or it could not write what it has to say
    return process.returncode, half_written(checkpoints)


def half_written(checkpoints):
    """Whether there is a checkpoint that is not complete."""
    return any(checkpoints.glob("*.orbax-checkpoint-tmp*"))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.full)])
def test_a_tortured_run_ends_with_the_parameters_of_an_undisturbed_one(videos, builtin_clips, tmp_path, kills):
    run = dict(data__path=videos, data__val_path=videos, eval__steps=5, checkpoint_steps=2, total_steps=10 * kills)
    train("quickstart.py", tmp_path / "whole", **run)
    rng, tortured = random.Random(kills), tmp_path / "tortured"
    ends, torn = [], []
    for kill in range(kills):
        # Of every four ends two are while a checkpoint is written, one by each signal.
        end, while_writing = (signal.SIGKILL, signal.SIGTERM)[kill % 2], kill % 4 in (0, 3)
        words = command("quickstart.py", tortured, **run)
        status, left = disturb(words, tortured / "checkpoints", while_writing, end, rng)
        ends.append(status)
        torn.append(left)
    assert ends == [(-signal.SIGKILL, EXIT_STATUS)[kill % 2] for kill in range(kills)]  # none came to its end
    assert any(torn)
    train("quickstart.py", tortured, **run)
    for file in ("model/model.safetensors", "best/model.safetensors", "best/validation.json", "model/config.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tortured / file).read_bytes(), file
    assert losses(tortured) == losses(tmp_path / "whole")
    assert {path.name for path in (tortured / "checkpoints").iterdir()} == {
        path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()
    }
