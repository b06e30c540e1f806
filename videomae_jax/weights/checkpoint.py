"""A public checkpoint, opened: its arrays, the dialect of their names, and the config of its model."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from videomae_jax.config import CONFIG_FILE, PROCESSOR_FILES, VideoMAEConfig
from videomae_jax.fields import read_json
from videomae_jax.hub import locate
from videomae_jax.weights.arrays import is_idle, parts_in, recognise
from videomae_jax.weights.files import find_weights, read_arrays
from videomae_jax.weights.inferred import check_table, hub_fields, infer_config, run_fields
from videomae_jax.weights.rules import Dialect


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights in any of the dialects.

    Attributes:
      file: where the arrays come from.
      dialect: what its names follow.
      arrays: name -> array, all that tell the model's numbers.
      config: the model's.
    """

    file: Path
    dialect: Dialect
    arrays: Mapping[str, np.ndarray]
    config: VideoMAEConfig

    @classmethod
    def open(cls, name: str | Path, *, revision: str | None = None, **overrides: Any) -> Self:
        """Reads a file, a folder, a run's folder or a Hub id.

        The config comes from the `config.json` beside the weights; where there is none, from the arrays, the
        arguments of the run if the file has them, and the published sizes.

        Args:
          name: see `hub.locate`.
          revision: branch, tag or commit on the Hub.
          **overrides: fields of the config (`VideoMAEConfig.adapt`).

        Raises:
          ValueError: nothing there, another kind of file, a model that is not built here; it names the file.
        """
        path = _locate(name, revision)
        file = find_weights(path)
        arrays, arguments = read_arrays(file)
        try:
            dialect = recognise(list(arrays))
        except ValueError as error:
            raise ValueError(f"{file} is {error}") from None
        tables = [array for name, array in arrays.items() if name in dialect.tables]
        arrays = {n: array for n, array in arrays.items() if n not in dialect.tables and not is_idle(n, dialect)}
        # A file that is named may lie among others that have nothing to do with it.
        beside = file.parent / CONFIG_FILE
        content = read_json(beside) if beside.is_file() and (path.is_dir() or dialect.resize == "pil") else {}
        if content and "model_config" not in content:
            config = VideoMAEConfig.from_pretrained(beside, **overrides)
        else:
            try:
                told = hub_fields(content["model_config"], beside) if content else run_fields(arguments)
                config = infer_config(file, arrays, dialect, told, overrides)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
        for table in tables:
            check_table(file, table, config)
        return cls(file, dialect, arrays, config)

    def has(self, part: str) -> bool:
        """Whether it has a part: "encoder", "encoder norm", "decoder", "fc_norm", "pooler", "classifier"."""
        return part in parts_in(self.arrays, self.dialect)


def _locate(name: str | Path, revision: str | None) -> Path:
    """The local path. Many a Hub id has its weights twice, and only one of them is to be downloaded."""
    configs = (CONFIG_FILE, *PROCESSOR_FILES, "*.index.json")
    path = locate(name, revision=revision, patterns=(*configs, "model.safetensors", "model-*-of-*.safetensors"))
    if path.is_file() or any(path.glob("*.safetensors")):
        return path
    return locate(name, revision=revision, patterns=(*configs, "pytorch_model.bin", "pytorch_model-*-of-*.bin"))
