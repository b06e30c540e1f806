"""`save_pretrained` and `from_pretrained`: a folder with `config.json` and `model.safetensors`."""

from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save

from videomae_jax.config import VideoMAEConfig
from videomae_jax.weights.arrays import from_huggingface, to_huggingface

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class PretrainedMixin:
    """Saving and loading for modules with a `config`, a constructor `(config, dtype=..., rngs=...)` and parameters."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the config and the weights, under Hugging Face's names and in torch's array order."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        params = nnx.to_pure_dict(nnx.split(self)[1])
        self.config.save_pretrained(directory, architecture=type(self).__name__)
        arrays = {name: np.ascontiguousarray(array) for name, array in to_huggingface(params, self.config).items()}
        # Not save_file, whose files only their owner can read.
        (directory / WEIGHTS_FILE).write_bytes(save(arrays, metadata={"format": "pt"}))

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, dtype: jnp.dtype = jnp.float32, **config_overrides: Any) -> Self:
        """Loads what `save_pretrained` wrote, here or in transformers; a run's folder stands for its `model/`.

        Args:
          directory: a folder with `config.json` and `model.safetensors`, or a run's folder with `model/` in it.
          dtype: compute dtype.
          **config_overrides: fields of the config to change.

        Raises:
          ValueError: files missing, or weights that do not fit the model; nothing is skipped in silence.
        """
        directory = find_model(directory)
        config = VideoMAEConfig.from_pretrained(directory, **config_overrides)
        abstract = nnx.eval_shape(lambda: cls(config, dtype=dtype, rngs=nnx.Rngs(0)))
        graphdef, state = nnx.split(abstract)
        arrays = load_file(directory / WEIGHTS_FILE)
        try:
            params = from_huggingface(arrays, nnx.to_pure_dict(state), config)
        except ValueError as error:
            raise ValueError(f"{directory / WEIGHTS_FILE}: {error}") from None
        return nnx.merge(graphdef, jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), params))


def find_model(directory: str | Path) -> Path:
    """The folder that holds the model: `directory` itself or its `model/`.

    Raises:
      ValueError: neither holds `config.json` and `model.safetensors`.
    """
    for candidate in (Path(directory), Path(directory) / "model"):
        if (candidate / CONFIG_FILE).is_file() and (candidate / WEIGHTS_FILE).is_file():
            return candidate
    raise ValueError(f"No {CONFIG_FILE} and {WEIGHTS_FILE} in {directory} or {Path(directory) / 'model'}.")
