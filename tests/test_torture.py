"""A run that is killed again and again, at random moments, comes to what an undisturbed one comes to."""

import random
import signal
import subprocess

import pytest
from train_command import ROOT, command, losses, train

from videomae_jax.training.preemption import EXIT_STATUS


def disturb(words, rng):
    """Lets a run take up to three steps, kills it a moment later, and tells how it ended."""
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        steps_left = rng.randint(1, 3)
        for line in process.stdout:
            steps_left -= line.startswith("step ")
            if steps_left == 0:
                break
        try:
            process.wait(rng.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
        process.stdout.read()  # or it could not write what it has to say
    return process.returncode


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.full)])
def test_a_tortured_run_ends_with_the_parameters_of_an_undisturbed_one(videos, builtin_clips, tmp_path, kills):
    run = dict(data__path=videos, data__val_path=videos, eval__steps=5, checkpoint_steps=2, total_steps=4 * kills + 2)
    train("quickstart.py", tmp_path / "whole", **run)
    rng, ends = random.Random(kills), []
    for _ in range(kills):
        ends.append(disturb(command("quickstart.py", tmp_path / "tortured", **run), rng))
    assert set(ends) <= {-signal.SIGKILL, EXIT_STATUS}  # none came to its end
    train("quickstart.py", tmp_path / "tortured", **run)
    for file in ("model.safetensors", "config.json", "preprocessor_config.json"):
        whole, tortured = ((tmp_path / name / "model" / file).read_bytes() for name in ("whole", "tortured"))
        assert whole == tortured, file
    assert losses(tmp_path / "tortured") == losses(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "tortured" / "checkpoints").iterdir()} == {
        path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()
    }
