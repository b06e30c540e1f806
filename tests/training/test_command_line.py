import subprocess
import sys
from pathlib import Path

SCRIPT = """
from videomae_jax.training import command_line


def main(config, workdir):
    raise KeyboardInterrupt


command_line.run(main)
"""


def test_an_interrupt_is_one_line_that_says_how_to_go_on():
    command = [sys.executable, "-c", SCRIPT, "--config", "configs/quickstart.py"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 130
    assert ended.stderr.strip() == "interrupted; the same command goes on from the last checkpoint"
