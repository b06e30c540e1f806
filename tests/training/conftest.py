"""A model small enough to train in a test."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies

from videomae_jax import VideoMAEConfig
from videomae_jax.model.masking import Masking
from videomae_jax.training.mesh import make_mesh
from videomae_jax.training.optimizer import adamw
from videomae_jax.training.recipe import Recipe, pretraining
from videomae_jax.training.state import Trainer
from videomae_jax.training.tasks import Pretraining


@pytest.fixture
def recipe():
    """The defaults of pre-training."""
    config = pretraining("tiny")
    config.data.path = "videos"
    return Recipe.from_config(config)


@pytest.fixture
def config():
    return VideoMAEConfig.from_size(
        "tiny",
        image_size=32,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=32,
    )


@pytest.fixture
def task(config):
    masking = Masking("tube", 0.75, "none", 0.0, config.grid)
    return Pretraining(config, masking, flip=True, seed=0, dtype=jnp.dtype("float32"))


@pytest.fixture
def make_trainer(task, recipe):
    def make(*, devices=None, accumulation=1, learning_rate=1e-3, **axes):
        # What is split over devices takes longest to compile.
        devices = devices or (8 if axes else 1)
        mesh = make_mesh(**dict(data=-1, fsdp=1, tensor=1) | axes, devices=jax.devices()[:devices])
        return Trainer(task, adamw(lambda step: learning_rate, recipe.optim), mesh, accumulation)

    return make


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "video": rng.integers(0, 256, (16, 1, 4, 32, 32, 3), np.uint8),
        "sample": np.arange(100, 116, dtype=np.uint32),
    }


@pytest.fixture
def tpus(monkeypatch):
    """Gives the devices of a TPU slice by its name, to compile for."""
    # Beside the environment and not in it, where JAX would look for a TPU.
    libtpu = Path(sys.prefix) / "libtpu"
    if not libtpu.exists():
        pytest.skip("`make test` found no wheel of libtpu for this machine")
    monkeypatch.syspath_prepend(libtpu)
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "1")
    return lambda name: topologies.get_topology_desc(platform="tpu", topology_name=name).devices
