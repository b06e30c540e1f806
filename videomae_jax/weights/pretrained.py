"""`save_pretrained` and `from_pretrained`: a folder with `config.json` and `model.safetensors`."""

import dataclasses
import json
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
        write_config(self.config, type(self).__name__, directory)
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
        config = dataclasses.replace(read_config(directory), **config_overrides)
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


def write_config(config: VideoMAEConfig, architecture: str, directory: Path) -> None:
    """Writes `config.json`.

    transformers ignores fields it does not know and would run a model with other position tables or pixel statistics
    without a word, so such a model is not called `videomae` there.
    """
    known = config.position_embedding_type == "sincos_1d" and config.image_mean is None and config.image_std is None
    content = {
        "architectures": [architecture],
        "model_type": "videomae" if known else "videomae_jax",
        **dataclasses.asdict(config),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_config(directory: Path) -> VideoMAEConfig:
    """Reads `config.json`, leaving out the fields that are not about the model's shape.

    Raises:
      ValueError: an activation that the model does not have.
    """
    content = json.loads((directory / CONFIG_FILE).read_text())
    if "qv_bias" in content:  # the name in transformers 5
        content["qkv_bias"] = content.pop("qv_bias")
    if content.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{directory / CONFIG_FILE}: hidden_act={content['hidden_act']!r}; only 'gelu' is built.")
    fields = {field.name for field in dataclasses.fields(VideoMAEConfig)}
    return VideoMAEConfig(**{name: value for name, value in content.items() if name in fields})
