import subprocess
import sys

from videomae_jax.training.stall import at_most

HANGS = """
import threading
from videomae_jax.training.stall import at_most

with at_most(0.2, "Nothing came"):
    threading.Event().wait()
"""


def test_what_takes_too_long_ends_the_process_by_name():
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: Nothing came for 0 s. The same command goes on from the last checkpoint.\n"


def test_what_comes_in_time_goes_on():
    with at_most(60, "Nothing came"):
        pass
