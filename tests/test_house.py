"""What holds for the package as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

import videomae_jax

ROOT = Path(__file__).parents[1]


IMPORTING = """
import sys, train, eval
from jax._src import xla_bridge

print(xla_bridge.backends_are_initialized(), {"torch", "tensorflow", "transformers"} & sys.modules.keys())
"""


def test_importing_starts_no_device_and_loads_no_other_framework():
    done = subprocess.run([sys.executable, "-c", IMPORTING], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "set()"], done.stderr


WITHOUT_CODECS = """
import sys

for name in ("av", "cv2", "grain", "array_record", "tensorflow_datasets", "tensorboardX", "simplejpeg"):
    sys.modules[name] = None
import videomae_jax, videomae_jax.training.state, videomae_jax.training.optimizer

print(videomae_jax.VideoMAEForPreTraining.__name__)
try:
    videomae_jax.VideoMAEImageProcessor
except ImportError as error:
    print(error.name)
"""


def test_models_and_steps_need_nothing_that_reads_videos():
    done = subprocess.run([sys.executable, "-c", WITHOUT_CODECS], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["VideoMAEForPreTraining", "cv2"], done.stderr
    with pytest.raises(AttributeError, match="'videomae_jax' has no attribute 'VideoMAEForEverything'"):
        videomae_jax.VideoMAEForEverything  # noqa: B018
