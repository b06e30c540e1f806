import sys

import pytest
from train_command import run_here

from videomae_jax.training.preemption import EXIT_STATUS

SCRIPT = """
import os
import signal

from videomae_jax.training import command_line


def main(config, workdir):
    {}


command_line.run(main)
"""


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted; the same command goes on from the last checkpoint"),
        # Before and after training; during it a run saves itself first.
        ("os.kill(os.getpid(), signal.SIGTERM)", EXIT_STATUS, "told to end; the same command goes on from there"),
    ],
)
def test_a_run_that_is_told_to_end_says_how_to_go_on_in_one_line(tmp_path, event, status, message):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(event))
    ended, _, errors = run_here([sys.executable, str(script), "--config", "configs/quickstart.py"])
    assert ended == status
    assert errors.strip() == message
